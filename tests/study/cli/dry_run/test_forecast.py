"""The price of a study: its arithmetic, the seconds it is built on, what halving saves, what is left to do."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study import Arm, Budget, Never, Study, SuccessiveHalving, uniform
from study.cli.dry_run.epoch_times import EpochTimes, assume_epoch_seconds, read_epoch_times
from study.cli.dry_run.forecast import Forecast, forecast_study, format_duration, format_forecast
from study.identity import describe
from study.records.parquet_table import Records
from study.records.rows import RunningTrial, to_trial_row
from study.records.study_json import SCHEMA_VERSION, write_study
from study.search.samplers import CmaEs, Grid, Sampler, Tpe
from study.trial import Trial, TrialState
from tests.study.toy import BASELINE, drive, open_coordinator, toy
from trainables.tasks.simulated import Fault, Simulated, SimulatedLoss, SimulatedStudent

INPUTS = {"data": {"name": "simulated", "fingerprint": "simulated"}}
NOWHERE = Path("nowhere")
FREE = SimulatedLoss(needs_teacher=False)


def priced(
    study: Study, storage: Path = NOWHERE, pace: EpochTimes | None = None, slots: int = 2, gpus: float = 0
) -> Forecast:
    preparations = study.task.list_preparations(storage, study.plan)
    return forecast_study(study, INPUTS, storage, preparations, pace or assume_epoch_seconds(10.0), slots, gpus)


# -- arithmetic --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(seeds=st.integers(1, 7), arms=st.integers(1, 3), epochs=st.integers(1, 9), slots=st.integers(1, 5))
def test_equal_trials_take_as_many_rounds_as_slots_need(seeds: int, arms: int, epochs: int, slots: int) -> None:
    study = toy(tuple(Arm(str(n), FREE, baseline=n == 0) for n in range(arms)), budget=Budget(1, epochs, seeds))
    told = priced(study, pace=assume_epoch_seconds(3.0), slots=slots, gpus=0.5)
    assert (told.trials, told.searches, told.stopped, told.epochs) == (seeds * arms, 0, 0, seeds * arms * epochs)
    assert told.wall_seconds == pytest.approx(math.ceil(seeds * arms / slots) * epochs * 3.0)
    assert told.gpu_hours == pytest.approx(seeds * arms * epochs * 3.0 * 0.5 / 3600)


@settings(deadline=None, max_examples=10)
@given(trials=st.integers(1, 12), slots=st.integers(1, 4), reduction=st.integers(2, 4))
def test_no_slot_does_two_things_at_once(trials: int, slots: int, reduction: int) -> None:
    """A lower bound: all the work over all slots, and the longest chain, a search trial and its cell's confirm."""
    study = toy(budget=Budget(trials, 9, 2), stopping=SuccessiveHalving(reduction=reduction))
    told = priced(study, slots=slots)
    assert told.wall_seconds >= told.epochs * 10.0 / slots - 10.0  # epochs are a mean, rounded
    assert told.wall_seconds >= (2 + 9 + 9) * 10.0
    assert told.trials == trials + 4


def test_preparation_comes_before_what_needs_it_and_is_paid(tmp_path: Path) -> None:
    taught = toy((replace(BASELINE, loss=SimulatedLoss()),), task=Simulated(teacher_epochs=5), budget=Budget(1, 6, 2))
    assert priced(taught, slots=2).wall_seconds == (5 + 6) * 10.0
    assert priced(taught, slots=2).epochs == 5 + 2 * 6
    pace = EpochTimes({("prepare",): 100.0, ("train",): 1.0}, "test")
    assert priced(taught, pace=pace, slots=2, gpus=1).wall_seconds == 506.0
    assert priced(taught, pace=pace, slots=2, gpus=1).gpu_hours == pytest.approx(512 / 3600)
    assert priced(taught, pace=pace).epoch_seconds == 1.0


def test_confirm_waits_for_its_search_while_other_cells_go_on() -> None:
    study = toy(task=Simulated(teacher_epochs=0), budget=Budget(3, 10, 1), stopping=Never())
    assert priced(study, slots=8).wall_seconds == 20 * 10.0


