"""A study on the simulated task, and a driver without Ray: what the engine's tests run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import optuna

from study import Arm, Budget, Study, SuccessiveHalving, uniform
from study.engine.coordinator import Coordinator
from study.engine.replay import replay_records
from study.engine.student_costs import train_with_costs
from study.preflight import check_inputs
from study.records.columns import find_setting_columns
from study.records.parquet_table import Records
from study.records.rows import RunningTrial
from study.records.study_json import build_study_json, write_study
from study.space_file import Space
from study.trial import EpochResult, TrialContext
from trainables.tasks.simulated import Simulated, SimulatedLoss, SimulatedStudent

BASELINE = Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True)
SEARCHED = Arm("searched", SimulatedLoss(x=uniform(0, 1), gain=0.05))


def toy(arms: tuple[Arm, ...] = (BASELINE, SEARCHED), **changes: object) -> Study:
    study = Study(
        name="toy",
        question="Does the gain show?",
        task=Simulated(),
        students=(SimulatedStudent(),),
        arms=arms,
        budget=Budget(trials=9, epochs=6, seeds=3),
        stopping=SuccessiveHalving(min_epochs=1, reduction=2),
    )
    return dataclasses.replace(study, **changes)  # type: ignore[arg-type]


def open_coordinator(
    study: Study,
    folder: Path,
    journal: optuna.storages.BaseStorage | None = None,
    retry_failed: bool = False,
) -> Coordinator:
    """Return a Coordinator over the rows in the folder."""
    coordinator = Coordinator(
        study,
        Records(folder / study.name, study.metrics, find_setting_columns(cell.space for cell in study.cells)),
        journal or optuna.storages.InMemoryStorage(),
        study.task.list_preparations(folder, study.plan),
        {"data": "simulated"},
    )
    coordinator.writer.flush_seconds = 0.0  # nothing is left in memory: where a test cuts, it cuts
    replay_records(coordinator, retry_failed)
    return coordinator


def train_without_ray(space: Space, storage: Path, budget: Budget) -> Path:
    """Train a study of real nets with this budget and short preparations; return its folder, with a study.json."""
    inputs = check_inputs(space.study, storage)
    task = space.study.task.with_shorter_preparations(0.05)
    study = dataclasses.replace(space.study, task=task, budget=budget, confirm_on="train")
    coordinator = open_coordinator(study, storage)
    assert drive(coordinator, storage)
    assert coordinator.done, coordinator.problems
    coordinator.writer.records.compact()
    document = build_study_json(study, space, inputs, None, "command")
    write_study(storage / study.name, document | {"finished": True})
    return storage / study.name


def job_of(study: Study, run: RunningTrial, folder: Path) -> TrialContext:
    trial = run.trial
    configuration = None if trial.phase == "prepare" else study.find_cell(trial.cell).configure(trial.params)
    return TrialContext(
        trial=trial,
        task=study.task,
        student=configuration and configuration.student,
        loss=configuration and configuration.loss,
        recipe=configuration and configuration.recipe,
        checkpoint=folder / study.name / "checkpoints" / trial.id,
        storage=folder,
        device="cpu",
        recorded_epochs=run.epoch,
        train_on="train",
        validate=trial.phase != "confirm",
        test=trial.phase == "confirm",
    )


def drive(
    coordinator: Coordinator,
    folder: Path,
    rows: int | None = None,
    each: Callable[[RunningTrial, EpochResult], None] | None = None,
) -> bool:
    """Run trials one after the other, at most `rows` epochs; True if the coordinator came to its end.

    What a coordinator of `open_coordinator` would write row by row is written when this ends, however it ends.
    """
    writer = coordinator.writer
    flush_seconds, writer.flush_seconds = writer.flush_seconds, max(1e9, writer.flush_seconds)
    try:
        return _drive(coordinator, folder, rows, each)
    finally:
        writer.flush_seconds = flush_seconds
        writer.flush_if_due()


def flush_each(coordinator: Coordinator) -> Callable[[RunningTrial, EpochResult], None]:
    """Return an `each` for `drive` by which rows are written one by one, as into several files of a table."""
    return lambda run, row: coordinator.writer.flush()


def _drive(
    coordinator: Coordinator,
    folder: Path,
    rows: int | None,
    each: Callable[[RunningTrial, EpochResult], None] | None,
) -> bool:
    while (run := coordinator.next_trial()) is not None:
        job = job_of(coordinator.study, run, folder)
        try:
            is_preparation = run.trial.phase == "prepare"
            told = (
                job.task.prepare(job) if is_preparation else train_with_costs(job, coordinator.study.costs, run.costs)
            )
            for row in told:
                if rows is not None:
                    if rows == 0:
                        return False
                    rows -= 1
                if each is not None:
                    each(run, row)
                if coordinator.report(run.trial.id, row, "here:1"):
                    break
        except ValueError as error:
            coordinator.fail(run.trial.id, str(error))
    return True
