"""Warm start: the best configurations of an earlier study, as the first points of this study's searches.

They are read once, when a study starts, and kept in its study.json, so that later changes to the earlier study have no
effect. Its scores only rank its configurations; none is taken over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from study.arm import Cell
from study.errors import InputError
from study.records.columns import TRIAL_COLUMNS
from study.records.parquet_table import RecordsError
from study.records.paths import StudyPaths
from study.records.progress import read_last_trials
from study.records.rows import is_finite
from study.records.study_json import read_study
from study.search.samplers import WarmStart
from study.space.domains import find_domains
from study.space.params import Params, is_point_of, merge_first_points
from study.study import Study

Rows = Sequence[Mapping[str, Any]]


def read_warm_start(study: Study) -> dict[str, list[Params]]:
    """Return, by searched cell, the earlier study's best configurations within the search space, the best first.

    They come from the cell of the same name or else from the only searched cell with the same parameters. Only
    completed trials count, ranked by the earlier study's selection metric. A cell without any starts from scratch.
    Raises InputError if there is no such study, or none of its configurations fits any cell.
    """
    if study.warm_start is None:
        return {}
    folder = Path(study.warm_start.path).expanduser()
    earlier, rows = _read_earlier(folder)
    points = {
        cell.name: _select_best(cell, _find_source_cell(cell, earlier["cells"]), earlier, rows, study.warm_start)
        for cell in study.cells
        if cell.is_searched
    }
    if not any(points.values()):
        raise InputError(
            f"warm_start: no completed search trial of {folder} lies in a search space of this study: "
            "name a study of the same arms and domains, or leave warm_start out"
        )
    return {name: best for name, best in points.items() if best}


def _read_earlier(folder: Path) -> tuple[Mapping[str, Any], Rows]:
    """Return study.json and the last row of each trial."""
    try:
        earlier = read_study(folder)
        if not {"cells", "metric", "direction"} <= earlier.keys():
            path = StudyPaths(folder).study_json
            raise RecordsError(f"{path} is damaged, it names no cells or no metric: restore it from a copy")
        return earlier, read_last_trials(folder, pa.schema([*TRIAL_COLUMNS, (earlier["metric"], pa.float64())]))
    except RecordsError as error:
        raise InputError(f"warm_start: {error}") from None


def _find_source_cell(cell: Cell, cells: Rows) -> str | None:
    """Return the name of the earlier cell whose configurations fit; None if there is none."""
    searched = [other for other in cells if other["searched"]]
    if any(other["cell"] == cell.name for other in searched):
        return cell.name
    parameters = {name for name, _ in find_domains(cell.space)}
    similar = [other["cell"] for other in searched if set(other["parameters"]) == parameters]
    return similar[0] if len(similar) == 1 else None


def _select_best(
    cell: Cell, source: str | None, earlier: Mapping[str, Any], rows: Rows, settings: WarmStart
) -> list[Params]:
    metric, sign = earlier["metric"], -1.0 if earlier["direction"] == "max" else 1.0
    complete = [
        row
        for row in rows
        if (row["cell"], row["phase"], row["state"]) == (source, "search", "COMPLETE")
        and is_finite(row.get(metric))
        and row["member"] is None  # the score of a chain is not one of its last settings
    ]
    best: list[Params] = []
    for row in sorted(complete, key=lambda row: (sign * row[metric], row["number"])):
        params = json.loads(row["params"])
        if is_point_of(cell.space, params):
            best = merge_first_points(best, [params])
    return best[: settings.points]
