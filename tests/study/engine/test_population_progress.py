"""A population-based search without Ray: its chains, its schedule, and resume by replay after a cut at any point."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from study import Arm, Budget, Never, PopulationBased, uniform
from study.engine.coordinator import Coordinator
from study.engine.search_progress import Proposal
from study.engine.trials import make_refused_trial
from study.errors import InputError
from study.execution.worker_context import WorkerContext
from study.records.rows import RunningTrial
from study.study import Study
from study.trial import EpochResult, Link
from tests.study import toy
from trainables.tasks.moving import MovingLoss, MovingOptimum

pytestmark = pytest.mark.usefixtures("records_in_memory")

MEMBERS, EPOCHS = 5, 8
PLAIN = Arm("plain", MovingLoss(), baseline=True)
SPACE = MovingLoss(x=uniform(0, 1), y=uniform(0, 1))


def make_study(arms: tuple[Arm, ...] = (), trials: int = MEMBERS, **changes: Any) -> Study:
    search = PopulationBased(interval_epochs=3, quantile=0.4, perturb=0.2, resample=0.25)
    dynamic = Arm("dynamic", SPACE, search=search)
    return toy.toy(
        (PLAIN, *(arms or (dynamic,))), task=MovingOptimum(), budget=Budget(trials, EPOCHS, seeds=2), **changes
    )


def open_coordinator(study: Study, folder: Path, *more: Any, **options: Any) -> Coordinator:
    """Return a Coordinator over the rows in the folder, which keeps new rows in memory until it must write them."""
    coordinator = toy.open_coordinator(study, folder, *more, **options)
    coordinator.writer.flush_seconds = 1e9
    return coordinator


def train(coordinator: Coordinator, run: RunningTrial, folder: Path) -> Iterator[EpochResult]:
    """Yield a trial's epochs as a worker trains them, from a copy of its parent's checkpoint."""
    study = coordinator.study
    job = toy.job_of(study, run, folder)
    WorkerContext(folder / study.name, folder).inherit_checkpoint(job)
    return study.task.train(job)


def delete_checkpoints(coordinator: Coordinator, folder: Path) -> None:
    """Delete what is obsolete by rows on disk, as the executor does."""
    context = WorkerContext(folder / coordinator.study.name, folder)
    for one in coordinator.writer.pop_obsolete():
        context.discard_checkpoint(one.trial_id)


def drive(coordinator: Coordinator, folder: Path, epochs: int | None = None) -> bool:
    """Run trials one after the other, at most `epochs` epochs; return whether the coordinator came to its end."""
    while (run := coordinator.next_trial()) is not None:
        for row in train(coordinator, run, folder):
            if epochs is not None:
                if epochs == 0:
                    return False
                epochs -= 1
            ended = coordinator.report(run.trial.id, row, "here:1")
            delete_checkpoints(coordinator, folder)
            if ended:
                break
    return True


def read_rows(coordinator: Coordinator, phase: str = "search", arm: str = "dynamic") -> list[dict[str, Any]]:
    coordinator.writer.flush()
    rows = coordinator.writer.records.trials.read_rows()
    return sorted(
        (row for row in rows if (row["phase"], row["arm"]) == (phase, arm)), key=lambda row: int(row["number"])
    )


def list_outcomes(coordinator: Coordinator) -> list[tuple[Any, ...]]:
    names = ("trial_id", "phase", "number", "state", "reason", "params", "config", "epochs_done", "parent", "member")
    coordinator.writer.flush()
    rows = coordinator.writer.records.trials.read_rows()
    return sorted(tuple(row[name] for name in (*names, "val/accuracy", "test/accuracy")) for row in rows)


def list_optuna_trials(journal: optuna.storages.BaseStorage) -> list[tuple[Any, ...]]:
    search = optuna.load_study(study_name="student / dynamic", storage=journal)
    return [
        (trial.state, trial.params, trial.values, trial.intermediate_values, trial.user_attrs)
        for trial in search.trials
    ]


@pytest.fixture
def whole(tmp_path: Path) -> Coordinator:
    coordinator = open_coordinator(make_study(), tmp_path, optuna.storages.InMemoryStorage())
    assert drive(coordinator, tmp_path)
    assert coordinator.done
    coordinator.writer.flush()
    delete_checkpoints(coordinator, tmp_path)
    return coordinator


def test_members_are_chains_of_links_that_train_the_budget_and_no_more(whole: Coordinator) -> None:
    rows = read_rows(whole)
    assert [(row["member"], row["start_epoch"], row["end_epoch"]) for row in rows] == [
        (member, start, end) for start, end in ((0, 3), (3, 6), (6, 8)) for member in range(MEMBERS)
    ]
    assert sum(row["epochs_done"] for row in rows) == MEMBERS * EPOCHS
    by_id = {row["trial_id"]: row for row in rows}
    assert all(by_id[row["parent"]]["end_epoch"] == row["start_epoch"] for row in rows if row["parent"])
    assert any(by_id[row["parent"]]["member"] != row["member"] for row in rows if row["parent"])
    seeds = {row["member"]: row["seed"] for row in rows}
    assert all(row["seed"] == seeds[row["member"]] for row in rows)


def test_a_chain_scores_what_an_undisturbed_run_of_its_schedule_scores(tmp_path: Path) -> None:
    """The copies are of the parents' checkpoints at the epoch at which the chain leaves them."""
    study = make_study(seed=5)  # one whose best chain changes at each interval
    coordinator = open_coordinator(replace(study, task=MovingOptimum(noise=0.0, seed_effect=0.0)), tmp_path)
    drive(coordinator, tmp_path)
    rows = {row["trial_id"]: row for row in read_rows(coordinator)}
    best = max((row for row in rows.values() if row["end_epoch"] == EPOCHS), key=lambda row: row["val/accuracy"])
    confirmed = read_rows(coordinator, "confirm")
    assert [row["test/accuracy"] for row in confirmed] == pytest.approx([best["val/accuracy"]] * 2)
    chain = [best]
    while chain[0]["parent"]:
        chain.insert(0, rows[chain[0]["parent"]])
    x = [json.loads(row["params"])["x"] for row in chain]
    assert x[0] != x[1] != x[2]
    assert json.loads(confirmed[0]["params"])["x"] == [x[0]] * 3 + [x[1]] * 3 + [x[2]] * 2
    assert confirmed[0]["params.x"] is None
    assert confirmed[0]["parent"] is None
    assert json.loads(confirmed[0]["config"])["loss"]["x"]["is"] == "Values"


