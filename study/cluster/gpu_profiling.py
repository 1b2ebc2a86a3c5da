"""A study's trials tried out before it starts, alone and side by side on one GPU: for --gpus-per-trial auto.

Each rehearses in a process of its own, as Ray will run it, wherever in the cluster a GPU is free. What a rehearsal is
the task knows (trainables/tasks/profiling.py); what follows from it, study/cluster/gpu_packing.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from study.cluster.resources import Node  # isort: skip  (first: it sets what Ray reads when it is imported)
import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from study.cluster import gpu_packing as packing
from study.cluster import resources as cluster
from study.cluster.gpu_packing import Need, PackingResult
from study.errors import InputError
from study.records.study_json import gpu_names
from study.space.domains import resolve_corners
from study.storage import worker_sync as exchange
from study.storage.dataset import DataSet
from study.study import Arm, Study
from study.task import TrialProfile
from study.trial import Trial, TrialContext, format_cell_name

FEW_BATCHES = 4
"""Enough to see a trial's memory and about how long a batch takes."""
SECONDS = 5.0
"""About so long a trial is timed, for each student."""
WAIT_SECONDS = 120.0
"""For a GPU that is free."""
TEACHER = "teacher"
"""The step that trains one, by which tasks name it."""
NO_GPU = "--gpus-per-trial auto: there is no GPU here, trials run on CPUs: 0"


@dataclass(frozen=True)
class Part:
    """A student under one loss of an arm, for so many batches; without a student, the teacher's training."""

    student: str
    arm: str
    loss: Any
    batches: int = FEW_BATCHES


class Profiler:
    """A process that rehearses one part after the other, as a reused worker trains one trial after the other."""

    def __init__(self, study: Study, device: str, data: DataSet | None = None):
        self._study, self._device, self._data = study, device, data

    def rehearse(self, parts: Sequence[Part]) -> list[TrialProfile | str]:
        """What each part took, or why it failed; raises MemoryError for what does not fit."""
        if self._data is not None:
            exchange.retry_with_backoff(self._data.fetch)
        return [self._tried(part) for part in parts]

    def _tried(self, part: Part) -> TrialProfile | str:
        with tempfile.TemporaryDirectory(prefix="kdstudy-rehearsal-") as scratch:
            try:
                return self._study.task.profile(self._job(part, Path(scratch)), part.batches)
            except MemoryError:
                raise
            except Exception as error:
                return f"{format_cell_name(part.student, part.arm)}: {type(error).__name__}: {_first_line(error)}"

    def _job(self, part: Part, scratch: Path) -> TrialContext:
        study = self._study
        return TrialContext(
            trial=Trial("search", part.student, part.arm, 0, study.derive_trial_seed("search", 0), 2, {}, {}),
            task=study.task,
            student=study.find_student(part.student) if part.student else None,
            loss=part.loss,
            checkpoint=scratch,
            storage=scratch,
            device=self._device,
            recorded_epochs=0,
            train_on=study.confirm_on,
            validate=True,
            test=False,
            gpus=float(self._device != "cpu"),
        )


