"""One run of one study, from its checks to its last row: what python -m study.run does between reading and reporting.

Ray is imported late, inside the functions that need it: it takes seconds that --help and bad input need not wait for.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from study.engine.coordinator import Coordinator
from study.engine.live_display import ConsoleTracker, Display
from study.engine.model_costs import with_costs
from study.engine.replay import replay
from study.engine.warm_start import warm_points
from study.records.segments import Records, write_study
from study.records.study_json import (
    check_code,
    check_same,
    check_writable,
    document,
    fingerprints,
    gpu_names,
    locked,
    runs_of,
    stop_requested,
    withdraw_stop,
)
from study.search.journal import create_journal
from study.space.domains import resolve_corners
from study.space.params import Params
from study.space_file import Space
from study.storage.dataset import RemoteDataset
from study.storage.locations import display_path, mirror_of
from study.storage.remote import pull_artifacts
from study.storage.worker_sync import fetch_artifacts
from study.study import Study
from study.task import SPLITS, Preparation
from study.trackers.base import Tracker, open_trackers
from study.trial import Split

if TYPE_CHECKING:
    from study.cluster.resources import Resources


@dataclass(frozen=True)
class RunOptions:
    """Where a study runs, with how much of it, what is done again and who hears of it, as the command line says."""

    storage: Path
    address: str | None = None
    gpus_per_worker: float | None = None
    max_concurrent: int | None = None
    retry_failed: bool = False
    allow_code_change: bool = False
    logs: tuple[str, ...] = ()
    """Names of study/trackers/base.py."""
    verbose: bool = False
    data: RemoteDataset | None = None
    """The data set, if it does not lie in a folder."""


def check_inputs(study: Study, storage: Path) -> dict[str, Any]:
    """The task's own checks, with every loss at the ends of its domains; returns what identifies data and teacher."""
    checked: dict[str, Any] = {}
    trained_on: tuple[Split, ...] = ("train",) if study.confirm_on == "train" else SPLITS
    for student in study.students:
        losses = tuple(
            loss for cell in study.cells if cell.student is student for loss in resolve_corners(cell.arm.loss)
        )
        checked |= study.task.check((student,), losses, storage, trained_on)
    return checked


def check_run_options(place: RunOptions, study: Study) -> None:
    """Raises InputError if the storage cannot be written, or this machine has not what one trial asks for."""
    check_writable(place.storage)
    if place.address is None:
        resources_of(place, study)


