"""The comparison of studies: what is compared and how, and what is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reports.analysis import statistics
from reports.analysis.cross_study import StudentComparison, compare_studies, explain_incomparable
from reports.figures.cross_study import make_dot_plot
from reports.load import load_study
from reports.tables.cross_study import make_cells_table, summarize_student
from tests.reports.fake_study import DKD, NONE, SEARCHED, Writer

Make = Callable[..., Writer]


def compared(*writers: Writer) -> StudentComparison:
    (student,) = compare_studies([load_study(writer.write()) for writer in writers])
    return student


def row_of(student: StudentComparison, arm: str, study: int = 1) -> Any:
    return next(row for row in student.rows if (row.arm, row.study) == (arm, study))


# -- what is compared, and how -------------------------------------------------------------------------------------


def test_shared_seeds_are_compared_in_pairs_as_within_a_study(make: Make) -> None:
    other = make("b")
    gains = [0.01, 0.02, 0.012, 0.009, 0.015, 0.011, 0.013, 0.018]
    for row in other.trials:
        if row["phase"] == "confirm" and row["arm"] == "DKD":
            row["test/accuracy"] += gains[row["number"]]
    found = row_of(compared(make("a"), other), "DKD")
    oracle = statistics.compare_paired([a + gain for a, gain in zip(DKD, gains, strict=True)], DKD, "max")
    assert (found.kind, found.difference.n) == ("paired", 8)
    assert found.difference.difference == pytest.approx(np.mean(gains))
    assert found.difference.interval.low == pytest.approx(oracle.interval.low if oracle.interval else math.nan)
    assert found.difference.p == pytest.approx(2 / 2**8)
    assert found.verdict == "better"


def test_pairs_are_matched_by_seed_whatever_the_order_of_rows(make: Make) -> None:
    other = make("b", shift=0.01)
    other.trials.reverse()
    assert row_of(compared(make("a"), other), "DKD").difference.sd == pytest.approx(0, abs=1e-12)


def test_only_seeds_that_both_have_are_paired(make: Make) -> None:
    other = make("b")
    other.trials = [row for row in other.trials if row["phase"] != "confirm" or row["number"] < 5]
    assert row_of(compared(make("a"), other), "DKD").difference.n == 5


def test_holm_counts_every_comparison_of_the_table(make: Make) -> None:
    student = compared(make("a"), make("b", shift=0.01), make("c", shift=0.02))
    assert student.comparisons == 6  # three arms, two studies against the first
    assert row_of(student, "DKD", 2).p == pytest.approx(6 * 2 / 2**8)


def test_a_cell_that_is_not_measured_yet_counts_for_holm(make: Make) -> None:
    other = make("b", shift=0.01)
    other.trials = [row for row in other.trials if row["arm"] != "none" or row["phase"] != "confirm"]
    student = compared(make("a"), other)
    assert row_of(student, "none").verdict is None
    assert row_of(student, "DKD").p == pytest.approx(3 * 2 / 2**8)


def test_without_a_shared_seed_the_comparison_is_unpaired(make: Make) -> None:
    found = row_of(compared(make("a"), make("b", shift=0.02, seeds_from=5000)), "DKD")
    assert (found.kind, found.difference.n) == ("unpaired", 8)
    assert found.difference.p == pytest.approx(2 / math.comb(16, 8))  # the two groups do not overlap
    assert (found.verdict, found.seeds_needed) == ("better", None)


def test_equal_trial_ids_are_told_as_a_repetition_and_not_judged(make: Make) -> None:
    one, other = make("a"), make("b", shift=0.01)
    for row, repeated in zip(one.trials, other.trials, strict=True):
        if row["arm"] == "DKD":
            repeated["trial_id"] = row["trial_id"]
    student = compared(one, other)
    found = row_of(student, "DKD")
    assert (found.kind, found.verdict, found.p) == ("repeated", None, None)
    assert student.comparisons == 2


def test_a_lower_error_is_better_where_less_is_better(make: Make) -> None:
    writers = make("a"), make("b", shift=-0.01)
    for writer in writers:
        writer.study |= {"direction": "min", "metrics": {"test/accuracy": "min"}}
    assert row_of(compared(*writers), "DKD").verdict == "better"


def test_each_arm_is_compared_with_the_first_study_that_has_it(make: Make) -> None:
    first = make("a")
    del first.arms["DKD"]
    first.versus["DKD + LP searched"] = ["none"]
    first.trials = [row for row in first.trials if row["arm"] != "DKD"]
    student = compared(first, make("b"), make("c", shift=0.01))
    assert [(row.study, row.versus) for row in student.rows if row.arm == "DKD"] == [(1, None), (2, 1)]


# -- what must not be compared -------------------------------------------------------------------------------------


def _other_data(study: dict[str, Any]) -> None:
    study["inputs"]["data"]["fingerprint"] = "0000000000000000"


def _no_data(study: dict[str, Any]) -> None:
    del study["inputs"]["data"]["fingerprint"]


def _other_protocol(study: dict[str, Any]) -> None:
    study["protocol"] = "P1"


def _other_training_part(study: dict[str, Any]) -> None:
    study["confirm_on"] = "train"


def _other_metric(study: dict[str, Any]) -> None:
    study |= {"test_metric": "test/f1", "metrics": study["metrics"] | {"test/f1": "max"}}


def _other_net(study: dict[str, Any]) -> None:
    study["students"] = {"resnet8": {"parameters": 99}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_other_data, "other data"),
        (_no_data, "other data"),
        (_other_protocol, "another protocol"),
        (_other_training_part, "trained on another part"),
        (_other_metric, "another metric"),
        (_other_net, "another net"),
    ],
)
def test_what_is_not_comparable_gets_no_difference_and_no_verdict(
    make: Make, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    other = make("b", shift=0.02)
    change(other.study)
    student = compared(make("a"), other)
    found = row_of(student, "DKD")
    assert reason in found.incomparable
    assert (found.difference, found.p, found.verdict, student.comparisons) == (None, None, None, 0)
    assert make_dot_plot(student, ("a", "b")) is None
    table = make_cells_table(student, ("a", "b"))
    assert [row[7] for row in table.rows if row[1] == "b"] == ["not comparable"] * 3
    assert any(note.startswith("b is not comparable with a: ") and reason in note for note in table.notes)
    assert summarize_student(student, ("a", "b")) == "resnet8. b against a: not comparable under all 3 arms."


def test_two_studies_that_do_not_say_which_data_they_used_are_not_compared(make: Make) -> None:
    writers = make("a"), make("b")
    for writer in writers:
        _no_data(writer.study)
    assert explain_incomparable(*(load_study(writer.write()) for writer in writers)) == [
        "it is not on record which data they used"
    ]


@pytest.mark.parametrize(("seeds", "first_seed", "said"), [
    (3, 1000, "3 seeds cannot decide: "),
    (3, 5000, "Unpaired, this few runs give no p below 0.1, 0.3 after correction: undecided."),
    (7, 1000, ""),  # 2/2⁷ · 3 < 0.05
    (5, 5000, ""),  # 2/C(10, 5) · 3 < 0.05
])  # fmt: skip
def test_a_note_says_where_runs_are_too_few_to_decide(make: Make, seeds: int, first_seed: int, said: str) -> None:
    writers = make("a"), make("b", shift=0.01, seeds_from=first_seed)
    for writer in writers:
        writer.trials = [row for row in writer.trials if row["phase"] != "confirm" or row["number"] < seeds]
    student = compared(*writers)
    notes = [
        note for note in make_cells_table(student, ("a", "b")).notes if "cannot decide" in note or "this few" in note
    ]
    assert [note[: len(said)] for note in notes] == [said] * bool(said)
    if said:
        assert {row.verdict for row in student.rows} == {None, "undecided"}


def test_strip_puts_every_run_on_the_axis_in_order(make: Make) -> None:
    drawn = make_dot_plot(compared(make("a"), make("b", shift=0.01)), ("a", "b"))
    assert drawn is not None
    places = [place for line in drawn.lines for place in line.dots]
    values = [value for arm in (NONE, DKD, SEARCHED) for shift in (0, 0.01) for value in (x + shift for x in arm)]
    assert min(places) >= 0
    assert max(places) <= 100
    assert np.argsort(places, kind="stable").tolist() == np.argsort(np.round(values, 9), kind="stable").tolist()
    (low, text), *_, (high, last) = drawn.ticks
    slope = (high - low) / (float(last) - float(text))  # a tick of 94 % lies where a run of 0.94 would
    assert low + slope * (100 * NONE[0] - float(text)) == pytest.approx(drawn.lines[0].dots[0])
