"""python -m study list: the studies below a storage path, their progress and who runs them.

Only reads, also while a driver writes; study/cli/status.py reads one study in detail.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from study.cli.output import format_bytes
from study.errors import InputError
from study.records.columns import KEYS
from study.records.parquet_table import RecordsError, list_parquet_files
from study.records.paths import StudyPaths
from study.records.progress import (
    count_failed,
    count_planned_trials,
    group_by_slot,
    read_shown_study,
    read_trial_rows,
)
from study.storage.remote import find_driver, list_study_folders
from study.trial import TrialState

State = Literal["running", "starting", "finished", "unfinished", "damaged"]

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


def derive_state(study: Mapping[str, Any], driver: str) -> State:
    return "running" if driver else "finished" if study.get("finished") else "unfinished"


# -- the list ----------------------------------------------------------------------------------------------------------


def list_studies(storage: Path) -> list[Overview]:
    """Return every study below `storage`, by name; one that cannot be read with its problem.

    Raises InputError if there is no such folder.
    """
    if not storage.is_dir():
        raise InputError(f"no folder {storage}: run a study first, or give the folder that holds your studies")
    return [_read_overview(folder) for folder in list_study_folders(storage)]


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