# -- halving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["val/accuracy", "val/cost"])
def test_halving_saves_epochs_whichever_way_is_better(metric: str) -> None:
    stopped, whole = (
        priced(toy(budget=Budget(27, 27, 3), stopping=rule, metric=metric)) for rule in (HALVING, Never())
    )
    assert (whole.stopped, whole.epochs) == (0, 33 * 27 + 2)
    assert 20 < stopped.stopped < 27
    assert stopped.epochs < whole.epochs / 2
    assert stopped.wall_seconds < whole.wall_seconds


HALVING = SuccessiveHalving(min_epochs=1, reduction=3)


def test_forecast_stops_as_many_as_the_study_then_does(tmp_path: Path) -> None:
    epochs, stopped = [], []
    for seed in range(5):
        study = toy(budget=Budget(30, 27, 3), stopping=HALVING, seed=seed)
        coordinator = open_coordinator(study, tmp_path / str(seed))
        coordinator.writer.flush_seconds = math.inf
        assert drive(coordinator, tmp_path / str(seed))
        cell = coordinator.cells["student / searched"]
        stopped.append(sum(state is TrialState.PRUNED for state, _ in cell.search.ended.values()))
        epochs.append(sum(cell.search.epochs.values()) + 6 * 27 + 2)
    told = priced(study)
    assert min(stopped) - 2 <= told.stopped <= max(stopped) + 2
    assert min(epochs) * 0.8 <= told.epochs <= max(epochs) * 1.2


def test_grid_is_priced_by_its_points() -> None:
    assert priced(toy(sampler=Grid(points=5))).searches == 5  # of the budget's 9


@pytest.mark.parametrize("sampler", [Tpe(), CmaEs()])
def test_proposals_cost_the_forecast_nothing(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Tpe, "build")
    monkeypatch.delattr("study.search.searcher.propose_by_cma")
    assert priced(toy(sampler=sampler)).searches == 9


def test_same_study_has_the_same_price() -> None:
    assert priced(toy()) == priced(toy())


# -- seconds per epoch -------------------------------------------------------------------------------------------------


def on_record(
    storage: Path, study: Study, trials: list[Trial], seconds: list[float], device: str = "cpu", **changes: Any
) -> None:
    """A folder in which these trials took so many seconds an epoch."""
    described = {
        "study": describe(study),
        "inputs": INPUTS,
        "cells": [{"student": cell.student.name} for cell in study.cells],
    }
    records = Records(storage / study.name, study.task.metrics)
    for trial, each in zip(trials, seconds, strict=True):
        run = RunningTrial(trial, NOW, trial.epochs, each * trial.epochs, resources={"device": device})
        records.trials.append(to_trial_row(run, TrialState.COMPLETE, ""))
    records.flush()
    write_study(storage / study.name, described | changes)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def trial(phase: Any, student: str, arm: str, epochs: int = 1) -> Trial:
    return Trial(phase, student, arm, 0, 0, epochs, {}, {})


MEASURED = [
    trial("search", "student", "searched", epochs=3),
    trial("confirm", "student", "searched"),
    trial("search", "wide", "searched"),
    trial("search", "wide", "plain"),
    trial("search", "wide", "begun", epochs=0),
    trial("prepare", "", "teacher"),
    trial("prepare", "", "outputs 0–8"),
]
SECONDS = [2.0, 4.0, 10.0, 16.0, 0.0, 50.0, 7.0]


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (trial("search", "student", "searched"), 2.0),
        (trial("confirm", "student", "searched"), 4.0),
        (trial("confirm", "wide", "searched"), 10.0),  # its cell, in another phase
        (trial("confirm", "student", "other"), 2.5),  # its student: (3 · 2 + 4) / 4
        (trial("confirm", "narrow", "other"), 6.0),  # all: (3 · 2 + 4 + 10 + 16) / 6
        (trial("prepare", "", "teacher"), 50.0),
        (trial("prepare", "", "outputs 8–16"), 7.0),  # a step of its kind
        (trial("prepare", "", "anything"), 28.5),
    ],
)
def test_seconds_come_from_the_closest_rows_there_are(tmp_path: Path, asked: Trial, seconds: float) -> None:
    study = toy(students=(SimulatedStudent(), SimulatedStudent("wide")))
    on_record(tmp_path, study, MEASURED, SECONDS)
    pace = read_epoch_times(study, INPUTS, tmp_path, gpus=0)
    assert pace is not None
    assert pace.find_seconds(asked) == pytest.approx(seconds)


