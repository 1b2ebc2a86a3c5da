"""The studies below a storage path: which there are, how far they are, who runs them. For `python -m study list`.

Only reads, also while a driver writes and merges segments; one study in detail is showing.py's.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from rich.table import Table
from rich.text import Text

from study.errors import InputError
from study.records.segments import EPOCH_COLUMNS, KEYS, TRIAL_COLUMNS, RecordsError, list_segments, read_segments
from study.records.study_json import read_study
from study.storage.locations import display_path
from study.storage.remote import read_driver
from study.trial import TrialState

State = Literal["running", "starting", "finished", "unfinished", "damaged"]

NEEDED = {"name": str, "question": str, "metric": str, "test_metric": str, "metrics": dict, "budget": dict,
          "cells": list, "provenance": dict, "space": dict}  # fmt: skip
"""What `list` and `show` read of study.json, with its types."""


@dataclass(frozen=True)
class Overview:
    """A line of the list."""

    name: str
    folder: Path
    state: State
    by: str = ""
    """Who runs it, host:pid."""
    problem: str = ""
    """Why it cannot be read."""
    cells: int = 0
    done: int = 0
    """Search and confirm trials that have ended, failed ones among them."""
    planned: int = 0
    failed: int = 0
    started: datetime | None = None
    last_row: datetime | None = None
    size_bytes: int = 0


def find_study(study: str, storage: Path) -> Path:
    """The folder of a study, given by its name below `storage` or by a path.

    Raises InputError with the studies there are if it is neither.
    """
    for folder in (storage / study, Path(study)):
        if (folder / "study.json").is_file():
            return folder
    if (storage / study / ".lock").is_file() and find_driver(storage / study):
        raise InputError(f"study {study!r} is just being started: try again in a few seconds")
    there = [folder.name for folder in _folders(storage)] if storage.is_dir() else []
    known = f"there are: {', '.join(there)}" if there else "there is none"
    below = display_path(storage)
    raise InputError(f"no study {study!r} below {below} ({known}): give a name, a path, or another --storage-path")


def find_driver(folder: Path) -> str:
    """Who runs the study in this folder, as host:pid; empty if nobody does."""
    try:
        with (folder / ".lock").open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read().strip() or "unknown"
    except OSError:
        pass  # never run, or not ours to read
    return read_driver(folder)


def derive_state(study: Mapping[str, Any], by: str) -> State:
    return "running" if by else "finished" if study.get("finished") else "unfinished"


def read_shown_study(folder: Path) -> dict[str, Any]:
    """study.json, with everything in it that is shown.

    Raises RecordsError if it is damaged.
    """
    try:
        study = read_study(folder)
    except OSError as error:
        raise RecordsError(f"{folder / 'study.json'} cannot be read ({error.strerror})") from None
    lacking = [name for name, kind in NEEDED.items() if not isinstance(study.get(name), kind)]
    try:
        lacking or count_planned(study)
    except (KeyError, TypeError) as error:
        lacking = [f"a part of its budget or cells ({error})"]
    if lacking:
        raise RecordsError(f"{folder / 'study.json'} is damaged, it lacks {', '.join(lacking)}: restore it from a copy")
    return study


def read_trial_rows(folder: Path, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per trial that still counts. Raises RecordsError naming a segment that cannot be read."""
    columns = [(name, kind) for name, kind in TRIAL_COLUMNS if name != "config"]
    read = _rows(folder / "trials", [*columns, *((name, pa.float64()) for name in study["metrics"])])
    return [row for row in read if row["state"] != TrialState.SUPERSEDED]


def read_epoch_rows(folder: Path) -> list[dict[str, Any]]:
    """A row per trial and epoch, without its metrics. Raises RecordsError naming a segment that cannot be read."""
    return _rows(folder / "epochs", [(name, kind) for name, kind in EPOCH_COLUMNS if name != "schedules"])


