"""A study in memory: study.json, a frame with one row per trial and one with one row per trial and epoch.

Missing and damaged parts are handled here and in frames.py alone: a file that cannot be read is left out and named in
`warnings`; a value that study.json lacks gets a default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.format.metrics import Metric, make_metric
from reports.format.values import spell_number
from reports.frames import read_epochs, read_trials
from study.records.study_json import read_study
from study.trial import Direction


@dataclass(frozen=True)
class Cell:
    """A student under an arm: one entry of `cells` in study.json."""

    name: str
    student: str
    arm: str
    baseline: bool = False
    versus: tuple[str, ...] = ()
    """The arms that this one is compared with."""
    margin: float | None = None
    """How much worse still counts as not worse, in the unit in which the metric is written."""
    searched: bool = False
    published: str | None = None
    parameters: tuple[str, ...] = ()
    population: int | None = None
    """Number of members, if a population searches the cell."""
    front: int = 1
    """The largest number of points of its own search that the cell confirms."""

    @property
    def searches_student(self) -> bool:
        return any(name.startswith("student.") for name in self.parameters)

    @property
    def searches_recipe(self) -> bool:
        return any(name.split(".")[0] == "recipe" for name in self.parameters)

    @property
    def net(self) -> str:
        """Key of the cell's net in study.json: its student's name, or its own if each cell chooses its student."""
        return self.name if self.searches_student else self.student


@dataclass(frozen=True, eq=False)
class StudyRecords:
    """The records of one study, from which all tables, figures and sentences are made."""

    folder: Path
    study: Mapping[str, Any]
    trials: pd.DataFrame = field(repr=False)
    epochs: pd.DataFrame = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.study.get("name") or self.folder.name)

    @property
    def finished(self) -> bool:
        return bool(self.study.get("finished", False))

    @property
    def metric(self) -> str:
        """Name of the validation metric that the search optimised."""
        return str(self.study.get("metric") or "val/accuracy")

    @property
    def test_metric(self) -> str:
        """Name of the test metric that the confirm runs measured."""
        return str(self.study.get("test_metric") or "test/" + self.metric.split("/", 1)[-1])

    def get_metric(self, name: str) -> Metric:
        """Return unit, digits and label of the metric `name`."""
        return make_metric(name, self.section("metrics").get(name))

    def get_direction(self, metric: str) -> Direction:
        """Return the direction in which a metric improves; the study's own where the metric declares none."""
        declared = self.section("metrics").get(metric) or self.study.get("direction")
        direction = declared.get("direction") if isinstance(declared, dict) else declared  # of schema 1 it itself
        return "min" if direction == "min" else "max"

    @property
    def declared_protocol(self) -> str:
        """The paper whose protocol the study declares to follow; empty if none."""
        return str(self.study.get("protocol") or "")

    @property
    def followed_protocol(self) -> str:
        """The same, but empty also if images of the paper's data are missing or added."""
        return self.declared_protocol if self.section("inputs", "data").get("complete", True) else ""

    @property
    def data_name(self) -> str:
        return str(self.section("inputs", "data").get("name") or "data that study.json does not name")

    def section(self, *path: str) -> dict[str, Any]:
        """Return a nested object of study.json; empty if it is missing or no object."""
        found: Any = self.study
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return dict(found) if isinstance(found, Mapping) else {}

    def get_budget(self, name: str) -> int:
        """Return the planned number of `trials`, `epochs` or `seeds`; 0 if not recorded."""
        value = self.section("budget").get(name)
        return value if isinstance(value, int) else 0

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells in the study's order, which tables and figures keep."""
        listed = self.study.get("cells")
        if isinstance(listed, list) and listed:
            return tuple(_parse_cell(cell) for cell in listed)
        rows = self.trials[self.trials["phase"] != "prepare"].drop_duplicates("cell")
        named = rows[["cell", "student", "arm"]].astype(str).to_numpy()
        return tuple(Cell(*names) for names in named)

    @property
    def students(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.student for cell in self.cells))

    def get_cells(self, student: str) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.student == student)

    @cached_property
    def code_versions(self) -> Mapping[tuple[str, int], frozenset[str]]:
        """Versions of the code that trained the counted confirm runs by cell and point; "" for one not recorded."""
        rows = self.confirmed_points.groupby(["cell", "point"], sort=False)["code"]
        return {
            (str(cell), int(str(point))): frozenset(v for code in codes for v in code.split("+"))
            for (cell, point), codes in rows
        }

    def explain_mixed_code(self, *cells: Cell, points: Sequence[int] = ()) -> str:
        """Return why these cells' confirm runs may not be averaged or compared; "" if one version trained them all.

        The runs are those of a point of each cell, by default of the best.
        """
        pairs = zip(cells, points or [0] * len(cells), strict=True)
        versions = frozenset[str]().union(*(self.code_versions.get((cell.name, at), frozenset()) for cell, at in pairs))
        return f"trials of {spell_number(len(versions))} code versions" if len(versions) > 1 else ""

    @cached_property
    def confirmed_points(self) -> pd.DataFrame:
        """The confirm runs that count: complete, with a finite test value; of repeated seed numbers the last one.

        `point` is the position among what the cell confirms, of which there are several for a front.
        """
        rows = self.trials[(self.trials["phase"] == "confirm") & (self.trials["state"] == "COMPLETE")]
        rows = rows.loc[np.isfinite(rows[self.test_metric].to_numpy(dtype=float))]
        rows = rows.assign(point=rows["point"].fillna(0).astype(int))
        last: pd.DataFrame = rows.drop_duplicates(["cell", "number", "point"], keep="last")
        return last.sort_values("number", kind="stable")

    @cached_property
    def confirmed(self) -> pd.DataFrame:
        """Those of each cell's best configuration by validation."""
        rows: pd.DataFrame = self.confirmed_points[self.confirmed_points["point"] == 0]
        return rows

    def get_confirm_runs(self, cell: Cell, point: int = 0) -> pd.DataFrame:
        """Return the confirm runs of a cell that count, of a point of its front, by default of the best."""
        rows = self.confirmed_points
        return rows[(rows["cell"] == cell.name) & (rows["point"] == point)]

    def get_search_trials(self, cell: Cell) -> pd.DataFrame:
        """Return a cell's search trials in any state but SUPERSEDED, by number."""
        trials = self.trials
        rows = trials[(trials["phase"] == "search") & (trials["cell"] == cell.name) & (trials["state"] != "SUPERSEDED")]
        return rows.sort_values("number", kind="stable")