def test_confirm_shares_seeds_with_other_arms(whole: Coordinator) -> None:
    assert [row["seed"] for row in read_rows(whole, "confirm")] == [
        row["seed"] for row in read_rows(whole, "confirm", "plain")
    ]


@pytest.mark.parametrize("stop_after", [0, 1, 10, 17, 39, 41])
def test_resumed_search_equals_one_never_interrupted(tmp_path: Path, stop_after: int) -> None:
    whole = open_coordinator(make_study(), tmp_path / "whole", whole_journal := optuna.storages.InMemoryStorage())
    drive(whole, tmp_path / "whole")
    cut = open_coordinator(make_study(), tmp_path / "cut")
    drive(cut, tmp_path / "cut", stop_after)
    resumed = open_coordinator(make_study(), tmp_path / "cut", cut_journal := optuna.storages.InMemoryStorage())
    assert drive(resumed, tmp_path / "cut")
    assert list_outcomes(resumed) == list_outcomes(whole)
    assert list_optuna_trials(cut_journal) == list_optuna_trials(whole_journal)


def test_optuna_gets_each_link_with_its_parent_and_its_own_epochs(whole: Coordinator, tmp_path: Path) -> None:
    open_coordinator(make_study(), tmp_path, journal := optuna.storages.InMemoryStorage())
    for row, (state, params, values, reported, about) in zip(
        read_rows(whole), list_optuna_trials(journal), strict=True
    ):
        assert (state.name, params, values) == ("COMPLETE", json.loads(row["params"]), [row["val/accuracy"]])
        assert [*reported] == [*range(row["start_epoch"] + 1, row["end_epoch"] + 1)]
        assert about == {name: row[name] for name in ("trial_id", "member", "start_epoch", "end_epoch", "parent")}


def test_checkpoints_of_search_are_gone_when_it_is_done(whole: Coordinator, tmp_path: Path) -> None:
    left = {path.name for path in (tmp_path / "toy" / "checkpoints").iterdir()}
    assert left == {row["trial_id"] for row in whole.writer.records.trials.read_rows() if row["phase"] == "confirm"}