def share_of_gpu(
    study: Study,
    storage: Path,
    space: Any,
    address: str | None,
    say: Callable[[str], None],
    data: DataSet | None = None,
) -> float:
    """The share of a GPU that each trial of this study is best given, measured there; 0 where there is no GPU.

    `space` is the module of the space file; `say` gets the arithmetic; `data` is a data set that lies elsewhere.
    Raises InputError if no trial can be rehearsed, or not one fits.
    """
    if study.workers_per_trial > 1:
        raise InputError("--gpus-per-trial auto measures trials of one worker: give a number, or --workers-per-trial 1")
    if address is None and not gpu_names():
        say(NO_GPU)
        return 0.0
    cluster.connect(address)
    try:
        nodes = [node for node in cluster.nodes() if node.gpus]
        if not nodes and any(node.gpus for node in cluster.pending_nodes()):
            raise InputError("--gpus-per-trial auto: no machine with a GPU is up yet: wait for one, or give a number")
        if not nodes:
            say(NO_GPU)
            return 0.0
        if len(kinds := cluster.gpu_kinds()) > 1:
            say(f"the GPUs differ ({', '.join(kinds)}): one of them is measured, and a smaller one may need a number")
        trains = any(step.name == TEACHER for step in study.task.list_preparations(storage, study.plan))
        tightest = min(nodes, key=lambda node: node.cpus // node.gpus)
        found = rehearsed(study, trains, space, "cuda", tightest, say, data)
    finally:
        cluster.disconnect()
    for line in packing.lines(found):
        say(line)
    return found.share


def rehearsed(
    study: Study,
    trains: bool,
    space: Any,
    device: str,
    node: Node,
    say: Callable[[str], None],
    data: DataSet | None = None,
) -> PackingResult:
    """How trials of this study are best packed on one GPU of such a node; the rest is as above.

    If it still `trains` a teacher, that must fit, too.
    On "cpu" the same is measured without one: the peak of resident memory, and time. Ray must be running.
    Raises InputError if no trial can be rehearsed, or not one fits.
    """
    cloudpickle.register_pickle_by_value(space)
    processes = min(packing.MOST, node.cpus // max(1, node.gpus))
    with _room(device, max(1, processes)) as room:
        members = [_hired(study, device, room, data)]
        need, parts = _alone(study, trains, members[0], say)

        def seconds_of(copies: int) -> float:
            new = [_hired(study, device, room, data) for _ in range(copies - len(members))]
            members.extend(new)
            return _together(members, new, parts)

        return packing.pack(need, seconds_of, processes)


def _together(members: list[Any], new: list[Any], parts: list[Part]) -> float:
    """Seconds an epoch with all members at work.

    Raises MemoryError where a part fails beside others, which alone went well: a full GPU fails in many words.
    """
    short = [replace(part, batches=FEW_BATCHES) for part in parts]
    _answers([member.rehearse.remote(short) for member in new])  # what begins late must not run alone
    answers = _answers([member.rehearse.remote(parts) for member in members])
    told: list[TrialProfile | str] = [one for answer in answers for one in answer]
    failures = [one for one in told if isinstance(one, str)]
    if failures and len(members) == 1:
        raise InputError(f"--gpus-per-trial auto: {failures[0]}: give a number")
    if failures:
        raise MemoryError(failures[0])
    return mean(one.epoch_seconds for one in told if isinstance(one, TrialProfile))


def _alone(study: Study, trains: bool, member: Any, say: Callable[[str], None]) -> tuple[Need, list[Part]]:
    """What a process takes that has trained everything, and each student's slowest part, long enough to be timed."""
    parts = [Part("", TEACHER, None)] if trains else []
    parts += [Part(cell.student.name, cell.arm.name, loss) for cell in study.cells for loss in _demands(cell.arm)]
    try:
        (told,) = _answers([member.rehearse.remote(parts)])
    except MemoryError as error:
        raise InputError(f"--gpus-per-trial auto: {_first_line(error)}") from None
    taken = [(part, one) for part, one in zip(parts, told, strict=True) if isinstance(one, TrialProfile)]
    if not any(part.student for part, _ in taken):
        raise InputError(f"--gpus-per-trial auto: no trial can be rehearsed ({told[-1]}): give a number")
    for failure in dict.fromkeys(one for one in told if isinstance(one, str)):
        say(f"not measured: {failure}")
    most = max((one for _, one in taken), key=lambda one: one.peak_bytes)
    students = [(part, one) for part, one in taken if part.student]
    slowest = {part.student: (part, one) for part, one in sorted(students, key=lambda pair: pair[1].epoch_seconds)}
    timed = [replace(part, batches=_enough(one)) for part, one in slowest.values()]
    return Need(most.peak_bytes, most.overhead_bytes, most.device_bytes), timed


def _answers(asked: list[Any]) -> list[Any]:
    """What these rehearsals say. Raises MemoryError where one does not fit, InputError where its process is lost."""
    try:
        return list(ray.get(asked))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(f"--gpus-per-trial auto: {error.cause}") from None
        raise
    except ray.exceptions.RayError as error:
        what = f"a rehearsal's process was lost ({_first_line(error)})"
        raise InputError(f"--gpus-per-trial auto: {what}: try again, or give a number") from None


def _demands(arm: Arm) -> list[Any]:
    """The losses that this arm may resolve to, at the ends of its domains: one of them demands most."""
    found: list[Any] = []
    for loss in resolve_corners(arm.loss):
        if loss not in found:
            found.append(loss)
    return found


def _enough(taken: TrialProfile) -> int:
    """As many batches as take about SECONDS."""
    wanted = SECONDS * taken.epoch_batches / max(taken.epoch_seconds, 1e-9)
    return max(1, min(taken.epoch_batches, round(wanted)))


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error  # Ray wraps what a worker raised
    return (str(cause).splitlines() or [type(cause).__name__])[0]


@contextmanager
def _room(device: str, processes: int) -> Iterator[Any]:
    """One GPU and so many CPUs of one node, kept for the rehearsal."""
    group = ray.util.placement_group([{"CPU": processes} | ({} if device == "cpu" else {"GPU": 1})])
    try:
        ray.get(group.ready(), timeout=WAIT_SECONDS)
        yield group
    except GetTimeoutError:
        raise InputError(
            f"--gpus-per-trial auto: no GPU with {processes} CPUs beside it was free within {WAIT_SECONDS:g} s: "
            "wait for other studies, or give a number"
        ) from None
    finally:
        ray.util.remove_placement_group(group)


def _hired(study: Study, device: str, room: Any, data: DataSet | None) -> Any:
    """A process in the room; all of them on its one GPU."""
    share = 0.0 if device == "cpu" else 1 / packing.MOST
    placed = PlacementGroupSchedulingStrategy(room, 0)
    process = ray.remote(Profiler).options(num_cpus=1, num_gpus=share, scheduling_strategy=placed)
    return process.remote(study, device, data)
