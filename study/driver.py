"""One run of one study: checks, resume, training, and the final study.json.

Ray is imported inside the functions that need it: its import takes seconds, which --help and bad input should not cost.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from study.engine.coordinator import Coordinator
from study.engine.live_display import LiveDisplay
from study.engine.model_costs import add_model_costs, list_students
from study.engine.replay import replay_records
from study.engine.warm_start import read_warm_start
from study.preflight import DriverOptions, allocate_resources, format_preparations, read_earlier_run
from study.records.columns import find_setting_columns
from study.records.lock import clear_stop_request, is_stop_requested, lock_study, read_skip_requests
from study.records.parquet_table import Records
from study.records.paths import StudyPaths
from study.records.study_json import (
    build_study_json,
    collect_fingerprints,
    format_now,
    list_runs,
    write_study,
)
from study.search.journal import create_journal
from study.space.params import Params
from study.space_file import Space
from study.storage.locations import display_path, mirror_of
from study.storage.remote import pull_artifacts
from study.storage.worker_sync import fetch_artifacts
from study.study import Study
from study.trackers.base import Tracker, open_trackers
from study.trackers.console import ConsoleTracker

PrintLine = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """The end of a run: `problems` of cells that cannot become complete, or why it `stopped` early."""

    problems: list[str]
    stopped: str = ""


def drive(
    study: Study, space: Space, inputs: Mapping[str, Any], options: DriverOptions, command: str, console: Console
) -> Outcome:
    """Train what is not on record yet; `command` is recorded as the one that continues the study.

    Raises InputError if another process runs the study, or its folder holds another study.
    """
    folder, print_line = options.storage / study.name, partial(console.print, markup=False, soft_wrap=True)
    with (
        lock_study(folder),
        clear_stop_request(folder),
        open_trackers(options.logs, folder, study.question, print_line) as trackers,
    ):
        earlier, changed = read_earlier_run(study, space, inputs, options.storage, options.allow_code_change)
        if changed:
            print_line(f"continues although {changed} changed since the last run")
        if options.verbose:
            trackers.append(ConsoleTracker(print_line))
        warm = pin_warm_start(study, earlier)
        coordinator = restore_coordinator(study, inputs, options, warm, list_runs(earlier), trackers, space.code.digest)
        _delete_left_checkpoints(coordinator, options.storage)
        if coordinator.done and earlier is not None and earlier["finished"]:
            print_line(f"{display_path(folder)} is finished: nothing to train, writing the report again")
            return Outcome([])
        has_report = StudyPaths(folder).report.is_file()
        document = build_study_json(study, space, inputs, earlier, command, has_report) | {"warm_start": warm}
        print_line(format_opening_line(coordinator, folder))
        stopped = coordinator.problem or coordinator.over_budget
        stopped = stopped or _train(coordinator, space, options, console, print_line, document)
        _write_summary(coordinator, options.storage, document, print_line)
        if coordinator.done:
            return Outcome([])
        return Outcome([], stopped) if stopped and not coordinator.problem else Outcome(coordinator.problems)


def restore_coordinator(
    study: Study,
    inputs: Mapping[str, Any],
    options: DriverOptions,
    warm: Mapping[str, Sequence[Params]] | None = None,
    runs: Sequence[Mapping[str, Any]] = (),
    trackers: Sequence[Tracker] = (),
    code: str = "",
) -> Coordinator:
    """Return a Coordinator in the state of the study's folder, new or resumed; `runs` are its earlier runs."""
    folder = options.storage / study.name
    coordinator = Coordinator(
        study,
        Records(folder, study.metrics, find_setting_columns(cell.space for cell in study.cells)),
        create_journal(StudyPaths(folder).journal),
        study.task.list_preparations(options.storage, study.plan),
        collect_fingerprints(inputs),
        warm,
        trackers,
        code,
    )
    replay_records(coordinator, options.retry_failed, runs)
    return coordinator


def pin_warm_start(study: Study, earlier: Mapping[str, Any] | None) -> dict[str, list[Params]]:
    """Return a warm start's points as they were when the study started; its source may have changed since."""
    pinned: dict[str, list[Params]] = earlier.get("warm_start") or {} if earlier else read_warm_start(study)
    return pinned


def _delete_left_checkpoints(coordinator: Coordinator, storage: Path) -> None:
    """Delete the checkpoints that an earlier run may have left when it was killed."""
    if left := list(coordinator.writer.pop_obsolete()):
        from study.execution.worker_context import WorkerContext

        context = WorkerContext(coordinator.writer.records.folder, storage, mirror_of(storage))
        for one in left:
            context.discard_checkpoint(one.trial_id, keep_traceback=one.failed)