def run_in_random_order(study: Study, folder: Path, rng: random.Random) -> Coordinator:
    """Run a study on a random number of places; kills lose rows in memory, and workers lose trials."""
    coordinator, places = open_coordinator(study, folder), rng.randint(1, 6)
    running: dict[str, tuple[RunningTrial, Iterator[EpochResult]]] = {}
    for _ in itertools.count():
        while len(running) < places and (run := coordinator.next_trial()) is not None:
            running[run.trial.id] = run, train(coordinator, run, folder)
        if not running:
            return coordinator
        event, trial_id = rng.random(), rng.choice([*running])
        if event < 0.1:
            coordinator.writer.flush()
            delete_checkpoints(coordinator, folder)
        elif event < 0.14:
            coordinator, running = open_coordinator(study, folder), {}
        elif event < 0.18:
            del running[trial_id]
            coordinator.requeue(trial_id)
        elif coordinator.report(trial_id, next(running[trial_id][1]), ""):
            del running[trial_id]
    raise AssertionError


@pytest.mark.parametrize("lag", [1, 3, MEMBERS])
def test_reproducible_search_is_the_same_in_every_order_and_after_kills(tmp_path: Path, lag: int) -> None:
    study = make_study(reproducible_search=lag)
    first, *others = (
        list_outcomes(run_in_random_order(study, tmp_path / str(order), random.Random(order))) for order in range(6)
    )
    assert all(other == first for other in others)


def test_any_order_and_kills_end_with_whole_chains_and_no_checkpoint(tmp_path: Path) -> None:
    for order in range(6):
        folder = tmp_path / str(order)
        coordinator = run_in_random_order(make_study(), folder, random.Random(order))
        coordinator.writer.flush()
        delete_checkpoints(coordinator, folder)
        rows = {row["trial_id"]: row for row in read_rows(coordinator)}
        assert coordinator.done
        assert sum(row["epochs_done"] for row in rows.values()) == MEMBERS * EPOCHS
        left = {path.name for path in (folder / "toy" / "checkpoints").iterdir()}
        assert not left & rows.keys()
        assert len(left) == 2 * 2  # confirmed students


def test_lost_rows_of_a_parent_supersede_what_descends_from_it(tmp_path: Path) -> None:
    coordinator = open_coordinator(make_study(), tmp_path)
    drive(coordinator, tmp_path, 32)
    lost = read_rows(coordinator)[0]
    records = coordinator.writer.records
    children = [row["trial_id"] for row in read_rows(coordinator) if row["parent"] == lost["trial_id"]]
    records.trials.append({**lost, "epochs_done": 99})  # more than there are rows of epochs
    records.flush()
    states = {row["trial_id"]: row["state"] for row in read_rows(open_coordinator(make_study(), tmp_path))}
    assert states[lost["trial_id"]] == "SUPERSEDED"
    assert {states[child] for child in children} == {"SUPERSEDED"}


def test_failed_member_is_replaced_and_not_tried_again(tmp_path: Path) -> None:
    coordinator = open_coordinator(make_study(), tmp_path)
    for _ in range(MEMBERS):
        run = coordinator.next_trial()
        while run is not None and run.trial.arm != "dynamic":
            for row in train(coordinator, run, tmp_path):
                coordinator.report(run.trial.id, row, "")
            run = coordinator.next_trial()
        assert run is not None
        if run.trial.number == 2:
            coordinator.fail(run.trial.id, "planted")
            continue
        for row in train(coordinator, run, tmp_path):
            if coordinator.report(run.trial.id, row, ""):
                break
    drive(coordinator, tmp_path)
    rows = read_rows(coordinator)
    assert [row["state"] for row in rows].count("FAILED") == 1
    assert rows[MEMBERS + 2]["parent"] not in ("", rows[2]["trial_id"])
    assert coordinator.done
    assert open_coordinator(make_study(), tmp_path, retry_failed=True).done


def test_failed_link_that_is_tried_again_copies_its_parent_again(tmp_path: Path) -> None:
    coordinator = open_coordinator(make_study(), tmp_path)
    run = coordinator.next_trial()
    while run is not None and not (run.trial.link and run.trial.link.parent):
        for row in train(coordinator, run, tmp_path):
            if coordinator.report(run.trial.id, row, ""):
                break
        run = coordinator.next_trial()
    assert run is not None
    job = toy.job_of(coordinator.study, run, tmp_path)
    context = WorkerContext(tmp_path / "toy", tmp_path)
    context.inherit_checkpoint(job)
    whole = {path.name: path.read_bytes() for path in job.checkpoint.iterdir()}
    for path in job.checkpoint.glob("*[!t]"):  # but for the mark that the copy is whole
        path.write_bytes(b"damaged")
    coordinator.fail(run.trial.id, "it holds epoch 0")
    coordinator.writer.flush()
    reopened = open_coordinator(make_study(), tmp_path, retry_failed=True)
    (again,) = reopened.queue.resumable
    assert (again.trial, again.start_over) == (run.trial, True)
    context.reset_checkpoint(again.trial.id)
    context.inherit_checkpoint(job)
    assert {path.name: path.read_bytes() for path in job.checkpoint.iterdir()} == whole
    drive(reopened, tmp_path)
    assert reopened.done


