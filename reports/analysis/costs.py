"""The nets of a study with their costs (parameters, multiply-accumulates, latency), and test scores against costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.analysis import statistics
from reports.analysis.comparison import group_by_seed
from reports.analysis.search import find_pareto_front
from reports.load import StudyRecords
from study.trial import Direction


@dataclass(frozen=True)
class Net:
    """A net with its entry in study.json."""

    name: str
    is_teacher: bool
    entry: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Name of a student; of one that a cell chose, the cell's with the chosen net's."""
        chosen = self.entry.get("name") or self.name
        return self.name if chosen == self.name else f"{self.name}: {chosen}"

    @property
    def latency_range(self) -> tuple[float, float] | None:
        """Seconds of the fastest and the slowest pass, if recorded."""
        spread = self.entry.get("latency_range_seconds")
        return (spread[0], spread[1]) if isinstance(spread, list) else None

    def get_cost(self, key: str) -> float | None:
        """Return a positive number of the entry, such as `macs` or `latency_seconds`; None if it is not recorded."""
        value = self.entry.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


@dataclass(frozen=True)
class ScoredNet:
    """A net with its mean test score under one arm, in the unit in which the metric is written."""

    net: Net
    arm: str
    """Empty for the teacher."""
    position: int
    """Position of the arm in the study, which decides its colour."""
    score: float
    half_width: float
    """Half the width of the 95 % t interval; 0 for a single run."""


def list_nets(records: StudyRecords) -> list[Net]:
    """Return the teacher, if the study has one, and the students in the study's order, searched ones by cell."""
    teacher = records.section("teacher")
    first = [Net(str(teacher.get("name") or "teacher"), True, teacher)] if teacher else []
    names = dict.fromkeys(cell.net for cell in records.cells)
    return first + [Net(name, False, records.section("students", name)) for name in names]


def are_measured(nets: Sequence[Net]) -> bool:
    """Return whether more than parameters is recorded of any net."""
    return any(net.get_cost("macs") for net in nets)


def to_dataframe(nets: Sequence[Net]) -> pd.DataFrame:
    """Return a row per net with its costs as they were measured: nets.csv, whose columns are in docs/records.md."""
    rows = []
    for net in nets:
        fastest, slowest = net.latency_range or (None, None)
        rows.append(
            {
                "net": net.label,
                "teacher": net.is_teacher,
                "parameters": net.get_cost("parameters"),
                "macs": net.get_cost("macs"),
                "latency_seconds": net.get_cost("latency_seconds"),
                "fastest_seconds": fastest,
                "slowest_seconds": slowest,
                "latency_runs": net.get_cost("latency_runs"),
            }
        )
    whole = ("parameters", "macs", "latency_runs")
    return pd.DataFrame(rows).astype(dict.fromkeys(whole, "Int64"))


def score_nets(records: StudyRecords) -> list[ScoredNet]:
    """Return each cell that has a result, and the teacher last."""
    metric = records.get_metric(records.test_metric)
    arms = list(dict.fromkeys(cell.arm for cell in records.cells))
    nets, scored = list_nets(records), []
    students = {net.name: net for net in nets if not net.is_teacher}
    tested = group_by_seed(records, records.test_metric)
    for cell in records.cells:
        if values := tested.get(cell.name):
            mean = statistics.compute_mean([value * metric.factor for value in values.values()])
            scored.append(ScoredNet(students[cell.net], cell.arm, arms.index(cell.arm), mean.mean, mean.half_width))
    score = records.section("teacher", "metrics").get(records.test_metric)
    if nets[0].is_teacher and isinstance(score, int | float):
        scored.append(ScoredNet(nets[0], "", len(arms), score * metric.factor, 0.0))
    return scored


def find_cost_front(nets: Sequence[ScoredNet], key: str, direction: Direction) -> list[ScoredNet]:
    """Return the nets that none surpasses in score at the same or a lower cost, by increasing cost."""
    rows = [{"score": one.score, "cost": one.net.get_cost(key)} for one in nets]
    front = [nets[position] for position in find_pareto_front(rows, ("score", "cost"), (direction, "min"))]
    return sorted(front, key=lambda one: (one.net.get_cost(key) or 0.0, one.score))