def resources_of(place: RunOptions, study: Study) -> Resources:
    """What a trial gets there, and how many run at once; of a cluster, by asking it.

    Raises InputError if not one trial fits, or no cluster answers.
    """
    from study.cluster import resources as cluster

    if place.address is None:
        here = cluster.Node(os.cpu_count() or 1, len(gpu_names()))
        return cluster.allocate([here], place.gpus_per_worker, place.max_concurrent, study.workers_per_trial)
    cluster.connect(place.address)
    try:
        nodes = cluster.list_nodes() + cluster.list_pending_nodes()
        return cluster.allocate(nodes, place.gpus_per_worker, place.max_concurrent, study.workers_per_trial)
    finally:
        cluster.disconnect()


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with `problems` of cells that cannot be completed, or `stopped` before everything was tried."""

    problems: list[str]
    stopped: str = ""


def drive(
    study: Study, space: Space, inputs: Mapping[str, Any], place: RunOptions, command: str, console: Console
) -> Outcome:
    """Train what is not on record yet."""

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    folder = place.storage / study.name
    with locked(folder), _heard(folder), open_trackers(place.logs, folder, study.question, say) as trackers:
        earlier, changed = check_earlier(study, space, inputs, place.storage, place.allow_code_change)
        if changed:
            say(f"goes on although {changed} changed since the last run")
        listeners = [*trackers, *([ConsoleTracker(say)] if place.verbose else [])]
        warm = pinned_warm_start(study, earlier)
        flow = restore_coordinator(study, inputs, place, warm, runs_of(earlier), listeners)
        flow.code = space.code.digest
        if flow.done and earlier is not None and earlier["finished"]:
            say(f"{display_path(folder)} is finished: nothing to train, reporting again")
            return Outcome([])
        seen = (folder / "report.html").is_file()
        written = document(study, space, inputs, earlier, command, results_known=seen) | {"warm_start": warm}
        say(opening_line(flow, folder))
        stopped = flow.problem or flow.over_budget or _train(flow, space, place, console, say, written)
        fetch_artifacts(place.storage, study.task)
        pull_artifacts(folder)
        summary = study.task.describe_models(study.students, place.storage)
        if flow.done:  # finished is written after the costs: a run that is cut short here leaves them to the next
            write_study(folder, {**written, **summary})
            summary = with_costs(study, summary, place.storage, say)
        write_study(folder, {**written, **summary, "finished": flow.done})
        if flow.done:
            return Outcome([])
        return Outcome([], stopped) if stopped and not flow.problem else Outcome(flow.problems)


def check_earlier(
    study: Study, space: Space, inputs: Mapping[str, Any], storage: Path, allow_code_change: bool
) -> tuple[dict[str, Any] | None, str]:
    """study.json of the study's earlier runs, and which files of its code have changed since, which is allowed.

    Raises InputError if that was another study, or ran with other code and this is not allowed.
    """
    folder = storage / study.name
    earlier = check_same(folder, study, inputs)
    changed = check_code(folder, earlier, study, space, allow_code_change) if earlier else ""
    return earlier, changed


@contextmanager
def _heard(folder: Path) -> Iterator[None]:
    """What was asked of an earlier run is not asked of this one, nor what is asked of this one of the next."""
    withdraw_stop(folder)
    try:
        yield
    finally:
        withdraw_stop(folder)


def restore_coordinator(
    study: Study,
    inputs: Mapping[str, Any],
    place: RunOptions,
    warm: Mapping[str, Sequence[Params]] | None = None,
    runs: Sequence[Mapping[str, Any]] = (),
    trackers: Sequence[Tracker] = (),
) -> Coordinator:
    """The study as its folder has it: a new one, or one where it was left. `runs` are its earlier ones."""
    folder = place.storage / study.name
    records = Records(folder, study.task.metrics)
    preparations = study.task.list_preparations(place.storage, study.plan)
    journal = create_journal(folder / "optuna.journal")
    flow = Coordinator(study, records, journal, preparations, fingerprints(inputs), warm)
    flow.trackers = trackers
    replay(flow, place.retry_failed, runs)
    return flow


def pinned_warm_start(study: Study, earlier: Mapping[str, Any] | None) -> dict[str, list[Params]]:
    """The points of a warm start, as they were when the study began: what they come from may have gone on since."""
    pinned: dict[str, list[Params]] = earlier.get("warm_start") or {} if earlier else warm_points(study)
    return pinned


def opening_line(flow: Coordinator, folder: Path) -> str:
    """The first line of a run: what it is about, where it writes, and how far it already is."""
    study = flow.study
    searches = sum(cell.trials for cell in flow.cells.values())
    trials = searches + len(flow.cells) * study.budget.seeds
    ended = sum(len(cell.searched) + sum(bool(s) for s in cell.confirmed.values()) for cell in flow.cells.values())
    goes_on = f", goes on with {ended} trials done" if ended or flow.resumable else ""
    return f"{study.name}: {len(flow.cells)} cells, {trials} trials{goes_on} → {display_path(folder)}"


def _train(
    flow: Coordinator,
    space: Space,
    place: RunOptions,
    console: Console,
    say: Callable[[str], None],
    written: Mapping[str, Any],
) -> str:
    """Run the flow; returns why it stopped before its end, if it did."""
    from study.cluster import resources as cluster
    from study.cluster.software_check import read_versions
    from study.cluster.storage_check import check_shared_storage
    from study.execution import tune as executor
    from study.execution.worker_context import WorkerContext

    folder = place.storage / flow.study.name
    for note in preparation_lines(flow.preparations):
        say(note)
    cluster.connect(place.address)
    try:  # rows are written before Ray is left: that takes seconds, and more on a busy machine
        check_shared_storage(place.storage)
        write_study(folder, written)  # once there is a cluster to run it on
        with _written_whatever_happens(flow, written):
            nodes = cluster.list_nodes() + (cluster.list_pending_nodes() if place.address else [])
            workers = flow.study.workers_per_trial
            resources = cluster.allocate(nodes, place.gpus_per_worker, place.max_concurrent, workers)
            flow.resources = resources.to_row()
            display = Display(flow, console, resources.concurrent)

            def watch() -> str:
                display.update()
                asked = "stopped on request" if stop_requested(folder) else ""
                return asked or flow.problem or flow.over_budget

            def room() -> int:
                return cluster.max_trials(resources, place.max_concurrent) if place.address else resources.concurrent

            with display.shown():
                theirs = read_versions() if place.address else {}
                workplace = WorkerContext(folder, place.storage, mirror_of(place.storage), place.data, theirs)
                stopped = executor.execute(flow, workplace, resources, space.module, watch, say, room)
            display.update()
            stopped = stopped or flow.over_budget
            flow.interrupt(stopped)
            return stopped
    finally:
        cluster.disconnect()


def preparation_lines(preparations: list[Preparation]) -> list[str]:
    """What there is to prepare, in a line each; steps that share a note in one."""
    grouped: dict[str, int] = {}
    for step in preparations:
        grouped[step.note] = grouped.get(step.note, 0) + 1
    return [f"prepare: {note}" + (f", in {steps} steps" if steps > 1 else "") for note, steps in grouped.items()]


@contextmanager
def _written_whatever_happens(flow: Coordinator, written: Mapping[str, Any]) -> Iterator[None]:
    """Leave no row in memory, whether the study ends, fails or is interrupted, and write down how long it took."""
    try:
        yield
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one must not cut the writing short
            signal.signal(number, signal.SIG_IGN)
        flow.interrupt("interrupted by the user")
        raise
    finally:
        flow.records.compact()
        written["provenance"]["runs"][-1]["seconds"] = flow.wall_seconds
        write_study(flow.records.folder, written)
