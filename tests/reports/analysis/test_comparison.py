from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports.analysis.comparison import Comparison, compare_arms
from reports.build import write_tables
from reports.load import load_study
from reports.text import summary
from tests.reports.fake_study import DKD, NONE, SEARCHED, Writer


def only(folder: Path) -> Comparison:
    (comparison,) = compare_arms(load_study(folder))
    return comparison


def test_comparison_equals_hand_computation(study: Path) -> None:
    none, dkd, searched = only(study).rows
    difference = np.subtract(SEARCHED, DKD)
    assert none.paired is None
    assert none.mean is not None
    assert none.mean.mean == pytest.approx(np.mean(NONE))
    assert dkd.paired is not None
    assert dkd.paired.difference == pytest.approx(np.mean(DKD) - np.mean(NONE))
    assert dkd.p == 2 * 2 / 2**8
    assert dkd.verdict == "better"
    assert searched.paired is not None
    assert searched.paired.sd == pytest.approx(difference.std(ddof=1))
    assert searched.p == searched.paired.p > 0.05
    assert searched.verdict == "undecided"
    assert searched.seeds_needed is not None
    assert searched.seeds_needed > 8


def test_a_metric_to_be_minimised_turns_the_verdict(writer: Writer) -> None:
    writer.study["metrics"] = {**writer.study["metrics"], "test/accuracy": "min"}
    assert only(writer.fill().write()).rows[1].verdict == "worse"


def test_holm_counts_a_comparison_that_has_no_runs_yet(writer: Writer) -> None:
    writer.fill()
    writer.trials = [
        row for row in writer.trials if not (row["phase"] == "confirm" and row["arm"] == "DKD + LP searched")
    ]
    comparison = only(writer.write())
    assert comparison.comparisons == 2
    assert comparison.rows[1].p == 2 * 2 / 2**8
    assert comparison.rows[2].verdict is None
    assert "no result" in summary.summarize_comparison(comparison)


def test_arms_are_paired_over_shared_seeds_only(writer: Writer) -> None:
    writer.fill()
    dropped = [row for row in writer.trials if row["phase"] == "confirm" and row["arm"] == "none"][:3]
    writer.trials = [row for row in writer.trials if row not in dropped]
    paired = only(writer.write()).rows[1].paired
    assert paired is not None
    assert paired.n == 5
    assert paired.difference == pytest.approx(np.mean(DKD[3:]) - np.mean(NONE[3:]))


def test_runs_of_equal_number_but_other_seed_are_not_paired(writer: Writer) -> None:
    writer.fill()
    for row in writer.trials:
        if row["phase"] == "confirm" and row["arm"] == "none":
            row["seed"] += 50
    assert only(writer.write()).rows[1].paired is None


def test_comparison_csv_holds_unrounded_numbers(study: Path) -> None:
    write_tables(load_study(study))
    rows = pd.read_csv(study / "tables" / "comparison.csv").set_index("arm")
    assert rows.loc["DKD", "mean"] == pytest.approx(np.mean(DKD), abs=1e-12)
    assert rows.loc["DKD", "verdict"] == "better"
    assert (study / "tables" / "comparison.md").read_text().count("\n| DKD ") == 2
