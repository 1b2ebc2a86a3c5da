"""One run of one study, from its checks to its last row: what python -m study.run does between reading and reporting.

Ray is imported late, inside the functions that need it: it takes seconds that --help and bad input need not wait for.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from study.display import Display
from study.flow import Flow
from study.folder import check_same, check_writable, document, fingerprints, gpu_names, locked
from study.journal import new_journal
from study.loading import Space
from study.records import Records, write_study
from study.replay import replay
from study.space import corners
from study.study import Study
from study.trial import Preparation


@dataclass(frozen=True)
class Place:
    """Where a study runs, with how much of it, and what is to be done again, as the command line says."""

    storage: Path
    address: str | None = None
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    retry_failed: bool = False


def check_inputs(study: Study, storage: Path) -> dict[str, Any]:
    """The task's own checks, with every loss at the ends of its domains; returns what identifies data and teacher."""
    losses = tuple(loss for arm in study.arms for loss in corners(arm.loss))
    return study.task.check(study.students, losses, storage)


def check_place(place: Place) -> None:
    """Raises InputError if the storage cannot be written, or this machine has not what one trial asks for."""
    check_writable(place.storage)
    if place.address is None:
        from study.executor import Node, allot

        here = Node(os.cpu_count() or 1, len(gpu_names()))
        allot([here], place.gpus_per_trial, place.max_concurrent)


def drive(
    study: Study, space: Space, inputs: Mapping[str, Any], place: Place, command: str, console: Console
) -> list[str]:
    """Train what is not on record yet; returns what could not be completed, cell by cell."""
    folder = place.storage / study.name
    with locked(folder):
        earlier = check_same(folder, study, inputs)
        flow = resumed(study, inputs, place)
        if flow.done and earlier is not None and earlier["finished"]:
            console.print(f"{folder} is finished: nothing to train, reporting again", markup=False, soft_wrap=True)
        else:
            written = document(study, space, inputs, earlier, command)
            console.print(opening(flow, folder), markup=False, soft_wrap=True)
            _train(flow, space, place, console, written)
            summary = study.task.summary(study.students, place.storage)
            write_study(folder, {**written, **summary, "finished": flow.done})
        return flow.problems


def resumed(study: Study, inputs: Mapping[str, Any], place: Place) -> Flow:
    """The study as its folder has it: a new one, or one where it was left."""
    folder = place.storage / study.name
    records = Records(folder, study.task.metrics)
    preparations = study.task.preparations(place.storage, study.plan)
    journal = new_journal(folder / "optuna.journal")
    flow = Flow(study, records, journal, preparations, fingerprints(inputs))
    replay(flow, place.retry_failed)
    return flow


def opening(flow: Flow, folder: Path) -> str:
    """The first line of a run: what it is about, where it writes, and how far it already is."""
    study = flow.study
    searches = sum(cell.trials for cell in flow.cells.values())
    trials = searches + len(flow.cells) * study.budget.seeds
    ended = sum(len(cell.searched) + sum(bool(s) for s in cell.confirmed.values()) for cell in flow.cells.values())
    goes_on = f", goes on with {ended} trials done" if ended or flow.resumable else ""
    return f"{study.name}: {len(flow.cells)} cells, {trials} trials{goes_on} → {folder}"


def _train(flow: Flow, space: Space, place: Place, console: Console, written: Mapping[str, Any]) -> None:
    from study import executor
    from study.worker import Workplace

    for note in notes(flow.preparations):
        console.print(note, markup=False, soft_wrap=True)
    with _written_whatever_happens(flow):
        executor.connect(place.address)
        write_study(place.storage / flow.study.name, written)  # once there is a cluster to run it on
        try:
            resources = executor.allot(executor.cluster(), place.gpus_per_trial, place.max_concurrent)
            flow.resources = resources.as_row()
            display = Display(flow, console, resources.concurrent)
            workplace = Workplace(place.storage / flow.study.name, place.storage)
            with display.shown():
                executor.execute(flow, workplace, resources, space.module, display.update)
        finally:
            executor.disconnect()


def notes(preparations: list[Preparation]) -> list[str]:
    """What there is to prepare, in a line each; steps that share a note in one."""
    grouped: dict[str, int] = {}
    for step in preparations:
        grouped[step.note] = grouped.get(step.note, 0) + 1
    return [f"prepare: {note}" + (f", in {steps} steps" if steps > 1 else "") for note, steps in grouped.items()]


@contextmanager
def _written_whatever_happens(flow: Flow) -> Iterator[None]:
    """Leave no row in memory, whether the study ends, fails or is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one must not cut the writing short
            signal.signal(number, signal.SIG_IGN)
        flow.interrupt("interrupted by the user")
        raise
    finally:
        flow.records.compact()
