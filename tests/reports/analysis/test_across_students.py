"""Comparisons over students: pairs within students, one correction, and nets named as nets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reports.analysis.across_students import compare_nets, pool_students
from reports.build import build
from reports.load import load_study
from reports.tables.across_students import make_tables
from reports.tables.terminal import format_comparisons
from reports.text.summary import summarize_across_students
from tests.reports.fake_study import DKD, NONE, SEARCHED, Writer


@pytest.fixture
def two(writer: Writer) -> Writer:
    writer.students = ["resnet8", "resnet20"]
    return writer


def test_single_student_has_nothing_to_pool(writer: Writer) -> None:
    records = load_study(writer.fill().write())
    assert pool_students(records) is None
    assert make_tables(records) == []
    assert summarize_across_students(records) == []


def test_pairs_of_all_students_are_tested_together(two: Writer) -> None:
    two.fill()
    for row in two.trials:  # so that the students differ
        if row["student"] == "resnet20" and row["phase"] == "confirm" and row["arm"] == "DKD + LP searched":
            row["test/accuracy"] += 0.004
    pooled = pool_students(load_study(two.write()))
    assert pooled is not None
    dkd, searched = pooled.contrasts
    both = np.concatenate([np.subtract(SEARCHED, DKD), np.subtract(SEARCHED, DKD) + 0.004])
    flips = np.array(list(itertools.product([1, -1], repeat=16)), dtype=float)
    p = np.mean(np.abs(flips @ both) >= abs(both.sum()) - 1e-12)
    assert searched.paired is not None
    assert (searched.paired.n, searched.paired.difference) == (16, pytest.approx(both.mean()))
    assert searched.paired.p == pytest.approx(p)
    assert dkd.paired is not None
    assert dkd.paired.difference == pytest.approx(np.mean(DKD) - np.mean(NONE))
    assert dkd.p == 2 * 2 / 2**16, "with 16 pairs, and two comparisons"


def test_students_count_alike_whatever_their_number_of_seeds(two: Writer) -> None:
    two.fill()
    for row in two.trials:
        if row["student"] == "resnet20" and row["phase"] == "confirm" and row["arm"] == "DKD":
            row["test/accuracy"] += 0.01
    dropped = [r for r in two.trials if r["student"] == "resnet20" and r["phase"] == "confirm" and r["number"] > 3]
    two.trials = [row for row in two.trials if row not in dropped]
    pooled = pool_students(load_study(two.write()))
    assert pooled is not None
    small, large = np.subtract(DKD, NONE), np.subtract(DKD, NONE)[:4] + 0.01
    found = pooled.contrasts[0].paired
    assert found is not None
    assert (found.n, found.difference) == (12, pytest.approx((small.mean() + large.mean()) / 2))


def test_student_without_results_leaves_the_verdict_open(two: Writer) -> None:
    two.fill()
    two.trials = [row for row in two.trials if row["student"] == "resnet8" or row["phase"] != "confirm"]
    pooled = pool_students(load_study(two.write()))
    assert pooled is not None
    assert all(contrast.verdict is None for contrast in pooled.contrasts)


def test_nets_are_paired_by_seed_and_named_as_nets(two: Writer) -> None:
    two.study["net_comparisons"] = [
        {"cell": "resnet8 / DKD", "versus": ["resnet20 / none", "resnet20 / DKD"], "metrics": ["test/accuracy"]}
    ]
    records = load_study(two.fill().write())
    better, alike = compare_nets(records)
    assert better.contrast.paired is not None
    assert better.contrast.paired.difference == pytest.approx(np.mean(DKD) - np.mean(NONE))
    assert better.contrast.p == 2 * 2 / 2**8
    assert alike.contrast.paired is not None
    assert alike.contrast.paired.alike
    answer = summarize_across_students(records)[-1]
    assert answer.startswith("Nets against nets, not methods: resnet8 / DKD is better than resnet20 / none (+")
    page = build(records.folder).read_text()
    for text in (page, format_comparisons(records.folder, 200)):
        assert "Nets against nets" in text
        assert "All students together" in text
    assert (records.folder / "tables" / "nets-against-nets.csv").is_file()
