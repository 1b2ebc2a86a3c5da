"""Panels of test samples: inputs, and the outputs of the teacher and of each arm's student.

trainables/sample_panels.py writes them next to a trial's weights; docs/records.md describes the file. The report shows
the run of each arm's first confirm seed. images.py makes pictures of them.
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
from study.records.paths import StudyPaths

PANELS_FILE = "exhibits.npz"


@dataclass(frozen=True)
class Panel:
    """One panel of one example, as recorded."""

    example: int
    name: str
    kind: str
    """"image", "labels" or "map"."""
    caption: str
    given: bool
    """True if the panel belongs to the sample and is the same for every net, as inputs and labels are."""
    scale: str
    """Name of the quantity in a map; maps of one scale share their colours."""
    classes: tuple[str, ...]
    values: NDArray[Any]
    """An image is (H, W, 3) uint8, labels are (H, W) uint8, a map is (H, W) of any number type."""


@dataclass(frozen=True)
class NetPanels:
    """The panels of the teacher or of one arm's student."""

    net: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Exhibition:
    """The panels of one student, under all arms."""

    student: str
    given: tuple[Panel, ...]
    nets: tuple[NetPanels, ...]
    damaged: tuple[str, ...]
    """One line per file that could not be read."""

    @property
    def examples(self) -> list[int]:
        return sorted({panel.example for net in self.nets for panel in net.panels})


def load_exhibitions(records: StudyRecords) -> list[Exhibition]:
    """Return one exhibition per student; empty if the task writes no panels or no run is confirmed yet."""
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
    """Yield net and path of the files that exist, the teacher's first."""
    teacher = records.section("teacher")
    folders = [
        (f"teacher: {teacher.get('name')}", records.folder.parent / "teachers" / str(teacher.get("fingerprint")))
    ]
    first = records.confirmed.drop_duplicates("cell").set_index("cell")["trial_id"]
    for cell in records.get_cells(student):
        if cell.name in first.index:
            folders.append((cell.arm, StudyPaths(records.folder).checkpoint(str(first[cell.name]))))
    yield from ((net, folder / PANELS_FILE) for net, folder in folders if (folder / PANELS_FILE).is_file())


def read_panels(path: Path) -> list[Panel]:
    """Read the panels of a file, without unpickling.

    Raises OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile or zlib.error if it is damaged.
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
