"""Which student is exported: by validation where cells have it, and never by test scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports.analysis.export_choice import choose_cell, get_confirm_run
from reports.load import StudyRecords, load_study
from study.errors import InputError
from tests.reports.fake_study import DKD, Writer

CELL = "resnet8 / DKD"


def validated(writer: Writer, scores: dict[str, float]) -> StudyRecords:
    """A study that confirmed with validation apart, with this mean validation accuracy by arm."""
    writer.study["confirm_on"] = "train"
    for row in writer.fill().trials:
        if row["phase"] == "confirm":
            row["val/accuracy"] = scores[row["arm"]] + (0.001 if row["number"] % 2 else -0.001)
    return load_study(writer.write())


def test_a_named_cell_is_taken(study: Path) -> None:
    assert choose_cell(load_study(study), CELL).cell.name == CELL


def test_an_unknown_cell_is_refused_with_those_there_are(study: Path) -> None:
    with pytest.raises(InputError, match="no cell 'resnet8 / KD' in this study: the cells are 'resnet8 / none', "):
        choose_cell(load_study(study), "resnet8 / KD")


def test_a_cell_that_is_not_confirmed_is_refused(writer: Writer) -> None:
    writer.fill()
    writer.trials = [row for row in writer.trials if row["arm"] != "DKD" or row["number"] != 3]
    with pytest.raises(InputError, match="'resnet8 / DKD' is not confirmed: 7 of 8 seeds"):
        choose_cell(load_study(writer.write()), CELL)


def test_validation_of_confirm_runs_decides_whatever_test_says(writer: Writer) -> None:
    records = validated(writer, {"none": 0.90, "DKD": 0.93, "DKD + LP searched": 0.92})
    tests = records.confirmed.groupby("arm")["test/accuracy"].mean()
    assert tests.idxmax() == "DKD + LP searched"
    choice = choose_cell(records)
    assert (choice.cell.arm, choice.because) == (
        "DKD",
        "the best mean validation accuracy of confirm runs among 3 cells",
    )


def test_the_lowest_validation_error_decides_where_less_is_better(writer: Writer) -> None:
    writer.study |= {"direction": "min", "metrics": {}}
    assert choose_cell(validated(writer, {"none": 0.90, "DKD": 0.93, "DKD + LP searched": 0.92})).cell.arm == "none"


def test_searches_decide_where_every_cell_had_one(writer: Writer) -> None:
    del writer.arms["none"]
    writer.versus, writer.searched = {"DKD": None, "DKD + LP searched": "DKD"}, set(writer.arms)
    for row in writer.fill().trials:
        if row["phase"] == "search" and row["arm"] == "DKD" and row["state"] == "PRUNED":
            row["val/accuracy"] = 0.99  # of fewer epochs, and not what was confirmed
        elif row["phase"] == "search" and row["arm"] != "DKD" and row["state"] == "COMPLETE":
            row["val/accuracy"] += 0.001
    assert choose_cell(load_study(writer.write())).cell.arm == "DKD + LP searched"


def test_searched_cells_alone_are_compared_where_others_have_no_search(study: Path) -> None:
    choice = choose_cell(load_study(study))
    assert choice.cell.arm == "DKD + LP searched"
    assert choice.because == (
        "the best validation accuracy of a search among 1 cells; without one are resnet8 / none, resnet8 / DKD"
    )


def test_without_any_validation_nothing_is_chosen(writer: Writer) -> None:
    writer.searched = set()
    with pytest.raises(
        InputError, match="test scores must not choose: name a cell with --cell; the cells are 'resnet8 / none'"
    ):
        choose_cell(load_study(writer.fill().write()))


def test_the_choice_is_the_same_for_any_test_scores(writer: Writer) -> None:
    rng, chosen = np.random.default_rng(0), set()
    for _ in range(5):
        other = Writer(writer.folder)
        other.arms = {arm: list(rng.uniform(0, 1, 8)) for arm in other.arms}
        chosen.add(choose_cell(validated(other, {"none": 0.90, "DKD": 0.93, "DKD + LP searched": 0.92})).cell.arm)
    assert chosen == {"DKD"}


def test_the_only_confirmed_cell_is_taken(writer: Writer) -> None:
    writer.fill()
    writer.trials = [row for row in writer.trials if row["phase"] != "confirm" or row["arm"] == "DKD"]
    assert choose_cell(load_study(writer.write())).because == "the only confirmed cell"


def test_a_study_without_any_confirmed_cell_is_refused(writer: Writer) -> None:
    with pytest.raises(InputError, match="no cell of 'fake' is confirmed yet"):
        choose_cell(load_study(writer.write()))


def test_seed_number_0_is_not_the_best_on_test(study: Path) -> None:
    records = load_study(study)
    run = get_confirm_run(records, choose_cell(records, CELL).cell, 0)
    assert (run["number"], run["test/accuracy"]) == (0, DKD[0])
    assert max(DKD) != DKD[0]


@pytest.mark.parametrize("number", [0, 8])
def test_a_seed_number_that_is_not_there_is_refused(writer: Writer, number: int) -> None:
    writer.fill()
    writer.trials = [row for row in writer.trials if row["phase"] != "confirm" or row["number"] != 0]
    records = load_study(writer.write())
    with pytest.raises(InputError, match=f"no confirm run of seed number {number} in .*: the numbers are 1, 2, "):
        get_confirm_run(records, next(cell for cell in records.cells if cell.name == CELL), number)
