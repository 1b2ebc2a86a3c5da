"""Examples from the test split, and what the teacher and each arm's student make of them, side by side.

Data step: the panels that trials keep beside their weights (trainables/sample_panels.py writes them, docs/records.md
says how). Of each arm the run of its first confirm seed is shown. Drawing them is pictures.py's.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.load import StudyRecords

PANELS_FILE = "exhibits.npz"


@dataclass(frozen=True)
class Panel:
    """One picture of one example, as it was written."""

    example: int
    name: str
    kind: str
    """"image", "labels" or "map"."""
    caption: str
    given: bool
    """Whether it belongs to the example, the same for every net."""
    scale: str
    classes: tuple[str, ...]
    values: NDArray[Any]
    """(H, W, 3) uint8, (H, W) uint8, (H, W) numbers."""


@dataclass(frozen=True)
class NetPanels:
    """The panels of one net: the teacher, or an arm's student."""

    net: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Exhibition:
    """What is shown for one student."""

    student: str
    given: tuple[Panel, ...]
    nets: tuple[NetPanels, ...]
    damaged: tuple[str, ...]
    """What could not be read, a line each."""

    @property
    def examples(self) -> list[int]:
        return sorted({panel.example for net in self.nets for panel in net.panels})


def load_exhibitions(records: StudyRecords) -> list[Exhibition]:
    """One a student; none for a study whose task shows nothing, or of which nothing is confirmed yet."""
    found = (_load_exhibition(records, student) for student in records.students)
    return [one for one in found if one.nets or one.damaged]


def _load_exhibition(records: StudyRecords, student: str) -> Exhibition:
    nets, damaged = [], []
    given: tuple[Panel, ...] = ()
    for net, path in _find_files(records, student):
        try:
            panels = read_panels(path)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            damaged.append(f"{net}: {path.parent.name}/{path.name} cannot be read ({type(error).__name__})")
            continue
        given = given or tuple(panel for panel in panels if panel.given)
        nets.append(NetPanels(net, tuple(panel for panel in panels if not panel.given)))
    return Exhibition(student, given, tuple(nets), tuple(damaged))


def _find_files(records: StudyRecords, student: str) -> Iterator[tuple[str, Path]]:
    """The teacher's file, then each arm's, of those that are there."""
    teacher = records.section("teacher")
    folders = [
        (f"teacher: {teacher.get('name')}", records.folder.parent / "teachers" / str(teacher.get("fingerprint")))
    ]
    first = records.confirmed.drop_duplicates("cell").set_index("cell")["trial_id"]
    for cell in records.get_cells(student):
        if cell.name in first.index:
            folders.append((cell.arm, records.folder / "checkpoints" / str(first[cell.name])))
    yield from ((net, folder / PANELS_FILE) for net, folder in folders if (folder / PANELS_FILE).is_file())


def read_panels(path: Path) -> list[Panel]:
    """The panels in a file. Nothing in it is unpickled.

    Raises OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile or zlib.error for a damaged one.
    """
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        return [_parse_panel(one, file[one["key"]]) for one in about]


def _parse_panel(about: dict[str, Any], values: NDArray[Any]) -> Panel:
    kind = str(about["kind"])
    if values.ndim != (3 if kind == "image" else 2) or not values.size:
        raise ValueError(f"{kind} of shape {values.shape}")
    return Panel(
        example=int(about["example"]),
        name=str(about["name"]),
        kind=kind,
        caption=str(about["caption"]),
        given=bool(about["given"]),
        scale=str(about["scale"]),
        classes=tuple(map(str, about["classes"])),
        values=values,
    )
