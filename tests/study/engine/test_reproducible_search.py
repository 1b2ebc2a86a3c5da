"""A reproducible search: one set of proposals and stops, whichever trial reports first, on any number of places."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from study import Arm, Budget, CmaEs, SuccessiveHalving, Tpe, choice, uniform
from study.engine.coordinator import Coordinator
from study.errors import InputError
from study.records.rows import RunningTrial
from study.search.samplers import Sampler
from study.study import Study
from study.trial import EpochResult
from tests.study.folder import Folder
from tests.study.toy import BASELINE, job_of, open_coordinator, toy
from trainables.tasks.simulated import Extra, Fault, Simulated, SimulatedLoss

pytestmark = pytest.mark.usefixtures("records_in_memory")

SPACE = """
import os, random, time
from study import Arm, Budget, Study, SuccessiveHalving, Tpe, uniform
from trainables import Simulated, SimulatedLoss, SimulatedStudent

class Busy(Simulated):
    def train(self, context):
        seconds = random.Random(f"{os.environ['LOAD']} {context.trial.number}").expovariate(4)
        for row in super().train(context):
            time.sleep(seconds)
            yield row

study = Study(
    name="toy", question="?", task=Busy(teacher_epochs=0), students=(SimulatedStudent(),),
    arms=(Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True),
          Arm("searched", SimulatedLoss(x=uniform(0, 1)))),
    budget=Budget(trials=10, epochs=4, seeds=1), sampler=Tpe(startup_trials=2),
    stopping=SuccessiveHalving(min_epochs=1, reduction=2),
)
"""
FAILING = Fault("exception", epoch=2, share=0.2)
BRANCHES = choice(none=None, some=Extra(z=uniform(0, 1)))
SPACES: dict[Sampler, SimulatedLoss] = {
    Tpe(startup_trials=2, candidates=8): SimulatedLoss(x=uniform(0, 1), extra=BRANCHES, fault=FAILING),
    CmaEs(population=4): SimulatedLoss(x=uniform(0, 1), y=uniform(0, 1), fault=FAILING),
}


def make_study(sampler: Sampler, reproducible_search: int | None = 3) -> Study:
    return toy(
        (BASELINE, Arm("searched", SPACES[sampler])),
        task=Simulated(teacher_epochs=0, checkpoints=False),
        budget=Budget(trials=14, epochs=8, seeds=1),
        stopping=SuccessiveHalving(min_epochs=1, reduction=2),
        sampler=sampler,
        reproducible_search=reproducible_search,
    )


def run_in_random_order(study: Study, folder: Path, rng: random.Random) -> Coordinator:
    """Run a study on a random number of places of random speeds; kills lose rows, and workers lose trials."""
    coordinator, places = open_coordinator(study, folder), rng.randint(1, 6)
    running: dict[str, tuple[RunningTrial, Iterator[EpochResult], float]] = {}
    while True:
        coordinator.writer.flush_seconds = 1e9
        while len(running) < places and (run := coordinator.next_trial()) is not None:
            epochs = iter(study.task.train(job_of(study, run, folder)))
            running[run.trial.id] = run, epochs, rng.lognormvariate(0, 2)
        if not running:
            return coordinator
        event, trial_id = rng.random(), rng.choices([*running], [speed for *_, speed in running.values()])[0]
        if event < 0.1:
            coordinator.writer.flush()
        elif event < 0.12:
            coordinator, running = open_coordinator(study, folder), {}
        elif event < 0.14:
            del running[trial_id]
            coordinator.requeue(trial_id)
        elif _train_epoch(coordinator, *running[trial_id][:2]):
            del running[trial_id]


def _train_epoch(coordinator: Coordinator, run: RunningTrial, epochs: Iterator[EpochResult]) -> bool:
    """Train one epoch of a trial; return whether the trial has ended."""
    try:
        return coordinator.report(run.trial.id, next(epochs), "")
    except ValueError as error:
        coordinator.fail(run.trial.id, str(error))
        return True


def list_outcomes(coordinator: Coordinator) -> list[tuple[Any, ...]]:
    coordinator.writer.flush()
    kept = ("phase", "number", "params", "trial_id", "state", "reason", "epochs_done", "val/accuracy", "test/accuracy")
    return sorted(tuple(map(row.get, kept)) for row in coordinator.writer.records.trials.read_rows())


@pytest.mark.parametrize("orders", [6, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sampler", SPACES, ids=lambda sampler: type(sampler).__name__)
def test_proposals_and_stops_are_the_same_in_every_order(tmp_path: Path, sampler: Sampler, orders: int) -> None:
    study = make_study(sampler)
    first, *others = (
        list_outcomes(run_in_random_order(study, tmp_path / str(order), random.Random(order)))
        for order in range(orders)
    )
    assert {row[4] for row in first} == {"COMPLETE", "PRUNED", "FAILED"}
    assert all(other == first for other in others)


def test_without_it_they_depend_on_the_order(tmp_path: Path) -> None:
    study = make_study(next(iter(SPACES)), None)
    runs = (run_in_random_order(study, tmp_path / str(order), random.Random(order)) for order in range(3))
    assert len({str(list_outcomes(run)) for run in runs}) > 1


def test_at_most_so_many_trials_of_a_cell_run_at_once(tmp_path: Path) -> None:
    coordinator = open_coordinator(make_study(next(iter(SPACES)), 3), tmp_path)
    started = [run.trial.phase for _ in range(9) if (run := coordinator.next_trial()) is not None]
    assert started.count("search") == 3


@pytest.mark.slow
def test_same_command_gives_the_same_rows_under_other_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for load, places in (("one", "2"), ("other", "1")):
        folder = Folder(tmp_path / f"{load}-{places}")
        folder.path.mkdir()
        folder.space.write_text(SPACE)
        monkeypatch.setenv("LOAD", load)
        done = folder.run("--reproducible-search", "2", "--max-concurrent", places)
        assert done.returncode == 0, done.stderr
        trials = folder.trials().sort_values(["phase", "cell", "number"])
        found.append(
            trials[["trial_id", "params", "state", "reason", "val/accuracy", "test/accuracy"]].to_csv(index=False)
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("count", [0, True, 2.0])
def test_bad_number_is_refused(count: Any) -> None:
    with pytest.raises(InputError, match=r"reproducible_search is .*; allowed is a whole number, at least 1, or None"):
        toy(reproducible_search=count)