def test_measured_seconds_make_the_price_and_are_named(tmp_path: Path) -> None:
    study = toy((BASELINE,), budget=Budget(1, 6, 4))
    on_record(tmp_path, replace(study, name="try"), [trial("confirm", "student", "plain")], [2.0])
    pace = read_epoch_times(study, INPUTS, tmp_path, gpus=0)
    told = priced(study, tmp_path, pace, slots=2)
    assert told.wall_seconds == 2 * 6 * 2.0
    assert format_forecast(told, "toy") == [
        f"about 24 s on 2 trials at once (2 s an epoch, measured in {tmp_path.name}/try)"
    ]


def test_own_rows_go_before_those_of_another_study(tmp_path: Path) -> None:
    study = toy()
    on_record(tmp_path, study, [trial("search", "student", "searched")], [2.0])
    on_record(tmp_path, replace(study, name="another"), [trial("search", "student", "searched")], [9.0])
    pace = read_epoch_times(study, INPUTS, tmp_path, gpus=0)
    assert pace is not None
    assert pace.source.endswith("/toy")


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {"data": {"name": "other", "fingerprint": "other"}}},
        {"cells": [{"student": "wide"}]},
        {"schema": 99},
        {"device": "cuda"},
    ],
)
def test_rows_of_other_data_students_or_devices_are_not_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    on_record(tmp_path, replace(toy(), name="other"), [trial("search", "student", "searched")], [2.0], **changes)
    assert read_epoch_times(toy(), INPUTS, tmp_path, gpus=0) is None


def test_preparations_alone_say_nothing_of_trials(tmp_path: Path) -> None:
    on_record(tmp_path, toy(), [trial("prepare", "", "teacher")], [50.0])
    assert read_epoch_times(toy(), INPUTS, tmp_path, gpus=0) is None


def test_rows_of_another_task_are_not_taken(tmp_path: Path) -> None:
    class Other(Simulated):
        pass

    on_record(tmp_path, toy(task=Other()), [trial("search", "student", "searched")], [2.0])
    assert read_epoch_times(toy(), INPUTS, tmp_path, gpus=0) is None


def test_epochs_of_other_numbers_of_workers_are_no_measure(tmp_path: Path) -> None:
    on_record(tmp_path, toy(), [trial("search", "student", "searched")], [2.0])
    assert read_epoch_times(toy(), INPUTS, tmp_path, gpus=0) is not None
    assert read_epoch_times(toy(workers_per_trial=2), INPUTS, tmp_path, gpus=0) is None


def test_without_any_figure_it_says_how_to_get_one(tmp_path: Path) -> None:
    study = toy()
    assert read_epoch_times(study, INPUTS, tmp_path, gpus=0) is None
    told = forecast_study(study, INPUTS, tmp_path, [], None, 2, 0)
    assert (told.source, told.over) == ("", "")
    assert "hours" not in format_forecast(told, "toy")[0]
    assert "--seconds-per-epoch" in format_forecast(told, "toy")[1]
    assert "--name toy-try" in format_forecast(told, "toy")[1]


# -- studies that have begun -------------------------------------------------------------------------------------------


def begun(study: Study, storage: Path, rows: int) -> None:
    coordinator = open_coordinator(study, storage)
    coordinator.resources = {"gpus": 1.0}
    drive(coordinator, storage, rows=rows)
    described = {"study": describe(study), "inputs": INPUTS, "cells": [], "provenance": {"runs": []}}
    described |= {"schema": SCHEMA_VERSION, "code": {"0" * 16: {}}}
    write_study(storage / study.name, described)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_begun_study_is_priced_by_what_is_left_and_left_as_it_was(tmp_path: Path) -> None:
    study = toy(task=Simulated(seconds_per_epoch=0.001), stopping=Never())
    begun(study, tmp_path, rows=2 + 4 * 6 + 3)
    before = contents(tmp_path)
    told = priced(study, tmp_path, gpus=1)
    assert (told.recorded, told.trials, told.searches) == (4, 11, 5)
    assert told.epochs == 15 * 6 - 4 * 6 - 3
    assert told.gpu_hours == pytest.approx(told.epochs * 10.0 / 3600, rel=1e-9)
    assert format_forecast(told, "toy")[0].startswith("what is left, 11 trials: about ")
    assert contents(tmp_path) == before


