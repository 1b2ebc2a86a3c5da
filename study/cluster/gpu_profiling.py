"""Measure a study's trials before it starts, alone and concurrently on one GPU: for --gpus-per-worker auto.

Each profiler runs in a process of its own, as Ray will run trials, on any node of the cluster with a free GPU. A task
profiles itself (trainables/tasks/profiling.py); study/cluster/gpu_packing.py draws the conclusion.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from study.cluster import connection  # isort: skip  (first: it sets what Ray reads when it is imported)
import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from study.cluster.allocation import Node
from study.cluster.gpu_packing import MAX_TRIALS_PER_GPU, MemoryNeed, PackingResult, find_packing, packing_lines
from study.errors import InputError
from study.records.provenance import list_gpu_names
from study.space.configuration import Configuration
from study.space.domains import resolve_corners
from study.storage import worker_sync
from study.storage.dataset import RemoteDataset
from study.study import Study
from study.task import TrialProfile
from study.trial import Trial, TrialContext, format_cell_name

PROBE_BATCHES = 4
"""Enough to see a trial's memory and roughly how long a batch takes."""
TIMED_SECONDS = 5.0
"""Approximate duration of the timed training of each student."""
GPU_WAIT_SECONDS = 120.0
"""Time to wait for a free GPU."""
TEACHER_STEP = "teacher"
"""Name by which tasks know the preparation that trains a teacher."""
AUTO = "--gpus-per-worker auto"
NO_GPU = f"{AUTO}: there is no GPU here, trials run on CPUs: 0"

Notify = Callable[[str], None]
"""Shows a line to the user."""


@dataclass(frozen=True)
class Workload:
    """Training to measure: a student under one configuration of an arm; without a student, the teacher's training."""

    student: str
    arm: str
    configuration: Configuration | None
    batches: int = PROBE_BATCHES


class Profiler:
    """A process that measures one workload after another, as a reused worker trains one trial after another."""

    def __init__(self, study: Study, device: str, data: RemoteDataset | None = None):
        self._study, self._device, self._data = study, device, data

    def profile(self, workloads: Sequence[Workload]) -> list[TrialProfile | str]:
        """Return the profile of each workload, or why it failed. Raises MemoryError if one does not fit."""
        if self._data is not None:
            worker_sync.retry_with_backoff(self._data.fetch)
        return [self._profile_one(workload) for workload in workloads]

    def _profile_one(self, workload: Workload) -> TrialProfile | str:
        with tempfile.TemporaryDirectory(prefix="kdstudy-profile-") as scratch:
            try:
                return self._study.task.profile(self._trial_context(workload, Path(scratch)), workload.batches)
            except MemoryError:
                raise
            except Exception as error:
                cell = format_cell_name(workload.student, workload.arm)
                return f"{cell}: {type(error).__name__}: {_first_line(error)}"

    def _trial_context(self, workload: Workload, scratch: Path) -> TrialContext:
        study, configuration = self._study, workload.configuration
        return TrialContext(
            trial=Trial("search", workload.student, workload.arm, 0, study.derive_trial_seed("search", 0), 2, {}, {}),
            task=study.task,
            student=configuration and configuration.student,
            loss=configuration and configuration.loss,
            recipe=configuration and configuration.recipe,
            checkpoint=scratch,
            storage=scratch,
            device=self._device,
            recorded_epochs=0,
            train_on=study.confirm_on,
            validate=True,
            test=False,
            gpus=float(self._device != "cpu"),
        )


