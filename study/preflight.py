"""Checks before a run, and the options that they and the run share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from study.cluster import this_machine
from study.cluster.allocation import Node, Resources, allocate
from study.engine.student_costs import check_costs
from study.errors import InputError, explain_user_errors, format_first_line
from study.records.lock import check_writable
from study.records.provenance import list_gpu_names
from study.records.same_study import check_code, read_same_study
from study.space.domains import resolve_corners
from study.space_file import Space, list_import_paths
from study.storage.dataset import RemoteDataset
from study.study import Study
from study.task import SPLITS, Preparation
from study.trial import Split


@dataclass(frozen=True)
class DriverOptions:
    """Options of a run that do not change the study: where it runs, on what, and what it logs."""

    storage: Path
    """The storage on this machine; its copy, for a storage on S3."""
    address: str | None = None
    """A running Ray cluster; None starts Ray on this machine."""
    gpus_per_worker: float | None = None
    max_concurrent: int | None = None
    retry_failed: bool = False
    allow_code_change: bool = False
    logs: tuple[str, ...] = ()
    """Names among study.trackers.base.TRACKERS."""
    verbose: bool = False
    data: RemoteDataset | None = None
    """The data set, if it lies on S3."""


def check_inputs(study: Study, storage: Path) -> dict[str, Any]:
    """Run the task's checks with losses, recipes and students at the ends of their domains.

    Returns what identifies data and teacher.

    Raises InputError for data, a teacher or a loss that cannot work, and for any exception of a user's code.
    """
    inputs: dict[str, Any] = {}
    splits: tuple[Split, ...] = ("train",) if study.confirm_on == "train" else SPLITS
    for student in study.students:
        cells = [cell for cell in study.cells if cell.student is student]
        corners = [corner for cell in cells for corner in resolve_corners(cell.space)]
        students, losses, recipes = (
            _remove_repeats(getattr(corner, part) for corner in corners) for part in ("student", "loss", "recipe")
        )
        with explain_user_errors():
            inputs |= study.task.check(students, losses, storage, splits, recipes)
    check_costs(study)
    return inputs


def _remove_repeats(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return the values without those that equal an earlier one, in their order."""
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return tuple(distinct)


READ = "import pickle, sys; pickle.load(sys.stdin.buffer)"
"""The code of a process that reads a study, as a worker does, without the space file."""


def check_pickling(study: Study, space: ModuleType) -> None:
    """Write a study as it is sent to workers, and read it in a new process; `space` is the space file's module.

    Raises InputError naming what cannot be written or read.
    """
    import cloudpickle  # type: ignore[import-untyped]  # as Ray has it, whose import takes seconds

    cloudpickle.register_pickle_by_value(space)
    command, environment = [sys.executable, "-P", "-c", READ], make_environment()
    process = subprocess.run(command, input=pickle_study(study), capture_output=True, env=environment, check=False)
    if process.returncode:
        lines = process.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(explain_pickling(lines[-1] if lines else f"exit code {process.returncode}"))


def pickle_study(study: Study, *others: Any) -> bytes:
    """Return a study as it is sent to another process; with `others`, a tuple. Raises InputError if it cannot be."""
    import cloudpickle

    try:
        content: bytes = cloudpickle.dumps((study, *others) if others else study)
    except Exception as error:  # of any kind: it is a user's object that refuses
        raise InputError(explain_pickling(format_first_line(error))) from error
    return content


def make_environment() -> dict[str, str]:
    """Return the environment of a process that finds the same modules as this one, as workers do."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(list_import_paths())}


def explain_pickling(problem: str) -> str:
    return (
        f"the study cannot be sent to workers ({problem}): put functions with a cache, locks and open "
        "files that its classes use into a module next to the space file, and import that"
    )


def check_driver_options(options: DriverOptions, study: Study) -> None:
    """Raise InputError if the storage cannot be written, or one trial needs more than this machine has."""
    check_writable(options.storage)
    if options.address is None:
        find_resources(options, study)


def find_resources(options: DriverOptions, study: Study) -> Resources:
    """Return the resources of a trial and how many trials fit at once; a cluster is asked for its nodes.

    Raises InputError if not one trial fits, or no cluster answers.
    """
    if options.address is None:
        here = Node(this_machine.count_cpus(), len(list_gpu_names()))
        return allocate_resources([here], options, study)
    from study.cluster import connection  # late: it imports Ray

    connection.connect(options.address)
    try:
        return allocate_resources(connection.list_nodes() + connection.list_pending_nodes(), options, study)
    finally:
        connection.disconnect()


def allocate_resources(nodes: list[Node], options: DriverOptions, study: Study) -> Resources:
    """Return the resources of a trial on these nodes. Raises InputError if not one fits."""
    return allocate(nodes, options.gpus_per_worker, options.max_concurrent, study.workers_per_trial)


def read_earlier_run(
    study: Study, space: Space, inputs: Mapping[str, Any], storage: Path, allow_code_change: bool
) -> tuple[dict[str, Any] | None, str]:
    """Return study.json of the study's earlier runs, if any, and the names of files whose code has changed since.

    Raises InputError if it describes another study, or if code changed and that is not allowed.
    """
    folder = storage / study.name
    earlier = read_same_study(folder, study, inputs)
    changed = check_code(folder, earlier, study, space, allow_code_change) if earlier else ""
    return earlier, changed


def format_preparations(preparations: list[Preparation]) -> list[str]:
    """Return a line for each note of the preparations, with the number of steps that share it."""
    steps = Counter(step.note for step in preparations).items()
    return [f"prepare: {note}" + (f", in {count} steps" if count > 1 else "") for note, count in steps]