def report_epochs(coordinator: Coordinator, run: RunningTrial, score: float) -> None:
    """Report a link's epochs with this score."""
    trial, metrics = run.trial, {"train/loss": 0.0, "val/accuracy": score, "val/cost": 1 - score}
    for epoch in range(trial.start_epoch + 1, trial.end_epoch + 1):
        coordinator.report(trial.id, EpochResult(epoch=epoch, metrics=metrics, schedules={}, seconds=0.0), "")


def start_link(coordinator: Coordinator) -> RunningTrial:
    run = coordinator.next_trial()
    assert run is not None
    assert run.trial.link is not None
    return run


def test_replay_releases_no_checkpoint_before_all_links_are_known(tmp_path: Path) -> None:
    arm = Arm("dynamic", SPACE, search=PopulationBased(interval_epochs=4, quantile=0.5))
    study = make_study((arm,), trials=3)
    coordinator = open_coordinator(study, tmp_path)
    first, weak, late = (start_link(coordinator) for _ in range(3))
    report_epochs(coordinator, first, 0.5)
    report_epochs(coordinator, weak, 0.1)
    own, copy = start_link(coordinator), start_link(coordinator)
    assert (own.trial.number, copy.trial.number) == (3, 4)
    assert own.trial.link.parent == copy.trial.link.parent == first.trial.id  # type: ignore[union-attr]
    report_epochs(coordinator, late, 0.9)  # the best, so that only the copy still needs the first
    report_epochs(coordinator, own, 0.5)
    (ended,) = (row for row in read_rows(coordinator) if row["number"] == 3)
    records = coordinator.writer.records
    records.trials.append({**ended, "state": "RUNNING", "ended": None})  # cut off before the row of its end
    records.flush()
    resumed = open_coordinator(study, tmp_path)
    assert resumed.cells["student / dynamic"].search.ended.keys() == {0, 1, 2, 3}
    obsolete = {one.trial_id for one in resumed.writer.pop_obsolete()}
    assert first.trial.id not in obsolete
    assert weak.trial.id in obsolete


def end_search(coordinator: Coordinator, folder: Path, last: str) -> str:
    """Run a search whose last interval fails or is skipped; return the problem of its cell."""
    while (run := coordinator.next_trial()) is not None:
        in_last = run.trial.phase == "search" and run.trial.end_epoch == EPOCHS
        if in_last and last == "failed":
            coordinator.fail(run.trial.id, "planted")
            continue
        coordinator.skips = frozenset({run.trial.id} if in_last else ())
        for row in train(coordinator, run, folder):
            if coordinator.report(run.trial.id, row, ""):
                break
    (problem,) = coordinator.problems
    return problem


@pytest.mark.parametrize(
    ("last", "words"),
    [("failed", "5 failed, the first with planted"), ("skipped", "5 stopped early or skipped by hand")],
)
def test_problem_names_the_interval_that_no_member_completed(tmp_path: Path, last: str, words: str) -> None:
    problem = end_search(open_coordinator(make_study(), tmp_path), tmp_path, last)
    assert problem == f"student / dynamic: no member of its population completed interval 3 of 3: {words}"


def test_equal_epochs_are_the_default_and_the_most(tmp_path: Path) -> None:
    study = make_study(trials=7)
    (cell,) = (cell for cell in study.cells if cell.is_searched)
    assert study.count_search_runs(cell) == 7
    few = make_study((Arm("dynamic", SPACE, search=PopulationBased(population=9)),), trials=4)
    assert [few.count_search_runs(cell) for cell in few.cells] == [0, 4]


def test_arms_that_a_population_cannot_search_are_refused() -> None:
    with pytest.raises(InputError, match="objectives"):
        make_study(objectives=("val/cost",), stopping=Never())
    with pytest.raises(InputError, match="search is 'PBT'; allowed are PopulationBased"):
        make_study((Arm("dynamic", SPACE, search="PBT"),))  # type: ignore[arg-type]


def test_refused_links_of_a_member_are_trials_of_their_own() -> None:
    study = make_study()
    cell = study.cells[1]
    links = [Link(0, 0, 3, ""), Link(0, 3, 6, "a")]
    trials = [make_refused_trial(study, cell, Proposal(number, {}, link), "no") for number, link in enumerate(links)]
    assert len({trial.id for trial in trials}) == 2
