from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from reports.analysis.comparison import Comparison, compare_arms, to_dataframe
from reports.analysis.verdicts import format_verdict
from reports.build import write_tables
from reports.load import load_study
from reports.tables.comparison import make_comparison_table
from reports.text import summary
from tests.reports.fake_study import DKD, NONE, SEARCHED, Writer


def only(folder: Path) -> Comparison:
    (comparison,) = compare_arms(load_study(folder))
    return comparison


def test_comparison_equals_hand_computation(study: Path) -> None:
    comparison = only(study)
    assert comparison.rows[0].contrasts == ()
    assert comparison.rows[0].mean is not None
    assert comparison.rows[0].mean.mean == pytest.approx(np.mean(NONE))
    dkd, searched = comparison.contrasts
    assert dkd.paired is not None
    assert dkd.paired.difference == pytest.approx(np.mean(DKD) - np.mean(NONE))
    assert dkd.p == 2 * 2 / 2**8
    assert dkd.verdict == "better"
    assert searched.paired is not None
    assert searched.paired.sd == pytest.approx(np.subtract(SEARCHED, DKD).std(ddof=1))
    assert searched.p == searched.paired.p > 0.05
    assert searched.verdict == "undecided"
    assert searched.seeds_needed is not None
    assert searched.seeds_needed > 8


def test_a_metric_to_be_minimised_turns_the_verdict(writer: Writer) -> None:
    writer.study["metrics"] = {**writer.study["metrics"], "test/accuracy": "min"}
    assert only(writer.fill().write()).contrasts[0].verdict == "worse"


def test_holm_counts_a_comparison_that_has_no_runs_yet(writer: Writer) -> None:
    writer.fill()
    writer.trials = [
        row for row in writer.trials if not (row["phase"] == "confirm" and row["arm"] == "DKD + LP searched")
    ]
    comparison = only(writer.write())
    dkd, searched = comparison.contrasts
    assert dkd.p == 2 * 2 / 2**8
    assert searched.verdict is None
    assert "no result" in summary.summarize_comparison(comparison)


def test_arms_are_paired_over_shared_seeds_only(writer: Writer) -> None:
    writer.fill()
    dropped = [row for row in writer.trials if row["phase"] == "confirm" and row["arm"] == "none"][:3]
    writer.trials = [row for row in writer.trials if row not in dropped]
    paired = only(writer.write()).contrasts[0].paired
    assert paired is not None
    assert paired.n == 5
    assert paired.difference == pytest.approx(np.mean(DKD[3:]) - np.mean(NONE[3:]))


def test_runs_of_equal_number_but_other_seed_are_not_paired(writer: Writer) -> None:
    writer.fill()
    for row in writer.trials:
        if row["phase"] == "confirm" and row["arm"] == "none":
            row["seed"] += 50
    assert only(writer.write()).contrasts[0].paired is None


def test_arm_with_two_comparisons_has_one_correction_and_a_line_for_each(writer: Writer) -> None:
    writer.versus["DKD + LP searched"] = ["DKD", "none"]
    comparison = only(writer.fill().write())
    assert [(one.arm, one.versus) for one in comparison.contrasts] == [
        ("DKD", "none"),
        ("DKD + LP searched", "DKD"),
        ("DKD + LP searched", "none"),
    ]
    dkd, against_dkd, against_none = comparison.contrasts
    assert dkd.p == against_none.p == 3 * 2 / 2**8
    assert against_dkd.verdict == "undecided"
    assert "DKD + LP searched is better than none" in summary.summarize_comparison(comparison)
    table = make_comparison_table(comparison)
    assert [row[0] for row in table.rows[-2:]] == ["DKD + LP searched", ""]
    assert [row[3] for row in table.rows[-2:]] == ["DKD", "none"]
    assert len(table.kinds) == len(table.rows)
    written = to_dataframe((comparison,))
    assert list(written["versus"].fillna("")) == ["", "none", "DKD", "none"]
    assert written["mean"].iloc[2] == written["mean"].iloc[3]


