"""Warm start: the configurations that an earlier study found best, as the first points of this one's searches.

They are read once, when a study begins, and kept in its study.json: what becomes of the earlier study afterwards
changes nothing. Its scores are not taken over; they only rank its configurations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from study.errors import InputError
from study.records.segments import TRIAL_COLUMNS, RecordsError, read_segments, read_study
from study.search.samplers import WarmStart
from study.space.domains import find_domains
from study.space.params import Params, is_point_of, merge_first_points
from study.study import Cell, Study

Rows = Sequence[Mapping[str, Any]]


def warm_points(study: Study) -> dict[str, list[Params]]:
    """By searched cell, the earlier study's best configurations that lie in its search space, the best first.

    They come from the cell of the same name; without one, from the only searched cell that has the same parameters.
    Only trials that completed count, ranked by the earlier study's own metric. A cell for which nothing fits is
    searched from scratch.
    Raises InputError if there is no such study, or nothing of it fits anywhere.
    """
    if study.warm_start is None:
        return {}
    folder = Path(study.warm_start.path).expanduser()
    earlier, rows = _read(folder)
    points = {
        cell.name: _best(cell, _source(cell, earlier["cells"]), earlier, rows, study.warm_start)
        for cell in study.cells
        if cell.arm.is_searched
    }
    found = {name: best for name, best in points.items() if best}
    if not found:
        raise InputError(
            f"warm_start: no completed search trial of {folder} lies in a search space of this study: "
            "name a study of the same arms and domains, or leave warm_start out"
        )
    return found


def _read(folder: Path) -> tuple[Mapping[str, Any], Rows]:
    try:
        earlier = read_study(folder)
        if not {"cells", "metric", "direction"} <= earlier.keys():
            raise RecordsError(f"{folder / 'study.json'} is damaged: it names no cells or no metric")
        schema = pa.schema([*TRIAL_COLUMNS, (earlier["metric"], pa.float64())])
        rows = read_segments(folder / "trials", schema).to_pylist()
    except RecordsError as error:
        raise InputError(f"warm_start: {error}") from None
    return earlier, list({row["trial_id"]: row for row in rows}.values())  # the last written counts


def _source(cell: Cell, cells: Rows) -> str | None:
    """The earlier cell to learn from; None if there is none."""
    searched = [other for other in cells if other["searched"]]
    wanted = {name for name, _ in find_domains(cell.arm.loss)}
    alike = [other["cell"] for other in searched if set(other["parameters"]) == wanted]
    if any(other["cell"] == cell.name for other in searched):
        return cell.name
    return alike[0] if len(alike) == 1 else None


def _best(cell: Cell, source: str | None, earlier: Mapping[str, Any], rows: Rows, settings: WarmStart) -> list[Params]:
    metric, sign = earlier["metric"], -1.0 if earlier["direction"] == "max" else 1.0
    complete = [
        row
        for row in rows
        if (row["cell"], row["phase"], row["state"]) == (source, "search", "COMPLETE") and _usable(row.get(metric))
    ]
    best: list[Params] = []
    for row in sorted(complete, key=lambda row: (sign * row[metric], row["number"])):
        params = json.loads(row["params"])
        if is_point_of(cell.arm.loss, params):
            best = merge_first_points(best, [params])
    return best[: settings.points]


def _usable(score: float | None) -> bool:
    return score is not None and math.isfinite(score)