def format_opening_line(coordinator: Coordinator, folder: Path) -> str:
    """Return the first line of a run: the size of the study, its progress and its folder."""
    study, cells = coordinator.study, coordinator.cells.values()
    trials = sum(cell.search.trials + cell.planned_confirms for cell in cells)
    ended = sum(len(cell.search.ended) + sum(bool(state) for state in cell.confirmed.values()) for cell in cells)
    progress = f", continues with {ended:,} done" if ended or coordinator.queue.resumable else ""
    size = f"{len(cells)} cell{'s' * (len(cells) != 1)}, {trials:,} trial{'s' * (trials != 1)}"
    return f"{study.name}: {size}{progress} → {display_path(folder)}"


def _train(
    coordinator: Coordinator,
    space: Space,
    options: DriverOptions,
    console: Console,
    print_line: PrintLine,
    document: Mapping[str, Any],
) -> str:
    """Run the coordinator's trials on Ray; return why the run stopped early, or ""."""
    from study.cluster.connection import connect, disconnect
    from study.cluster.storage_check import check_shared_storage

    if coordinator.has_no_work:  # as where all that is left has failed: starting Ray for nothing takes seconds
        with _writing_at_exit(coordinator, document):
            return ""
    for line in format_preparations(coordinator.queue.preparations):
        print_line(line)
    connect(options.address)
    try:  # rows are written before Ray is shut down, which takes seconds
        check_shared_storage(options.storage)
        write_study(coordinator.writer.records.folder, document)  # only once there is a cluster that can run the study
        with _writing_at_exit(coordinator, document):
            stopped = _run_trials(coordinator, space, options, console, print_line) or coordinator.over_budget
            coordinator.interrupt(stopped)
            return stopped
    finally:
        disconnect()


def _run_trials(
    coordinator: Coordinator, space: Space, options: DriverOptions, console: Console, print_line: PrintLine
) -> str:
    """Run the coordinator's trials on the connected cluster, under a display; return why they were stopped, or ""."""
    from study.cluster.connection import list_nodes, list_pending_nodes, max_trials
    from study.cluster.software_check import read_needed_versions
    from study.execution import tune
    from study.execution.worker_context import WorkerContext

    storage, folder = options.storage, coordinator.writer.records.folder
    is_cluster = options.address is not None
    nodes = list_nodes() + (list_pending_nodes() if is_cluster else [])
    resources = allocate_resources(nodes, options, coordinator.study)
    coordinator.resources = resources.to_row()
    display = LiveDisplay(coordinator, console, resources.concurrent)

    def check_stop() -> str:
        display.update()
        coordinator.skips = read_skip_requests(folder)
        requested = "stopped on request" if is_stop_requested(folder) else ""
        return requested or coordinator.problem or coordinator.over_budget

    def count_max_trials() -> int:
        return max_trials(resources, options.max_concurrent)

    with display.live():
        context = WorkerContext(
            folder, storage, mirror_of(storage), options.data, read_needed_versions() if is_cluster else {}
        )
        limit = count_max_trials if is_cluster else None
        stopped = tune.execute(coordinator, context, resources, space.module, check_stop, print_line, limit)
    display.update()
    return stopped


@contextmanager
def _writing_at_exit(coordinator: Coordinator, document: Mapping[str, Any]) -> Iterator[None]:
    """Write all rows, the run's duration and its end on exit, also after an exception or an interruption."""
    records = coordinator.writer.records
    try:
        yield
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second signal must not cut the writing short
            signal.signal(number, signal.SIG_IGN)
        coordinator.interrupt("interrupted by the user")
        raise
    finally:
        records.compact()
        document["provenance"]["runs"][-1]["seconds"] = coordinator.usage.run_seconds
        document["provenance"]["updated"] = format_now()
        write_study(records.folder, document)


def _write_summary(coordinator: Coordinator, storage: Path, document: Mapping[str, Any], print_line: PrintLine) -> None:
    """Write study.json with what the task knows of its networks, and with their costs if the study is done."""
    study, folder = coordinator.study, storage / coordinator.study.name
    fetch_artifacts(storage, study.task)
    pull_artifacts(folder)
    students = list_students(coordinator)
    summary = study.task.describe_models(students, storage)
    if coordinator.done:  # "finished" is written after the costs: a run cut short here leaves them to the next one
        write_study(folder, {**document, **summary})
        summary = add_model_costs(study, students, summary, storage, print_line)
    write_study(folder, {**document, **summary, "finished": coordinator.done})
