"""The command `python -m reports.export best --study runs/x`: export a confirmed student with a model card.

The student is chosen without test data: by validation where all cells have it, else the user names the cell. Within a
cell no seed is preferred, and number 0 is the default. trainables/export/onnx.py writes the net. It is imported late,
since no other report needs torch.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pandas as pd

from reports.compare import find_study
from reports.format.table import make_file_stems
from reports.format.values import shorten
from reports.load import Cell, StudyRecords, load_study, parse_json_object
from reports.text.model_card import make_model_card
from study.atomic import atomic_write
from study.code_version import PACKAGES, read_code_version
from study.errors import InputError
from study.records.parquet_table import RecordsError
from study.records.paths import EXPORT, EXPORT_JSON, StudyPaths
from study.space_file import import_space_file
from study.storage.dataset import resolve_data_dir
from study.storage.locations import mirror_of
from study.storage.remote import fetch_checkpoint, locate_study

if TYPE_CHECKING:
    from trainables.export.precisions import Precision

RECORDED = "recorded"
"""In place of a space file: its text in study.json."""


@dataclass(frozen=True)
class Choice:
    """A cell, and the reason for choosing it."""

    cell: Cell
    because: str


def choose_cell(records: StudyRecords, name: str | None = None) -> Choice:
    """Return the cell called `name`; without a name, the confirmed cell that is best on validation.

    Raises InputError if there is no such cell, if it is not confirmed, or if not all cells have a validation score.
    """
    if name is not None:
        cell = next((cell for cell in records.cells if cell.name == name), None)
        if cell is None:
            raise InputError(f"no cell {shorten(name, 80)!r} in this study: {_list_cells(records.cells)}")
        _check_confirmed(records, cell)
        return Choice(cell, "named by --cell")
    confirmed = tuple(
        cell for cell in records.cells if len(_get_confirm_runs(records, cell)) >= _count_planned_seeds(records)
    )
    if not confirmed:
        raise InputError(f"no cell of {records.name!r} is confirmed yet: resume the study")
    if len(confirmed) == 1:
        return Choice(confirmed[0], "the only confirmed cell")
    return _choose_on_validation(records, confirmed)


def get_confirm_run(records: StudyRecords, cell: Cell, number: int, point: int = 0) -> Any:
    """Return a cell's confirm run by the number of its seed and the point of its front.

    Raises InputError if there is none.
    """
    runs = records.confirmed_points[records.confirmed_points["cell"] == cell.name]
    points = sorted(set(runs["point"]))
    if point not in points:
        raise InputError(f"{cell.name!r} has no point {point}: its points are {', '.join(map(str, points))}")
    runs = runs[runs["point"] == point]
    found = runs[runs["number"] == number]
    if found.empty:
        numbers = ", ".join(str(n) for n in runs["number"])
        raise InputError(f"no confirm run of seed number {number} in {cell.name!r}: the numbers are {numbers}")
    return found.iloc[0]


def export_cell(
    records: StudyRecords,
    choice: Choice,
    number: int,
    data_dir: str | None = None,
    out: Path | None = None,
    space: str | None = None,
    precisions: Sequence[Precision] = (),
    point: int = 0,
) -> Path:
    """Write a cell's student, MODEL_CARD.md and export.json, and return their folder.

    `point` is that of the cell's front, 0 the best by validation. `space` is the study's space file, or RECORDED for
    the text that the study recorded of it: it is run.
    Raises InputError if data, code or weights differ from the study's.
    """
    from trainables.export.onnx import export_student
    from trainables.export.restore import TrainedTrial

    run = get_confirm_run(records, choice.cell, number, point)
    config = parse_json_object(run["config"])
    if lacking := [name for name in ("task", "student", "inputs") if not isinstance(config.get(name), dict)]:
        raise InputError(f"the record of trial {run['trial_id']} lacks {', '.join(lacking)}: its net cannot be rebuilt")
    own = Path(EXPORT) / records.name if mirror_of(records.folder.parent).uri else StudyPaths(records.folder).export
    which = f"-point{point}-seed{number}" if point else f"-seed{number}"
    stems = make_file_stems([f"{cell.name}{which}" for cell in records.cells])
    folder = out or own / stems[f"{choice.cell.name}{which}"]
    about = {"study": records.name, "cell": choice.cell.name, "trial": str(run["trial_id"]), "seed": str(run["seed"])}
    checkpoint = fetch_checkpoint(records.folder, str(run["trial_id"]))
    code = None if space is None else _import_space(records, space, str(run["code"]))
    trained = TrainedTrial(config, checkpoint, {records.test_metric: float(run[records.test_metric])}, code)
    data = resolve_data_dir(data_dir or _find_recorded_data_dir(records))
    written = export_student(trained, data, folder, about, precisions)
    text = make_model_card(records, choice.cell, choice.because, run, config, written)
    (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    measures = {precision: asdict(graph) for precision, graph in written.graphs.items()}
    with atomic_write(folder / EXPORT_JSON) as temporary:
        temporary.write_text(json.dumps(about | {"graphs": measures}, indent=1, ensure_ascii=False), encoding="utf-8")
    return folder


def _import_space(records: StudyRecords, given: str, code: str) -> ModuleType:
    """Import the space file of a study, which defines its net, its data or its task.

    Raises InputError if it, or a module that it imports, differs from the code that trained the student.
    """
    recorded = records.section("space")
    path = Path(str(recorded.get("path") or "space.py")) if given == RECORDED else Path(given)
    folder = str(path.resolve().parent)  # of the modules that it imports
    with tempfile.TemporaryDirectory() as temporary:
        if given == RECORDED:
            path = Path(temporary) / path.name
            path.write_text(str(recorded.get("source") or ""), encoding="utf-8")
            sys.path.append(folder)
        elif not path.is_file():
            raise InputError(f"there is no space file {path}; --space {RECORDED} runs the text in study.json")
        files = records.section("code").get(code) or {}
        changes = [name for name in read_code_version(path).list_changes(files) if not name.startswith(PACKAGES)]
        if changes:
            raise InputError(
                f"{', '.join(changes)} of {path} differ from the code that trained the student: give the files as they "
                f"were, or --space {RECORDED} for the space file's text in study.json"
            )
        return import_space_file(path)


def _choose_on_validation(records: StudyRecords, cells: tuple[Cell, ...]) -> Choice:
    """Choose by the confirm runs if they held validation out, else by the searches.

    Where some cells have no search, as baselines without settings have, the others are compared, and this is said.
    """
    name = records.get_metric(records.metric).words
    ways = (
        (f"the best mean {name} of confirm runs", [_mean_confirm_score(records, cell) for cell in cells]),
        (f"the best {name} of a search", [_best_search_score(records, cell) for cell in cells]),
    )
    because, scores = min(ways, key=lambda way: way[1].count(None))
    known = [score for score in scores if score is not None]
    if not known:
        raise InputError(
            f"no confirmed cell has a {name}, and test scores must not choose: name a cell with --cell; "
            f"{_list_cells(cells)}"
        )
    best = max(known) if records.get_direction(records.metric) == "max" else min(known)
    lacking = [cell.name for cell, score in zip(cells, scores, strict=True) if score is None]
    without = f"; without one are {', '.join(lacking)}" if lacking else ""
    return Choice(cells[scores.index(best)], f"{because} among {len(known)} cells{without}")


def _mean_confirm_score(records: StudyRecords, cell: Cell) -> float | None:
    measured = _get_confirm_runs(records, cell)[records.metric]
    return float(measured.mean()) if np.isfinite(measured.to_numpy(dtype=float)).all() else None


def _best_search_score(records: StudyRecords, cell: Cell) -> float | None:
    """Return the score of the best complete trial, which is the one that was confirmed."""
    trials = records.get_search_trials(cell)
    scores = trials.loc[trials["state"] == "COMPLETE", records.metric].dropna()
    if scores.empty:
        return None
    return float(scores.max() if records.get_direction(records.metric) == "max" else scores.min())


def _check_confirmed(records: StudyRecords, cell: Cell) -> None:
    done, planned = len(_get_confirm_runs(records, cell)), _count_planned_seeds(records)
    if done < planned:
        raise InputError(
            f"{cell.name!r} is not confirmed: {done} of {planned} seeds; resume the study, or name another cell"
        )


def _get_confirm_runs(records: StudyRecords, cell: Cell) -> pd.DataFrame:
    runs: pd.DataFrame = records.confirmed[records.confirmed["cell"] == cell.name]
    return runs


def _count_planned_seeds(records: StudyRecords) -> int:
    return max(1, records.get_budget("seeds"))


def _list_cells(cells: tuple[Cell, ...]) -> str:
    return "the cells are " + ", ".join(repr(shorten(cell.name, 80)) for cell in cells)


def _find_recorded_data_dir(records: StudyRecords) -> str | None:
    """Return the --data-dir of the study's last command, relative paths resolved against that command's folder.

    Without one it is the folder of the data that the study recorded, if any.
    """
    provenance = records.section("provenance")
    try:
        words = shlex.split(str(provenance.get("command") or ""))
    except ValueError:
        words = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        given = following if word == "--data-dir" else word.removeprefix("--data-dir=")
        if given not in (word, ""):
            return given if "://" in given else str(Path(str(provenance.get("cwd") or ".")) / Path(given).expanduser())
    return records.section("inputs", "data").get("folder")


@click.group()
def main() -> None:
    """Export a trained student of a study."""


@main.command(epilog='Example: python -m reports.export best --study lp_cifar --cell "resnet8w4 / KD"')
@click.option("--study", required=True, help="A name below the storage path, a path, or s3://BUCKET/PREFIX/NAME.")
@click.option("--cell", help='"student / arm"; without it, the confirmed cell that is best on validation.')
@click.option("--seed-number", type=click.IntRange(min=0), default=0, show_default=True,
              help="Number of the confirm run within the cell; none is preferred.")  # fmt: skip
@click.option("--point", type=click.IntRange(min=0), default=0, show_default=True,
              help="Number of the point of the cell's front, as in the report's table of fronts; 0 is the best by "
              "validation.")  # fmt: skip
@click.option("--data-dir", type=click.Path(), help="The data, if it has moved since the study: a folder or s3://….")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="The folder to write to; default: the study's export/, or export/STUDY for one on S3.")  # fmt: skip
@click.option("--space", help="The study's space file, if it defines the net, the data or the task; its code is run. "
              f'"{RECORDED}" runs the text that the study recorded of it.')  # fmt: skip
@click.option("--precision", "precisions", type=click.Choice(["fp16", "int8"]), multiple=True,
              help="Also write the graph in this precision, and measure all graphs on test; repeatable.")  # fmt: skip
@click.option("--storage-path", type=click.Path(), default="runs", show_default=True,
              help="The storage of studies given by name: a folder, or s3://BUCKET/PREFIX.")  # fmt: skip
def best(study: str, cell: str | None, seed_number: int, point: int, data_dir: str | None, out: Path | None,
         space: str | None, precisions: tuple[Precision, ...], storage_path: str) -> None:  # fmt: skip
    """Write a confirmed student as safetensors and ONNX, with a model card.

    Test scores select neither the cell nor the seed.
    """
    try:
        records = load_study(find_study(*locate_study(study, storage_path)))
        choice = choose_cell(records, cell)
        print(f"{choice.cell.name}: {choice.because}")
        print(export_cell(records, choice, seed_number, data_dir, out, space, precisions, point))
        if precisions and out is None:
            print(f"the report shows all graphs once it is built again: python -m reports.build {records.folder}")
    except (InputError, RecordsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
