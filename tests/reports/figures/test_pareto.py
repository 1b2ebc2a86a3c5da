"""The Pareto set of a study with several objectives, and its table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reports.analysis.search import find_pareto_front
from reports.build import build
from reports.load import load_study
from reports.tables.search import make_pareto_table
from tests.reports.fake_study import Writer

SMALL = st.integers(0, 3).map(float)


@given(st.lists(st.tuples(SMALL, SMALL, SMALL), max_size=12), st.tuples(*[st.sampled_from(["max", "min"])] * 3))
def test_pareto_set_is_what_brute_force_finds(values: list[tuple[float, ...]], directions: tuple[Any, ...]) -> None:
    def better(one: float, other: float, direction: str) -> bool:
        return one > other if direction == "max" else one < other

    def dominated(point: tuple[float, ...]) -> bool:
        return any(
            any(better(o, p, d) for o, p, d in zip(other, point, directions, strict=True))
            and not any(better(p, o, d) for o, p, d in zip(other, point, directions, strict=True))
            for other in values
        )

    rows = [dict(zip("abc", point, strict=True)) for point in values]
    assert find_pareto_front(rows, "abc", directions) == [n for n, point in enumerate(values) if not dominated(point)]


def test_rows_that_differ_by_rounding_alone_are_equal() -> None:
    rows = [{"accuracy": 0.1 + 0.2, "cost": 2.0}, {"accuracy": 0.3, "cost": 1.0}]
    assert find_pareto_front(rows, ["accuracy", "cost"], ["max", "min"]) == [1]


def test_pareto_set_leaves_out_rows_without_a_finite_value() -> None:
    rows = [
        {"a": 1.0, "b": None},
        {"a": math.nan, "b": 9.0},
        {"a": math.inf, "b": 9.0},
        {"b": 9.0},
        {"a": 0.0, "b": 0.0},
    ]
    assert find_pareto_front(rows, ("a", "b"), ("max", "max")) == [4]


def test_table_shows_the_front_best_first_and_says_what_is_confirmed(writer: Writer) -> None:
    """`train/loss` stands in for a second objective: it is on record with the fake study's search trials."""
    writer.fill()
    complete = [row for row in writer.trials if row["phase"] == "search" and row["state"] == "COMPLETE"]
    for rank, row in enumerate(sorted(complete, key=lambda row: -row["val/accuracy"])):
        row["train/loss"] = {0: 0.5, 1: 0.9, 2: 0.1}.get(rank, 1.0)
    writer.study["objectives"] = ["train/loss"]
    records = load_study(writer.write())
    table = make_pareto_table(records, records.cells[2])
    assert table is not None
    best = sorted(complete, key=lambda row: -row["val/accuracy"])
    assert [row[0] for row in table.rows] == [str(best[0]["number"]), str(best[2]["number"])]
    assert [row[-1] for row in table.rows] == ["0.5000", "0.1000"]
    assert table.notes == ("Of 10 completed trials. validation accuracy alone decides what is confirmed.",)
    assert (build(records.folder).parent / "tables" / "pareto-resnet8-DKD-+-LP-searched.csv").is_file()


def test_study_with_one_objective_has_no_front(study: Path) -> None:
    records = load_study(study)
    assert make_pareto_table(records, records.cells[2]) is None