def load_study(folder: Path) -> StudyRecords:
    """Read the study in `folder`.

    Raises RecordsError if `folder` is no study, or if a newer version of kdstudy wrote it.
    """
    study = read_study(folder)
    trials, trial_warnings = read_trials(folder)
    epochs, epoch_warnings = read_epochs(folder)
    records = StudyRecords(folder, study, trials, epochs)
    for name in (records.metric, records.test_metric):
        for frame in (trials, epochs):
            if name not in frame:
                frame[name] = np.nan
    warnings = (*trial_warnings, *epoch_warnings, *_warn_of_mixed_configurations(records), *_warn_of_extensions(study))
    return StudyRecords(folder, study, trials, epochs, warnings)


def _warn_of_mixed_configurations(records: StudyRecords) -> list[str]:
    counts = records.confirmed.groupby("cell", sort=False)["config"].nunique()
    return [
        f"the confirm runs of {cell!r} have different configurations: its search continued after some had finished"
        for cell in counts[counts > 1].index
    ]


def _warn_of_extensions(study: Mapping[str, Any]) -> list[str]:
    """Return a warning for each extension of the budget that was made after results were known."""
    provenance = study.get("provenance")
    runs = provenance.get("runs") if isinstance(provenance, Mapping) else None
    runs = [run for run in runs or [] if isinstance(run, Mapping) and isinstance(run.get("budget"), Mapping)]
    found = []
    for before, after in pairwise(runs):
        old, new = before["budget"], after["budget"]
        more = [
            f"{name} {old.get(name)} → {new.get(name)}"
            for name in ("trials", "seeds")
            if old.get(name) != new.get(name)
        ]
        if after.get("results_known") and more:
            found.append(
                f"extended on {str(after.get('started'))[:10]} after its results were known ({', '.join(more)}): "
                "p values assume a number of seeds fixed in advance, and are too small here"
            )
    return found


def _parse_cell(listed: Mapping[str, Any]) -> Cell:
    student, arm = str(listed.get("student", "")), str(listed.get("arm", ""))
    versus, margin = listed.get("versus") or (), listed.get("margin")
    return Cell(
        name=str(listed.get("cell") or f"{student} / {arm}"),
        student=student,
        arm=arm,
        baseline=bool(listed.get("baseline", False)),
        versus=(versus,) if isinstance(versus, str) else tuple(versus),  # before 0.2 it was a single arm
        margin=margin if isinstance(margin, int | float) else None,
        searched=bool(listed.get("searched", False)),
        published=listed.get("published"),
        parameters=tuple(listed.get("parameters") or ()),
        population=listed.get("population"),
        front=listed.get("front") or 1,
    )
