"""Checks before a run, and the options that they and the run share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.cluster import this_machine
from study.cluster.allocation import Node, Resources, allocate
from study.records.lock import check_writable
from study.records.provenance import list_gpu_names
from study.records.study_json import check_code, read_same_study
from study.space.domains import resolve_corners
from study.space_file import Space
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
    """Run the task's checks, with every loss at the ends of its domains; return what identifies data and teacher.

    Raises InputError for data, a teacher or a loss that cannot work.
    """
    inputs: dict[str, Any] = {}
    splits: tuple[Split, ...] = ("train",) if study.confirm_on == "train" else SPLITS
    for student in study.students:
        losses = tuple(
            loss for cell in study.cells if cell.student is student for loss in resolve_corners(cell.arm.loss)
        )
        inputs |= study.task.check((student,), losses, storage, splits)
    return inputs


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
    from study.cluster import resources as cluster  # late: it imports Ray

    cluster.connect(options.address)
    try:
        return allocate_resources(cluster.list_nodes() + cluster.list_pending_nodes(), options, study)
    finally:
        cluster.disconnect()


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
    steps: dict[str, int] = {}
    for step in preparations:
        steps[step.note] = steps.get(step.note, 0) + 1
    return [f"prepare: {note}" + (f", in {count} steps" if count > 1 else "") for note, count in steps.items()]