def measure_gpu_share(
    study: Study, storage: Path, space: Any, address: str | None, notify: Notify, data: RemoteDataset | None = None
) -> float:
    """Measure and return the best share of a GPU for each trial; 0 if there is no GPU.

    `space` is the module of the space file; `notify` gets the arithmetic; `data` is a data set on S3.
    Raises InputError if no trial can be measured, or not even one fits.
    """
    if study.workers_per_trial > 1:
        raise InputError(f"{AUTO} measures trials of one worker: give a number, or --workers-per-trial 1")
    if address is None and not list_gpu_names():
        notify(NO_GPU)
        return 0.0
    connection.connect(address)
    try:
        nodes = [node for node in connection.list_nodes() if node.gpus]
        if not nodes:
            if any(node.gpus for node in connection.list_pending_nodes()):
                raise InputError(f"{AUTO}: no machine with a GPU is up yet: wait for one, or give a number")
            notify(NO_GPU)
            return 0.0
        if len(types := connection.list_gpu_types()) > 1:
            notify(f"the GPUs differ ({', '.join(types)}): only one is measured, a smaller one may need a number")
        trains_teacher = any(step.name == TEACHER_STEP for step in study.task.list_preparations(storage, study.plan))
        fewest_cpus = min(nodes, key=lambda node: node.cpus // node.gpus)
        result = measure_packing(study, trains_teacher, space, "cuda", fewest_cpus, notify, data)
    finally:
        connection.disconnect()
    for line in packing_lines(result):
        notify(line)
    return result.share


def measure_packing(
    study: Study,
    trains_teacher: bool,
    space: Any,
    device: str,
    node: Node,
    notify: Notify,
    data: RemoteDataset | None = None,
) -> PackingResult:
    """Measure how trials of a study pack best on one GPU of such a node, with a running Ray.

    If the study still trains a teacher, that must fit too. On "cpu" the same is measured without a GPU: the peak of
    resident memory, and time. The other parameters are those of `measure_gpu_share`.
    Raises InputError if no trial can be measured, or not even one fits.
    """
    cloudpickle.register_pickle_by_value(space)
    processes = min(MAX_TRIALS_PER_GPU, node.cpus // max(1, node.gpus))
    with _reserve_gpu(device, max(1, processes)) as group:
        profilers = [_start_profiler(study, device, group, data)]
        need, workloads = _profile_alone(study, trains_teacher, profilers[0], notify)

        def time_epoch(count: int) -> float:
            new = [_start_profiler(study, device, group, data) for _ in range(count - len(profilers))]
            profilers.extend(new)
            return _time_concurrent(profilers, new, workloads)

        return find_packing(need, time_epoch, processes)


def _time_concurrent(profilers: list[Any], new: list[Any], workloads: list[Workload]) -> float:
    """Return the mean seconds per epoch with all profilers at work.

    Raises MemoryError if a workload that succeeded alone fails in company: libraries report a full GPU in many ways.
    """
    short = [replace(workload, batches=PROBE_BATCHES) for workload in workloads]
    _get_profiles([profiler.profile.remote(short) for profiler in new])  # warm up: a late start must not run alone
    answers = _get_profiles([profiler.profile.remote(workloads) for profiler in profilers])
    profiles = [profile for answer in answers for profile in answer]
    if failures := [profile for profile in profiles if isinstance(profile, str)]:
        raise MemoryError(failures[0]) if len(profilers) > 1 else InputError(f"{AUTO}: {failures[0]}: give a number")
    return mean(profile.epoch_seconds for profile in profiles if isinstance(profile, TrialProfile))


def _profile_alone(
    study: Study, trains_teacher: bool, profiler: Any, notify: Notify
) -> tuple[MemoryNeed, list[Workload]]:
    """Return the memory of a process that trained everything, and each student's slowest workload, sized for timing."""
    workloads = [Workload("", TEACHER_STEP, None)] if trains_teacher else []
    workloads += [
        Workload(cell.student.name, cell.arm.name, corner)
        for cell in study.cells
        for corner in resolve_corners(cell.space)  # one of them needs the most memory
    ]
    try:
        (answers,) = _get_profiles([profiler.profile.remote(workloads)])
    except MemoryError as error:
        raise InputError(f"{AUTO}: {_first_line(error)}") from None
    profiled = [pair for pair in zip(workloads, answers, strict=True) if isinstance(pair[1], TrialProfile)]
    students = [pair for pair in profiled if pair[0].student]
    if not students:
        raise InputError(f"{AUTO}: no trial can be measured ({answers[-1]}): give a number")
    for failure in dict.fromkeys(answer for answer in answers if isinstance(answer, str)):
        notify(f"not measured: {failure}")
    peak = max((profile for _, profile in profiled), key=lambda profile: profile.peak_bytes)
    # a dict keeps the last, that is the slowest, workload of each student
    slowest = {pair[0].student: pair for pair in sorted(students, key=lambda pair: pair[1].epoch_seconds)}
    timed = [replace(workload, batches=_count_batches(profile)) for workload, profile in slowest.values()]
    return MemoryNeed(peak.peak_bytes, peak.overhead_bytes, peak.device_bytes), timed


def _get_profiles(pending: list[Any]) -> list[Any]:
    """Wait for profilers. Raises MemoryError if a workload does not fit, InputError if a process is lost."""
    try:
        return list(ray.get(pending))
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(f"{AUTO}: {error.cause}") from None
        raise
    except RayError as error:
        lost = f"a profiler's process was lost ({_first_line(error)})"
        raise InputError(f"{AUTO}: {lost}: try again, or give a number") from None


def _count_batches(profile: TrialProfile) -> int:
    """Return how many batches take about TIMED_SECONDS."""
    wanted = TIMED_SECONDS * profile.epoch_batches / max(profile.epoch_seconds, 1e-9)
    return max(1, min(profile.epoch_batches, round(wanted)))


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error  # Ray wraps what a worker raised
    return (str(cause).splitlines() or [type(cause).__name__])[0]


@contextmanager
def _reserve_gpu(device: str, processes: int) -> Iterator[Any]:
    """Reserve one GPU with CPUs for `processes` on one node, as a placement group."""
    group = ray.util.placement_group([{"CPU": processes} | ({} if device == "cpu" else {"GPU": 1})])
    try:
        ray.get(group.ready(), timeout=GPU_WAIT_SECONDS)
        yield group
    except GetTimeoutError:
        raise InputError(
            f"{AUTO}: no GPU with {processes} CPUs on its node was free within {GPU_WAIT_SECONDS:g} s: "
            "wait for other studies, or give a number"
        ) from None
    finally:
        ray.util.remove_placement_group(group)


def _start_profiler(study: Study, device: str, group: Any, data: RemoteDataset | None) -> Any:
    """Start a profiler in the placement group; all of them share its one GPU."""
    share = 0.0 if device == "cpu" else 1 / MAX_TRIALS_PER_GPU
    strategy = PlacementGroupSchedulingStrategy(group, 0)
    actor = ray.remote(Profiler).options(num_cpus=1, num_gpus=share, scheduling_strategy=strategy)
    return actor.remote(study, device, data)
