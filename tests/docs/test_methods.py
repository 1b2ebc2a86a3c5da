"""The table of docs/methods.md has every loss, and states what each reads and by how many workers it is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

import trainables
from study.task import SingleWorkerMethod, StatefulMethod, reads_features

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells
    for line in PAGE.splitlines()
    if line.startswith("| `") and (cells := [cell.strip() for cell in line.strip("|").split("|")])
}


def test_table_has_every_loss_that_is_exported() -> None:
    exported = {name for name in trainables.__all__ if hasattr(getattr(trainables, name), "needs_teacher")}
    without_nets = {"SimulatedLoss", "MovingLoss"}
    assert set(ROWS) == exported - {"DistillationLoss"} - without_nets


@pytest.mark.parametrize("name", ROWS)
def test_row_states_what_the_loss_needs(name: str) -> None:
    loss = getattr(trainables, name)()
    _, _, _, reads, workers = ROWS[name]
    assert (reads == "nothing") == (not loss.needs_teacher)
    assert (reads == "features") == reads_features(loss)
    needs_one = isinstance(loss, SingleWorkerMethod | StatefulMethod)
    assert workers.startswith("one" if needs_one else "several")