def test_folder_that_holds_another_study_counts_as_empty(tmp_path: Path) -> None:
    begun(toy(stopping=Never()), tmp_path, rows=30)
    told = priced(toy(stopping=Never(), seed=5), tmp_path)
    assert (told.recorded, told.trials) == (0, 15)


def test_failed_trials_are_priced_when_they_are_to_be_retried(tmp_path: Path) -> None:
    study = toy((BASELINE, Arm("bad", SimulatedLoss(fault=Fault("exception", epoch=3)))), budget=Budget(1, 6, 2))
    begun(study, tmp_path, rows=1000)
    assert priced(study, tmp_path).epochs == 0
    retried = forecast_study(study, INPUTS, tmp_path, [], assume_epoch_seconds(10.0), 2, 0, retry_failed=True)
    assert (retried.trials, retried.epochs, retried.wall_seconds) == (2, 2 * 4, 40.0)


def test_study_that_stopped_as_hopeless_is_said_to_have_and_why(tmp_path: Path) -> None:
    study = toy((BASELINE, Arm("bad", SimulatedLoss(x=uniform(0, 1), fault=Fault("exception", epoch=1)))))
    begun(study, tmp_path, rows=1000)
    (said,) = format_forecast(priced(study, tmp_path), "toy")
    assert said.startswith("student / bad: its first 4 trials all failed at once, the first with planted failure")
    assert "--retry-failed" in said


def test_finished_study_costs_nothing(tmp_path: Path) -> None:
    begun(toy(), tmp_path, rows=1000)
    told = priced(toy(), tmp_path)
    assert (told.trials, told.epochs, told.wall_seconds, told.gpu_hours) == (0, 0, 0, 0)
    assert format_forecast(told, "toy") == ["nothing is left to train"]


def test_forecast_writes_nothing_below_the_storage(tmp_path: Path) -> None:
    priced(toy(), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# -- in words ----------------------------------------------------------------------------------------------------------


def test_price_is_said_in_one_line() -> None:
    told = Forecast(75, 60, 31, 900, 4200.0, 5.23, 12.34, 4, 0, "measured in runs/lp", "")
    assert format_forecast(told, "lp") == [
        "about 1 h 10 min on 4 trials at once (12.3 s an epoch, measured in runs/lp), 5.2 GPU hours; "
        "halving is expected to stop about 31 of 60 search trials"
    ]
    (with_cost,) = format_forecast(replace(told, usd_per_hour=0.4), "lp")
    assert "5.2 GPU hours, 2.09 USD; halving" in with_cost


def test_forecast_has_the_price_of_the_budget() -> None:
    study = toy(stopping=Never(), budget=Budget(9, 6, 3, usd_per_hour=0.4))
    assert priced(study, slots=1, gpus=1).usd_per_hour == 0.4


@pytest.mark.parametrize(
    ("cap", "said"), [({"wall_hours": 0.1}, "wall_hours 0.1"), ({"gpu_hours": 0.1}, "gpu_hours 0.1")]
)
def test_budget_that_ends_the_study_early_is_said(cap: dict[str, float], said: str) -> None:
    study = toy(stopping=Never(), budget=Budget(9, 6, 3, **cap))  # type: ignore[arg-type]
    told = priced(study, slots=1, gpus=1)
    assert (told.trials, told.epochs) == (15, 92)
    assert said in format_forecast(told, "toy")[1]
    assert not priced(toy(stopping=Never(), budget=Budget(9, 6, 3, wall_hours=1, gpu_hours=1)), slots=1, gpus=1).over


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "0 s"), (42.4, "42 s"), (99.0, "99 s"), (120.0, "2 min"), (59.6 * 60, "1 h 0 min"),
     (4200.0, "1 h 10 min"), (48 * 3600.0, "2 d 0 h"), (100 * 3600.0, "4 d 4 h")],
)  # fmt: skip
def test_duration_is_said_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said
