"""Figures published in the papers (published.csv, one per row) and the rule for showing them with measured ones.

A published figure is shown next to a measured one only if the study follows the paper's data and protocol exactly,
which the study declares by `protocol`. Values are in the papers' units: percent for accuracies.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """One figure of a paper."""

    paper: str
    task: str
    model: str
    method: str
    setting: str
    metric: str
    value: float
    selection: str
    """The epoch of the figure: "last epoch", "best test epoch", or "not stated"."""
    note: str

    @property
    def versus(self) -> str | None:
        """The method to which the figure is a difference ("dkd" for "top1_delta_vs_dkd"); None for a plain figure."""
        return self.metric.split("_delta_vs_", 1)[1] if "_delta_vs_" in self.metric else None

    def is_of_metric(self, metric: str) -> bool:
        """Return whether the figure, or difference, is of the metric with this bare name ("accuracy")."""
        name = self.metric.split("_delta_vs_", 1)[0]
        return metric in ({"top1", "accuracy"} if name in ("top1", "accuracy") else {name})

    @property
    def text(self) -> str:
        """The figure as printed in the paper, a difference with its sign."""
        sign = "+" if self.versus and self.value > 0 else ""
        return sign + str(self.value).replace("-", "−")

    @property
    def epoch(self) -> str:
        """The selection rule as written after the figure: "last epoch", "epoch not stated"."""
        return f"epoch {self.selection}" if self.selection == "not stated" else self.selection


@cache
def load_figures() -> tuple[Published, ...]:
    """Return every published figure."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Published(**{**row, "value": float(row["value"])}) for row in csv.DictReader(file))  # type: ignore[arg-type]


def find_figures(paper: str, student: str, method: str | None) -> tuple[Published, ...]:
    """Return the figures of `paper` for `student` and `method`; a method may include its setting: "kd alpha=0.1"."""
    return tuple(
        row
        for row in load_figures()
        if row.paper == paper and row.model == student and method in (row.method, f"{row.method} {row.setting}")
    )


def list_papers(students: tuple[str, ...], methods: tuple[str | None, ...]) -> list[str]:
    """Return the papers that report any of these methods for any of these students."""
    papers = sorted({row.paper for row in load_figures()})
    return [paper for paper in papers if any(find_figures(paper, s, m) for s in students for m in methods)]


def explain_absence(protocol: str, data: str, students: tuple[str, ...], methods: tuple[str | None, ...]) -> str | None:
    """Return why no published figures are shown; None if they are."""
    if protocol and protocol in list_papers(students, methods):
        return None
    not_shown = "Published figures are not shown next to measured ones"
    if protocol:
        return f"{not_shown}: {protocol} reports none for these students and methods."
    papers = list_papers(students, methods)
    whose = f"{' or '.join(papers)}'s protocol" if papers else "any paper's protocol"
    return f"{not_shown}: this study runs on {data}, not under {whose}."
