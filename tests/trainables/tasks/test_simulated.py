"""The simulated task keeps its word: known optimum, paired seeds, planted failures, exact resumption."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import signal
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study import choice, uniform
from study.errors import InputError
from study.task import Plan, TrialNote
from study.trial import EpochResult, Trial, TrialContext
from trainables.tasks import simulated
from trainables.tasks.simulated import Extra, Fault, Simulated, SimulatedLoss, SimulatedStudent

QUIET = Simulated(noise=0.0, seed_effect=0.0)
unit = st.floats(0, 1)


def job_of(
    loss: SimulatedLoss, folder: Path, task: Simulated = QUIET, seed: int = 0, arm: str = "arm", number: int = 0
) -> TrialContext:
    return TrialContext(
        trial=Trial("confirm", "student", arm, number, seed, 8, {}, {}),
        task=task,
        student=SimulatedStudent(),
        loss=loss,
        recipe=task.recipe,
        checkpoint=folder / "checkpoint",
        storage=folder,
        device="cpu",
        recorded_epochs=0,
        train_on="train",
        validate=True,
        test=True,
    )


def rows_of(job: TrialContext) -> list[EpochResult]:
    return list(job.task.train(job))


def last(loss: SimulatedLoss, folder: Path, **changes: Any) -> dict[str, float]:
    task = replace(changes.pop("task", QUIET), checkpoints=False)
    return rows_of(job_of(loss, folder, task, **changes))[-1]["metrics"]


# -- curves ------------------------------------------------------------------------------------------------------------


def test_curve_without_noise_tends_to_score_and_cost(tmp_path: Path) -> None:
    loss = SimulatedLoss(x=0.5, y=0.5, gain=0.05, extra=Extra(0.4))
    assert loss.score == pytest.approx(0.9 + 0.05 - 0.04 - 0.01 + 0.02 - 0.01)
    assert loss.cost == pytest.approx(0.04)
    way = 1 - math.exp(-8 / 3)
    metrics = last(loss, tmp_path)
    assert metrics["val/accuracy"] == pytest.approx(loss.score * way)
    assert metrics["val/cost"] == pytest.approx(1 - (1 - loss.cost) * way)
    assert metrics["test/accuracy"] == metrics["val/accuracy"]


SPACES = [
    SimulatedLoss(x=uniform(0, 1), y=uniform(0, 1)),
    SimulatedLoss(x=uniform(0.5, 1), y=uniform(0, 0.2), gain=0.1),
    SimulatedLoss(x=0.1, y=uniform(0, 1), extra=choice(off=None, on=Extra(uniform(0, 1)))),
    SimulatedLoss(x=uniform(0, 1), extra=choice(off=None, on=Extra(uniform(0.9, 1)))),
]


@given(first=unit, second=unit)
def test_pareto_front_is_x_from_three_to_seven_tenths(first: float, second: float) -> None:
    a, b = SimulatedLoss(x=first), SimulatedLoss(x=second)
    dominates = a.score >= b.score and a.cost <= b.cost and (a.score, a.cost) != (b.score, b.cost)
    if 0.3 <= second <= 0.7:
        assert not dominates
    nearest = SimulatedLoss(x=min(max(second, 0.3), 0.7))
    assert nearest.score >= b.score
    assert nearest.cost <= b.cost


def test_noise_has_its_scale_and_equal_seeds_are_paired(tmp_path: Path) -> None:
    """Of 500 seeds: a deviation of sample deviations is 1/√1000, 3 %; five of them are allowed."""
    task = Simulated(noise=0.01, seed_effect=0.05)
    plain, better = (
        [
            last(SimulatedLoss(gain=gain), tmp_path, task=task, seed=seed, arm=arm)["test/accuracy"]
            for seed in range(500)
        ]
        for gain, arm in ((0.0, "plain"), (0.04, "better"))
    )
    differences = [b - a for a, b in zip(plain, better, strict=True)]
    assert statistics.stdev(plain) == pytest.approx(math.hypot(0.01, 0.05), rel=0.16)
    assert statistics.stdev(differences) == pytest.approx(0.01 * math.sqrt(2), rel=0.16)
    assert statistics.mean(differences) == pytest.approx(0.04 * (1 - math.exp(-8 / 3)), abs=5 * 0.014 / math.sqrt(500))


# -- checkpoints -------------------------------------------------------------------------------------------------------


@given(trained=st.integers(0, 8), recorded=st.integers(0, 8), checkpoints=st.booleans())
def test_resumed_trial_yields_the_results_of_an_uninterrupted_one(
    trained: int, recorded: int, checkpoints: bool
) -> None:
    """`trained` epochs came to their end, of whose rows `recorded` were written down; the process is another."""
    task, loss = Simulated(checkpoints=checkpoints), SimulatedLoss(x=0.1)
    recorded = min(recorded, trained)
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as cut:
        told = rows_of(job_of(loss, Path(whole), task))
        began = list(itertools.islice(task.train(job_of(loss, Path(cut), task)), trained))
        resumed = rows_of(replace(job_of(loss, Path(cut), task), recorded_epochs=recorded))
        assert [*began[:recorded], *resumed] == told
        assert (Path(cut) / "checkpoint").exists() == checkpoints


@pytest.mark.parametrize(("checkpoints", "trained_again"), [(True, 3), (False, 8)])
def test_only_epochs_that_are_not_in_the_checkpoint_take_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: bool, trained_again: int
) -> None:
    naps: list[float] = []
    task = Simulated(seconds_per_epoch=7.0, checkpoints=checkpoints)
    monkeypatch.setattr(simulated.time, "sleep", naps.append)
    list(itertools.islice(task.train(job_of(SimulatedLoss(), tmp_path, task)), 5))
    naps.clear()
    rows = rows_of(replace(job_of(SimulatedLoss(), tmp_path, task), recorded_epochs=5))
    assert naps == [7.0] * trained_again
    assert [row["seconds"] for row in rows] == [7.0] * 3


@pytest.mark.parametrize("damage", [b"3", b"..x.", b"\xff\x00"])
def test_damaged_checkpoint_is_named_and_costs_nothing_but_time(tmp_path: Path, damage: bytes) -> None:
    job = job_of(SimulatedLoss(), tmp_path)
    told = rows_of(job)
    (path,) = job.checkpoint.iterdir()
    path.write_bytes(damage)
    with pytest.warns(TrialNote, match=rf"checkpoint {path} is damaged; the trial restarts from its first epoch"):
        assert rows_of(job) == told


def test_row_without_seconds_costs_well_under_a_millisecond(tmp_path: Path) -> None:
    """In time of this process, the best of five: others on the machine must not count."""
    job = job_of(SimulatedLoss(), tmp_path, Simulated())
    job = replace(job, trial=replace(job.trial, epochs=200))
    fresh = (replace(job, checkpoint=tmp_path / str(number)) for number in itertools.count())
    assert min(timeit.repeat(lambda: rows_of(next(fresh)), timer=time.process_time, number=1, repeat=5)) / 200 < 0.0005


def test_teacher_is_stored_before_its_last_result_is_yielded(tmp_path: Path) -> None:
    task, plan = Simulated(teacher_epochs=2), Plan(((0, "train"),), epochs=1)
    (step,) = task.list_preparations(tmp_path, plan)
    job = replace(job_of(SimulatedLoss(), tmp_path, task), trial=Trial("prepare", "", step.name, 0, 0, 2, {}, {}))
    rows = task.prepare(job)
    next(rows)
    assert task.list_preparations(tmp_path, plan)
    next(rows)
    assert not task.list_preparations(tmp_path, plan)


# -- planted failures --------------------------------------------------------------------------------------------------


def told_before(failure: type[BaseException], job: TrialContext) -> list[int]:
    """The epochs told before the failure."""
    told: list[EpochResult] = []
    with pytest.raises(failure):
        told.extend(job.task.train(job))
    return [row["epoch"] for row in told]


@pytest.mark.parametrize(("kind", "failure"), [("exception", ValueError), ("memory", MemoryError)])
def test_planted_exception_is_raised_at_its_epoch_and_again_when_resumed(
    tmp_path: Path, kind: Any, failure: type[BaseException]
) -> None:
    job = job_of(SimulatedLoss(fault=Fault(kind, epoch=3)), tmp_path)
    assert told_before(failure, job) == [1, 2]
    assert told_before(failure, replace(job, recorded_epochs=2)) == []


def test_nan_comes_at_its_epoch_and_stays(tmp_path: Path) -> None:
    rows = rows_of(job_of(SimulatedLoss(fault=Fault("nan", epoch=3)), tmp_path))
    assert [row["epoch"] for row in rows if math.isnan(row["metrics"]["val/accuracy"])] == [3, 4, 5, 6, 7, 8]
    assert math.isnan(rows[-1]["metrics"]["test/accuracy"])
    assert math.isnan(rows[2]["metrics"]["train/loss"])
    assert math.isfinite(rows[-1]["metrics"]["val/cost"])


def test_hang_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) > 1000:
            raise InterruptedError

    monkeypatch.setattr(simulated.time, "sleep", sleep)
    assert told_before(InterruptedError, job_of(SimulatedLoss(fault=Fault("hang", epoch=3)), tmp_path)) == [1, 2]
    assert all(nap >= 1 for nap in naps[3:])


def test_killed_process_dies_by_sigkill_with_its_checkpoint_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(SimulatedLoss(fault=Fault("killed", epoch=3)), tmp_path)
    process = multiprocessing.get_context("spawn").Process(target=rows_of, args=(job,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    naps: list[float] = []
    monkeypatch.setattr(simulated.time, "sleep", naps.append)
    assert len(rows_of(replace(job, loss=SimulatedLoss()))) == 8
    assert len(naps) == 6


def test_fault_of_one_trial_leaves_others_alone(tmp_path: Path) -> None:
    loss = SimulatedLoss(fault=Fault("nan", trial=2))
    hit = [number for number in range(5) if math.isnan(last(loss, tmp_path, number=number)["val/accuracy"])]
    assert hit == [2]


def test_fault_hits_its_share_of_seeds_and_always_the_same(tmp_path: Path) -> None:
    def hit(share: float) -> set[int]:
        loss = SimulatedLoss(fault=Fault("nan", share=share))
        return {seed for seed in range(400) if math.isnan(last(loss, tmp_path, seed=seed)["val/accuracy"])}

    assert len(hit(0.3)) == pytest.approx(120, abs=5 * math.sqrt(400 * 0.3 * 0.7))
    assert hit(0.1) < hit(0.3)
    assert (len(hit(0.0)), len(hit(1.0))) == (0, 400)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Fault("crash"), "kind is 'crash'; allowed are 'exception', 'nan', 'hang', 'memory', 'killed'"),  # type: ignore[arg-type]
        (lambda: Fault("nan", epoch=0), "epoch 0"),
        (lambda: Fault("nan", share=1.5), "share 1.5"),
        (lambda: Fault("nan", share=math.nan), "share nan"),
    ],
)
def test_fault_that_makes_no_sense_is_refused(made: Callable[[], Fault], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made()
