"""The command `python -m reports.export best --study runs/x`: export a confirmed student with a model card.

The student is chosen without test data (analysis/export_choice.py). trainables/export/onnx.py writes the net; it is
imported late, since no other report needs torch.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from reports.analysis.export_choice import Choice, choose_cell, get_confirm_run
from reports.format.table import make_file_stems
from reports.frames import parse_json_object
from reports.load import StudyRecords, load_study
from reports.text.model_card import make_model_card
from study.atomic import atomic_write
from study.code_version import PACKAGES, read_code_version
from study.errors import InputError
from study.records.parquet_table import RecordsError
from study.records.paths import EXPORT, EXPORT_JSON, StudyPaths
from study.space_file import import_space_file
from study.storage.dataset import resolve_data_dir
from study.storage.locations import mirror_of
from study.storage.remote import fetch_checkpoint, find_study

if TYPE_CHECKING:
    from trainables.export.precisions import Precision

RECORDED = "recorded"
"""In place of a space file: its text in study.json."""


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
        records = load_study(find_study(study, storage_path))
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
