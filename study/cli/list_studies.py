"""python -m study list: the studies below a storage path, their progress and who runs them.

Only reads, also while a driver writes; study/cli/status.py reads one study in detail.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from rich.table import Table
from rich.text import Text

from study.errors import InputError
from study.records.columns import EPOCH_COLUMNS, KEYS, TRIAL_COLUMNS
from study.records.lock import read_lock_holder
from study.records.parquet_table import RecordsError, list_parquet_files, read_parquet_table
from study.records.paths import StudyPaths
from study.records.study_json import read_study
from study.storage.locations import display_path
from study.storage.remote import read_driver
from study.trial import TrialState

State = Literal["running", "starting", "finished", "unfinished", "damaged"]

REQUIRED_KEYS = {"name": str, "question": str, "metric": str, "test_metric": str, "metrics": dict, "budget": dict,
                 "cells": list, "provenance": dict, "space": dict}  # fmt: skip
"""Keys of study.json that `list` and `show` read, with their types."""

UNSHOWN_COLUMNS = {"student", "arm", "seed", "config", "seconds", "device", "cpus", "code", "member", "start_epoch",
                   "parent"}  # fmt: skip
"""Columns of trials that neither `list` nor `show` reads: fewer are faster."""

Slot = tuple[str, str, int, int]
"""Cell, phase, number and point of a trial."""

STATE_STYLES = {"running": "green", "starting": "green", "unfinished": "yellow", "damaged": "red"}


@dataclass(frozen=True)
class Overview:
    """One study in the list."""

    name: str
    folder: Path
    state: State
    by: str = ""
    """Its driver, as host:pid."""
    problem: str = ""
    """Why it cannot be read."""
    cells: int = 0
    done: int = 0
    """Number of search and confirm trials that have ended, in whatever state."""
    planned: int = 0
    failed: int = 0
    started: datetime | None = None
    last_row: datetime | None = None
    size_bytes: int = 0


# -- one study ---------------------------------------------------------------------------------------------------------


def find_study(study: str, storage: Path) -> Path:
    """Return the folder of a study, given by its name below `storage` or by a path.

    Raises InputError with the existing studies if it is neither.
    """
    for folder in (storage / study, Path(study)):
        if StudyPaths(folder).study_json.is_file():
            return folder
    if StudyPaths(storage / study).lock.is_file() and find_driver(storage / study):
        raise InputError(f"study {study!r} is just being started: try again in a few seconds")
    names = [folder.name for folder in _list_folders(storage)] if storage.is_dir() else []
    known = f"there are: {', '.join(names)}" if names else "there is none"
    below = display_path(storage)
    raise InputError(f"no study {study!r} below {below} ({known}): give a name, a path, or another --storage-path")


def find_driver(folder: Path) -> str:
    """Return the process that runs the study in this folder, as host:pid; empty if none does."""
    return read_lock_holder(folder) or read_driver(folder)


def derive_state(study: Mapping[str, Any], driver: str) -> State:
    return "running" if driver else "finished" if study.get("finished") else "unfinished"


def read_shown_study(folder: Path) -> dict[str, Any]:
    """Return study.json. Raises RecordsError if it lacks anything that `list` and `show` read."""
    path = StudyPaths(folder).study_json
    try:
        study = read_study(folder)
    except OSError as error:
        raise RecordsError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    missing = [name for name, kind in REQUIRED_KEYS.items() if not isinstance(study.get(name), kind)]
    try:
        missing or count_planned_trials(study)
    except (KeyError, TypeError) as error:
        missing = [f"a part of its budget or cells ({error})"]
    if missing:
        raise RecordsError(f"{path} is damaged, it lacks {', '.join(missing)}: restore it from a copy")
    return study


def read_trial_rows(folder: Path, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per trial that is not superseded, with the columns that `list` and `show` need.

    Raises RecordsError naming a file that cannot be read.
    """
    columns = [(name, kind) for name, kind in TRIAL_COLUMNS if name not in UNSHOWN_COLUMNS]
    names = (study["metric"], study["test_metric"], *(study.get("objectives") or ()))
    scores = dict.fromkeys(names, pa.float64())
    schema = pa.schema([*columns, *scores.items()])
    rows = {row["trial_id"]: row for row in read_parquet_table(StudyPaths(folder).trials, schema).to_pylist()}
    return [row for row in rows.values() if row["state"] != TrialState.SUPERSEDED]


def read_epoch_totals(folder: Path) -> tuple[list[dict[str, Any]], list[datetime]]:
    """Return `epochs`, `last_epoch` and `seconds` of each trial, and the times of recording, to the second.

    Computed by Arrow: hundreds of thousands of epochs are too many for rows of Python.
    Raises RecordsError naming a file that cannot be read.
    """
    names = ("trial_id", "epoch", "seconds", "recorded")
    rows = read_parquet_table(
        StudyPaths(folder).epochs, pa.schema([(name, dict(EPOCH_COLUMNS)[name]) for name in names])
    )
    # with threads, "last" would have no order, and sums would differ in their last digit from call to call
    epochs = rows.group_by(["trial_id", "epoch"], use_threads=False)
    last = epochs.aggregate([("seconds", "last"), ("recorded", "last")])
    totals = last.group_by("trial_id", use_threads=False).aggregate(
        [("epoch", "count"), ("epoch", "max"), ("seconds_last", "sum")]
    )
    times = last["recorded_last"].cast(pa.timestamp("s", tz="UTC"), safe=False).unique()
    return totals.rename_columns(["trial_id", "epochs", "last_epoch", "seconds"]).to_pylist(), times.to_pylist()