@pytest.mark.parametrize("points", [0.5, 3.0])
def test_margin_shows_that_an_arm_is_not_worse_by_more(writer: Writer, points: float) -> None:
    writer.margins["DKD + LP searched"] = points
    comparison = only(writer.fill().write())
    _, searched = comparison.contrasts
    assert searched.margin == pytest.approx(points / 100)
    shifted = np.subtract(SEARCHED, DKD) + points / 100
    flips = np.array(list(itertools.product([1, -1], repeat=8)))
    raw = np.mean(flips @ shifted >= shifted.sum() - 1e-12)
    dkd_p, margin_p = 2 / 2**8, raw
    assert searched.margin_p == pytest.approx(max(2 * margin_p, 3 * min(dkd_p, margin_p)))
    assert searched.verdict == "not worse"
    answer = summary.summarize_comparison(comparison)
    assert f"is not worse than DKD by {points:.2f} points or more (+0.17 points accuracy" in answer
    assert "2 comparisons and 1 margin" in make_comparison_table(comparison).notes[0]


def test_arm_that_is_worse_may_still_be_within_the_margin(writer: Writer) -> None:
    writer.arms["DKD + LP searched"] = [value - 0.002 for value in DKD]
    writer.margins["DKD + LP searched"] = 1.0
    (_, searched) = only(writer.fill().write()).contrasts
    assert (searched.verdict, searched.within_margin) == ("worse", True)
    assert format_verdict(searched) == "worse, within the margin"


def test_search_against_an_arm_that_was_not_searched_says_so(writer: Writer) -> None:
    comparison = only(writer.fill().write())
    alone = "the latter was not searched alike: a gain may come from tuning alone"
    assert alone in summary.summarize_comparison(comparison)
    assert any("tuning alone" in note for note in make_comparison_table(comparison).notes)
    writer.searched.add("DKD")
    comparison = only(writer.write())
    assert alone not in summary.summarize_comparison(comparison).split(";")[-1]
    assert "DKD + LP searched against DKD is undecided (+0.17 points accuracy" in summary.summarize_comparison(
        comparison
    )


SKEWED = [0.010, 0.011, 0.012, 0.009, 0.010, 0.013, 0.011, 0.040]


def test_verdict_on_skewed_differences_names_the_assumption_it_breaks(writer: Writer) -> None:
    writer.arms["DKD + LP searched"] = [value + more for value, more in zip(DKD, SKEWED, strict=True)]
    comparison = only(writer.fill().write())
    assert [one.relies_on_symmetry for one in comparison.contrasts] == [False, True]
    assert any(
        note.startswith("The differences of DKD + LP searched against DKD are skewed.")
        for note in make_comparison_table(comparison).notes
    )


def test_sign_test_judges_by_signs_alone(writer: Writer) -> None:
    writer.study["test"] = "sign"
    writer.margins["DKD + LP searched"] = 0.5
    comparison = only(writer.fill().write())
    dkd, searched = comparison.contrasts
    signs = np.subtract(SEARCHED, DKD)
    assert dkd.paired is not None
    assert searched.paired is not None
    assert dkd.paired.p == 2 / 2**8
    assert searched.paired.p == pytest.approx(binomtest(int((signs > 0).sum()), int((signs != 0).sum())).pvalue)
    assert all(signs > -0.005)
    assert searched.margin_p == 3 / 2**8, "the smallest of three, one-sided"
    assert not any(one.relies_on_symmetry for one in comparison.contrasts)
    assert "p is the two-sided sign test, Holm-corrected" in make_comparison_table(comparison).notes[0]


def test_results_that_differ_by_rounding_alone_decide_nothing(writer: Writer) -> None:
    writer.arms["DKD + LP searched"] = [value + 1e-8 for value in DKD]
    comparison = only(writer.fill().write())
    _, searched = comparison.contrasts
    assert (searched.p, searched.verdict, searched.differences) == (1.0, "undecided", (0.0,) * 8)
    assert "DKD + LP searched and DKD gave the same with every seed" in summary.summarize_comparison(comparison)


def test_comparison_csv_holds_unrounded_numbers(study: Path) -> None:
    write_tables(load_study(study))
    rows = pd.read_csv(study / "tables" / "comparison.csv").set_index("arm")
    assert rows.loc["DKD", "mean"] == pytest.approx(np.mean(DKD), abs=1e-12)
    assert rows.loc["DKD", "verdict"] == "better"
    assert (study / "tables" / "comparison.md").read_text().count("\n| DKD ") == 2