def group_by_slot(trials: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    """Search and confirm trials by cell, phase and number; a seed confirmed anew counts once, as its last trial."""
    return {(row["cell"], row["phase"], row["number"]): row for row in trials if row["phase"] != "prepare"}


def count_planned(study: Mapping[str, Any]) -> int:
    """How many search and confirm trials the study has."""
    return sum(count_search_trials(study, cell) + study["budget"]["seeds"] for cell in study["cells"])


def count_search_trials(study: Mapping[str, Any], cell: Mapping[str, Any]) -> int:
    """How many search trials a cell of study.json has; older files give the budget's, of which a grid may use fewer."""
    return int(cell.get("trials", study["budget"]["trials"] if cell["searched"] else 0))


def list_studies(storage: Path) -> list[Overview]:
    """Every study below `storage`, by name; one that cannot be read with its problem.

    Raises InputError if there is no such folder.
    """
    if not storage.is_dir():
        raise InputError(f"no folder {storage}: give the one that holds your studies with --storage-path")
    return [_overview(folder) for folder in _folders(storage)]


def render_list(listed: list[Overview]) -> Table:
    """The list as people read it; problems are told apart from it."""
    drawn = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("study", "state", "cells", "trials", "failed", "started", "last row", "size"):
        drawn.add_column(column, justify="left" if column in ("study", "state") else "right", no_wrap=True)
    for study in listed:
        drawn.add_row(Text(study.name), _state_text(study), *_numbers(study))
    return drawn


def format_time(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else "–"


def format_bytes(size: float) -> str:
    """A size as people say it: "340 kB", "1.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def measure_bytes(folder: Path) -> int:
    """What lies below a folder; files that vanish meanwhile do not count."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                total += (Path(parent) / file).lstat().st_size
            except OSError:
                continue
    return total


def _folders(storage: Path) -> list[Path]:
    """What is a study below `storage`, or becomes one: a driver locks the folder before it writes study.json."""
    below = sorted(path for path in storage.iterdir() if path.is_dir())
    return [path for path in below if (path / "study.json").is_file() or find_driver(path)]


def _rows(folder: Path, columns: list[tuple[str, pa.DataType]]) -> list[dict[str, Any]]:
    """A table's rows on disk, one per key, the last written where there are several."""
    read = read_segments(folder, pa.schema(columns)).to_pylist()
    return list({tuple(row[name] for name in KEYS[folder.name]): row for row in read}.values())


def _overview(folder: Path) -> Overview:
    by = find_driver(folder)
    if not (folder / "study.json").is_file():
        return Overview(folder.name, folder, "starting", by)
    try:
        study = read_shown_study(folder)
        ended = [
            row
            for row in group_by_slot(read_trial_rows(folder, study)).values()
            if TrialState(row["state"]).is_finished
        ]
        return Overview(
            name=folder.name,
            folder=folder,
            state=derive_state(study, by),
            by=by,
            cells=len(study["cells"]),
            done=len(ended),
            count_planned=count_planned(study),
            failed=sum(row["state"] == TrialState.FAILED for row in ended),
            started=datetime.fromisoformat(study["provenance"]["created"]),
            last_row=_last_written(folder),
            measure_bytes=measure_bytes(folder),
        )
    except RecordsError as error:
        problem = str(error)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{folder} is damaged: {type(error).__name__}: {error}"
    return Overview(folder.name, folder, "damaged", by, problem, measure_bytes=measure_bytes(folder))


def _last_written(folder: Path) -> datetime | None:
    """When the newest segment was written: a trial's row may be as old as its start."""
    times = []
    for name in KEYS:
        for path in list_segments(folder / name)[-1:]:
            try:
                times.append(path.stat().st_mtime)
            except FileNotFoundError:
                continue
    return datetime.fromtimestamp(max(times), UTC) if times else None


def _state_text(study: Overview) -> Text:
    styles = {"running": "green", "starting": "green", "unfinished": "yellow", "damaged": "red"}
    said = f"{study.state} by {study.by}" if study.by else study.state
    return Text(said, style=styles.get(study.state, ""))


def _numbers(study: Overview) -> list[str]:
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