def group_by_slot(trials: Iterable[Mapping[str, Any]]) -> dict[Slot, Mapping[str, Any]]:
    """Return search and confirm trials by cell, phase, number and point; one repeated counts as its last trial."""
    counted = (row for row in trials if row["phase"] != "prepare")
    return {(row["cell"], row["phase"], row["number"], row.get("point") or 0): row for row in counted}


def count_failed(trials: Iterable[Mapping[str, Any]]) -> int:
    """Return how many search and confirm trials failed."""
    return sum(row["state"] == TrialState.FAILED for row in group_by_slot(trials).values())


def count_planned_trials(study: Mapping[str, Any], trials: Sequence[Mapping[str, Any]] = ()) -> int:
    """Return the number of search and confirm trials of a study, given those that have started."""
    confirms: dict[str, list[Mapping[str, Any]]] = {cell["cell"]: [] for cell in study["cells"]}
    for row in trials:
        if row["phase"] == "confirm" and row["cell"] in confirms:
            confirms[row["cell"]].append(row)
    return sum(
        count_cell_searches(study, cell) + count_cell_confirms(study, cell, confirms[cell["cell"]])
        for cell in study["cells"]
    )


def count_cell_confirms(study: Mapping[str, Any], cell: Mapping[str, Any], started: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of confirm trials of a cell, all seeds of each point, given those that have started.

    How many points a front has is known once a second seed starts, after the first of every point; until then the
    largest possible number counts.
    """
    is_known = study.get("finished") or any(row["number"] for row in started)
    points = 1 + max((row.get("point") or 0 for row in started), default=0) if is_known else cell.get("points", 1)
    return int(points * study["budget"]["seeds"])


def count_cell_searches(study: Mapping[str, Any], cell: Mapping[str, Any]) -> int:
    """Return the number of search trials of a cell; older files give the budget's, of which a grid may use fewer."""
    return int(cell.get("trials", study["budget"]["trials"] if cell["searched"] else 0))


# -- the list ----------------------------------------------------------------------------------------------------------


def list_studies(storage: Path) -> list[Overview]:
    """Return every study below `storage`, by name; one that cannot be read with its problem.

    Raises InputError if there is no such folder.
    """
    if not storage.is_dir():
        raise InputError(f"no folder {storage}: run a study first, or give the folder that holds your studies")
    return [_read_overview(folder) for folder in _list_folders(storage)]


def _list_folders(storage: Path) -> list[Path]:
    """Return the studies below `storage`; a starting one has a lock before it has a study.json."""
    folders = sorted(path for path in storage.iterdir() if path.is_dir())
    return [folder for folder in folders if StudyPaths(folder).study_json.is_file() or find_driver(folder)]


def _read_overview(folder: Path) -> Overview:
    driver = find_driver(folder)
    if not StudyPaths(folder).study_json.is_file():
        return Overview(folder.name, folder, "starting", driver)
    try:
        study = read_shown_study(folder)
        rows = read_trial_rows(folder, study)
        ended = [row for row in group_by_slot(rows).values() if TrialState(row["state"]).is_finished]
        return Overview(
            name=folder.name,
            folder=folder,
            state=derive_state(study, driver),
            by=driver,
            cells=len(study["cells"]),
            done=len(ended),
            planned=count_planned_trials(study, rows),
            failed=count_failed(rows),
            started=datetime.fromisoformat(study["provenance"]["created"]),
            last_row=_find_last_write(folder),
            size_bytes=measure_size(folder),
        )
    except RecordsError as error:
        problem = str(error)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{folder} is damaged: {type(error).__name__}: {error}"
    return Overview(folder.name, folder, "damaged", driver, problem, size_bytes=measure_size(folder))


def _find_last_write(folder: Path) -> datetime | None:
    """Return the time of the newest file of a table; the times within a trial's row may be as old as its start."""
    times = []
    for name in KEYS:
        for path in list_parquet_files(folder / name):
            try:
                times.append(path.stat().st_mtime)
            except FileNotFoundError:
                continue
    return datetime.fromtimestamp(max(times), UTC) if times else None


def measure_size(folder: Path) -> int:
    """Return the bytes of all files below a folder; files deleted meanwhile do not count."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                total += (Path(parent) / file).lstat().st_size
            except OSError:
                continue
    return total


def render_list(studies: list[Overview]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("study", "state", "cells", "trials", "failed", "started", "last row", "size"):
        table.add_column(column, justify="left" if column in ("study", "state") else "right", no_wrap=True)
    for study in studies:
        state = f"{study.state} by {study.by}" if study.by else study.state
        table.add_row(Text(study.name), Text(state, style=STATE_STYLES.get(study.state, "")), *_format_numbers(study))
    return table


def _format_numbers(study: Overview) -> list[str]:
    if study.state in ("starting", "damaged"):
        return ["–"] * 5 + [format_bytes(study.size_bytes)]
    return [
        str(study.cells),
        f"{study.done}/{study.planned}",
        str(study.failed or "–"),
        format_time(study.started),
        format_time(study.last_row),
        format_bytes(study.size_bytes),
    ]


def format_time(moment: datetime | None) -> str:
    """Return a time in the local time zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else "–"


def format_bytes(size: float) -> str:
    """Return a size with its unit, such as "340 kB" or "1.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
