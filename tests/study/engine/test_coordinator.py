"""The coordinator without Ray: order of phases, fairness of seeds, failures, and resume by replay."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study import Arm, Budget, Never, uniform
from study.engine import replay
from study.engine.coordinator import Coordinator
from study.engine.replay import MADE, NOT_NEEDED
from study.errors import InputError
from study.trial import TrialState
from tests.study.toy import BASELINE, SEARCHED, drive, flush_each, job_of, open_coordinator, toy
from trainables.tasks.simulated import Fault, Simulated, SimulatedLoss


def trials(coordinator: Coordinator) -> list[dict]:
    return coordinator.writer.records.trials.read_rows()


def epochs(coordinator: Coordinator) -> list[dict]:
    return coordinator.writer.records.epochs.read_rows()


def test_flow_runs_every_phase_to_its_end(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(), tmp_path)
    assert drive(coordinator, tmp_path)
    assert coordinator.done
    assert not coordinator.problems
    by_phase = {
        phase: [row for row in trials(coordinator) if row["phase"] == phase]
        for phase in ("prepare", "search", "confirm")
    }
    assert [len(rows) for rows in by_phase.values()] == [1, 9, 6]
    assert {row["state"] for row in by_phase["search"]} == {"COMPLETE", "PRUNED"}
    assert all(row["state"] == "COMPLETE" for row in by_phase["confirm"])


def test_confirm_shares_seeds_across_arms_and_search_does_not_use_them(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(), tmp_path)
    drive(coordinator, tmp_path)
    seeds = {
        arm: [row["seed"] for row in trials(coordinator) if row["phase"] == "confirm" and row["arm"] == arm]
        for arm in ("plain", "searched")
    }
    assert seeds["plain"] == seeds["searched"]
    assert len(set(seeds["plain"])) == 3
    assert not {row["seed"] for row in trials(coordinator) if row["phase"] == "search"} & set(seeds["plain"])


def test_test_split_is_read_only_in_confirm_and_only_at_the_last_epoch(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(), tmp_path)
    drive(coordinator, tmp_path)
    read = [(row["phase"], row["epoch"]) for row in epochs(coordinator) if row["test/accuracy"] is not None]
    assert read == [("confirm", 6)] * 6


def test_confirm_takes_the_best_completed_search_trial(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(), tmp_path)
    drive(coordinator, tmp_path)
    complete = [row for row in trials(coordinator) if row["phase"] == "search" and row["state"] == "COMPLETE"]
    best = max(complete, key=lambda row: row["val/accuracy"])
    confirmed = {row["params"] for row in trials(coordinator) if row["phase"] == "confirm" and row["arm"] == "searched"}
    assert confirmed == {best["params"]}


def test_arm_without_teacher_does_not_wait_for_it(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(), tmp_path)
    first, second = coordinator.next_trial(), coordinator.next_trial()
    assert first is not None
    assert second is not None
    assert (first.trial.phase, second.trial.phase, second.trial.arm) == ("prepare", "confirm", "plain")


def test_a_cell_goes_to_confirm_while_another_still_searches(tmp_path: Path) -> None:
    quick = Arm("quick", SimulatedLoss(), baseline=True)
    coordinator = open_coordinator(toy((quick, SEARCHED)), tmp_path)
    order: list[tuple[str, str]] = []
    running = []
    while len(order) < 12:  # two workers: one starts what the other's end did not allow yet
        run = coordinator.next_trial()
        if run is None:
            drive_one(coordinator, running.pop(0), tmp_path)
            continue
        order.append((run.trial.phase, run.trial.arm))
        running.append(run)
    assert ("confirm", "quick") in order[:13]


def drive_one(coordinator: Coordinator, run, folder: Path) -> None:  # type: ignore[no-untyped-def]
    from tests.study.toy import job_of

    job = job_of(coordinator.study, run, folder)
    for row in job.task.prepare(job) if run.trial.phase == "prepare" else job.task.train(job):
        if coordinator.report(run.trial.id, row, "here:1"):
            return


def test_failed_trial_costs_one_row_and_the_study_goes_on(tmp_path: Path) -> None:
    coordinator = open_coordinator(
        toy((BASELINE, Arm("bad", SimulatedLoss(fault=Fault("exception", epoch=2))))), tmp_path
    )
    assert drive(coordinator, tmp_path)
    failed = [row for row in trials(coordinator) if row["state"] == "FAILED"]
    assert len(failed) == 3
    assert failed[0]["reason"] == "planted failure in epoch 2"
    assert failed[0]["epochs_done"] == 1
    assert not coordinator.done
    assert coordinator.problems == ["student / bad: 3 of 3 seeds failed, the first with planted failure in epoch 2"]


@pytest.mark.parametrize("rows", [0, 1, 20])
def test_study_that_was_cut_off_has_work(tmp_path: Path, rows: int) -> None:
    assert not drive(open_coordinator(toy(), tmp_path), tmp_path, rows)
    assert not open_coordinator(toy(), tmp_path).has_no_work
    assert drive(open_coordinator(toy(), tmp_path), tmp_path)
    assert open_coordinator(toy(), tmp_path).has_no_work


def test_search_without_a_completed_trial_is_a_problem_not_a_hang(tmp_path: Path) -> None:
    bad = Arm("bad", SimulatedLoss(x=uniform(0, 1), fault=Fault("exception", epoch=2)))
    coordinator = open_coordinator(toy((BASELINE, bad)), tmp_path)
    assert drive(coordinator, tmp_path)
    assert coordinator.problems == [
        "student / bad: none of its 9 search trials completed: 7 failed, the first with planted failure in epoch 2, "
        "2 stopped early or skipped by hand"
    ]


def test_search_whose_trials_were_all_skipped_says_so(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(), tmp_path)

    def skip(run, row) -> None:  # type: ignore[no-untyped-def]
        coordinator.skips = frozenset({run.trial.id} if run.trial.phase == "search" else ())

    assert drive(coordinator, tmp_path, each=skip)
    assert coordinator.problems == [
        "student / searched: none of its 9 search trials completed: 9 stopped early or skipped by hand"
    ]


def test_score_that_is_not_finite_fails_the_trial(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(task=Simulated(noise=float("nan"), teacher_epochs=0)), tmp_path)
    assert drive(coordinator, tmp_path)
    reasons = {row["reason"] for row in trials(coordinator) if row["phase"] == "search"}
    assert reasons == {"val/accuracy is nan in epoch 1"}


@pytest.mark.parametrize(
    "stop_after", [0, 3, 21, 40, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2, 5, 8, 13, 30, 55))]
)
def test_resumed_study_equals_one_never_interrupted(tmp_path: Path, stop_after: int) -> None:
    """Whatever was in memory is lost: only flushed rows and checkpoints are there when the second coordinator opens."""
    whole = open_coordinator(toy(), tmp_path / "whole", whole_journal := optuna.storages.InMemoryStorage())
    drive(whole, tmp_path / "whole")
    cut = open_coordinator(toy(), tmp_path / "cut")
    drive(cut, tmp_path / "cut", rows=stop_after)
    resumed = open_coordinator(toy(), tmp_path / "cut", cut_journal := optuna.storages.InMemoryStorage())
    drive(resumed, tmp_path / "cut")
    assert outcome(resumed) == outcome(whole)
    assert optuna_view(cut_journal) == optuna_view(whole_journal)


@pytest.mark.parametrize("teacher_epochs", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("unflushed", [False, True])
def test_preparation_whose_files_are_made_gets_its_row_though_a_kill_took_its_last_ones(
    tmp_path: Path, teacher_epochs: int, share: float, unflushed: bool
) -> None:
    study = toy(task=Simulated(teacher_epochs=teacher_epochs))
    cut = open_coordinator(study, tmp_path)
    cut.writer.flush_seconds = 1e9 if unflushed else 0.0
    run = cut.next_trial()
    assert run is not None
    assert run.trial.phase == "prepare"
    for row in study.task.prepare(job_of(study, run, tmp_path)):
        if row["epoch"] <= share * (teacher_epochs - 1):
            cut.report(run.trial.id, row, "here:1")

    resumed = open_coordinator(study, tmp_path)
    assert resumed.queue.preparations == []
    assert drive(resumed, tmp_path)
    assert resumed.done
    (prepared,) = (row for row in trials(resumed) if row["phase"] == "prepare")
    assert (prepared["state"], prepared["reason"]) == ("COMPLETE", MADE)
    assert drive(open_coordinator(study, tmp_path), tmp_path)
    assert [row for row in trials(resumed) if row["phase"] == "prepare"] == [prepared]


def test_preparation_that_is_no_longer_needed_gets_no_result(tmp_path: Path) -> None:
    cut = open_coordinator(toy(), tmp_path)
    assert cut.next_trial() is not None
    changed = open_coordinator(toy(task=Simulated(teacher_epochs=7)), tmp_path)
    (old,) = (row for row in trials(changed) if row["phase"] == "prepare")
    assert (old["state"], old["reason"]) == ("SUPERSEDED", NOT_NEEDED)


def outcome(coordinator: Coordinator) -> tuple:
    kept = ("trial_id", "cell", "phase", "number", "seed", "state", "reason", "params", "epochs_done", "val/accuracy")
    # what is prepared is kept by content: killed between making and telling, a study does not need it any more
    rows = sorted(tuple(row[name] for name in kept) for row in trials(coordinator) if row["phase"] != "prepare")
    told = [row for row in epochs(coordinator) if row["phase"] != "prepare"]
    seen = [(row["trial_id"], row["epoch"], row["val/accuracy"], row["test/accuracy"]) for row in told]
    assert len({row[:2] for row in seen}) == len(seen)
    return rows, sorted(seen, key=str)


def optuna_view(storage: optuna.storages.InMemoryStorage) -> list:
    study = optuna.load_study(study_name="student / searched", storage=storage)
    return [(t.number, t.state, t.params, t.values, t.intermediate_values) for t in study.trials]


def test_optuna_sees_pruned_trials_as_pruned_with_every_intermediate_value(tmp_path: Path) -> None:
    storage = optuna.storages.InMemoryStorage()
    coordinator = open_coordinator(toy(), tmp_path, storage)
    drive(coordinator, tmp_path)
    study = optuna.load_study(study_name="student / searched", storage=storage)
    rows = {row["number"]: row for row in trials(coordinator) if row["phase"] == "search"}
    pruned = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.PRUNED]
    assert pruned
    assert {rows[trial.number]["state"] for trial in pruned} == {"PRUNED"}
    for trial in study.trials:
        assert len(trial.intermediate_values) == rows[trial.number]["epochs_done"]


def test_interrupted_trials_are_not_told_and_go_first_afterwards(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(), tmp_path)
    drive(coordinator, tmp_path, rows=4)
    coordinator.interrupt("Ctrl-C")
    (row,) = (row for row in trials(coordinator) if row["state"] == TrialState.INTERRUPTED)
    resumed = open_coordinator(toy(), tmp_path)
    run = resumed.next_trial()
    assert run is not None
    assert run.trial.id == row["trial_id"]
    assert run.epochs_done == row["epochs_done"]


def test_rows_told_twice_by_a_restarted_worker_count_once(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(stopping=Never()), tmp_path)
    drive(
        coordinator,
        tmp_path,
        each=lambda run, row: coordinator.report(run.trial.id, row, "here:1") if row["epoch"] == 1 else None,
    )
    assert len(epochs(coordinator)) == 2 + 9 * 6 + 6 * 6


def test_equal_seeds_give_equal_proposals_and_other_seeds_others(tmp_path: Path) -> None:
    def proposals(seed: int, folder: str) -> list[str]:
        coordinator = open_coordinator(toy(seed=seed), tmp_path / folder)
        drive(coordinator, tmp_path / folder)
        return [row["params"] for row in trials(coordinator) if row["phase"] == "search"]

    assert proposals(0, "a") == proposals(0, "b") != proposals(1, "c")


def test_proposal_that_a_loss_refuses_is_a_failed_trial_not_the_end(tmp_path: Path) -> None:
    """x and gain are fine at both ends of their domains, and not together in half of them."""
    arm = Arm("picky", PickyLoss(x=uniform(0, 1), gain=uniform(0, 1)))
    coordinator = open_coordinator(toy((BASELINE, arm)), tmp_path)
    assert drive(coordinator, tmp_path)
    states = {row["state"] for row in trials(coordinator) if row["phase"] == "search"}
    assert "FAILED" in states
    assert "COMPLETE" in states
    reopened = open_coordinator(toy((BASELINE, arm)), tmp_path)
    assert reopened.next_trial() is None
    assert reopened.done


@dataclass(frozen=True)
class PickyLoss(SimulatedLoss):
    def __post_init__(self) -> None:
        if isinstance(self.x, float) and isinstance(self.gain, float) and 0 < self.x < self.gain < 1:
            raise InputError(f"x is {self.x}, below gain")


def test_checkpoints_that_a_killed_driver_left_are_deleted_by_the_next(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(), tmp_path)
    drive(coordinator, tmp_path, rows=40)  # and is killed before it deletes any
    ended = [row for row in trials(coordinator) if TrialState(row["state"]).is_finished]
    searched = {row["trial_id"] for row in ended if row["phase"] == "search"}
    assert searched
    assert searched < {row["trial_id"] for row in ended}
    resumed = open_coordinator(toy(), tmp_path)
    assert {one.trial_id for one in resumed.writer.pop_obsolete()} == searched


def test_checkpoints_of_long_ago_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "DELETED_WITHIN", timedelta(0))
    drive(open_coordinator(toy(), tmp_path), tmp_path, rows=40)
    assert len(list(open_coordinator(toy(), tmp_path).writer.pop_obsolete())) <= 1


@pytest.mark.parametrize("table", ["trials", "epochs"])
def test_lost_rows_are_run_again(tmp_path: Path, table: str) -> None:
    coordinator = open_coordinator(toy(), tmp_path)
    drive(coordinator, tmp_path)
    before = outcome(coordinator)
    coordinator.writer.records.compact()
    path = tmp_path / "toy" / table / "part-00001.parquet"
    rows = pq.read_table(path, partitioning=None)
    half = rows.num_rows // 2
    pq.write_table(pa.concat_tables([rows[:half], rows[half + 3 :]]), path)
    mended = open_coordinator(toy(), tmp_path)
    assert not mended.done
    assert drive(mended, tmp_path)
    assert mended.done
    assert [row[:5] for row in outcome(mended)[0] if row[2] == "confirm"] == [
        row[:5] for row in before[0] if row[2] == "confirm"
    ]


@pytest.mark.parametrize("rows_per_file", [10, 10_000])
def test_kill_within_compaction_leaves_a_study_that_resumes(
    tmp_path: Path, rows_per_file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.records.part_file.ROWS_PER_PART", rows_per_file)
    whole = open_coordinator(toy(), tmp_path / "whole")
    drive(whole, tmp_path / "whole")
    for both in (False, True):
        folder = tmp_path / str(both)
        cut = open_coordinator(toy(), folder)
        drive(cut, folder, rows=30, each=flush_each(cut))
        cut.writer.records.epochs.compact()
        if both:
            cut.writer.records.trials.compact()
        resumed = open_coordinator(toy(), folder)
        drive(resumed, folder)
        assert outcome(resumed) == outcome(whole)


def test_score_that_is_not_finite_is_the_same_fault_after_a_kill(tmp_path: Path) -> None:
    study = toy(task=Simulated(noise=float("nan"), teacher_epochs=0))
    coordinator = open_coordinator(study, tmp_path)
    run = coordinator.next_trial()
    assert run is not None
    while run.trial.phase != "search":
        run = coordinator.next_trial()
        assert run is not None
    coordinator.writer.add_epoch(
        run, {"epoch": 1, "metrics": {"val/accuracy": float("nan")}, "schedules": {}, "seconds": 0.0}, ""
    )
    coordinator.writer.flush()  # killed here: the epoch is on record, the failure is not
    resumed = open_coordinator(study, tmp_path)
    (row,) = (row for row in trials(resumed) if row["trial_id"] == run.trial.id)
    assert (row["state"], row["reason"]) == ("FAILED", "val/accuracy is nan in epoch 1")


def test_failed_trials_are_open_again_when_asked(tmp_path: Path) -> None:
    broken, mended = (
        toy((BASELINE, Arm("bad", SimulatedLoss(fault=Fault("exception", epoch=epoch))))) for epoch in (2, 2)
    )
    coordinator = open_coordinator(broken, tmp_path)
    drive(coordinator, tmp_path)
    assert coordinator.problems
    failed = open_coordinator(mended, tmp_path)
    assert failed.has_no_work
    assert failed.next_trial() is None
    again = open_coordinator(mended, tmp_path, retry_failed=True)
    assert not again.has_no_work
    assert [run.trial.arm for run in again.queue.resumable] == ["bad"] * 3
    assert again.queue.resumable[0].epochs_done == 1


def test_trial_row_holds_the_configuration_in_full(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(budget=Budget(trials=1, epochs=2, seeds=1)), tmp_path)
    drive(coordinator, tmp_path)
    row = next(row for row in trials(coordinator) if row["phase"] == "search")
    config = json.loads(row["config"])
    assert config["loss"]["is"] == "SimulatedLoss"
    assert config["loss"]["x"] == json.loads(row["params"])["x"]
    assert config["train_on"] == "train"
    assert config["inputs"] == {"data": "simulated"}


def test_skipped_search_trial_is_pruned_at_its_next_epoch_and_stays_so_when_resumed(tmp_path: Path) -> None:
    study = toy(stopping=Never())
    coordinator = open_coordinator(study, tmp_path, journal := optuna.storages.InMemoryStorage())

    def skip_third_epoch(run, row) -> None:  # type: ignore[no-untyped-def]
        if run.trial.phase == "search" and run.trial.number == 2 and row["epoch"] == 3:
            coordinator.skips = frozenset({run.trial.id})

    assert drive(coordinator, tmp_path, each=skip_third_epoch)
    assert coordinator.done
    skipped = [row for row in trials(coordinator) if row["state"] == "PRUNED"]
    assert [(row["number"], row["epochs_done"], row["reason"]) for row in skipped] == [
        (2, 3, "skipped by hand after epoch 3")
    ]
    told = [trial.state.name for trial in optuna.load_study(study_name="student / searched", storage=journal).trials]
    assert told == ["COMPLETE"] * 2 + ["PRUNED"] + ["COMPLETE"] * 6
    again = open_coordinator(study, tmp_path, resumed := optuna.storages.InMemoryStorage())
    assert again.done
    assert again.cells["student / searched"].search.ended == coordinator.cells["student / searched"].search.ended
    seen = optuna.load_study(study_name="student / searched", storage=resumed).trials
    assert [trial.state.name for trial in seen] == told


def test_confirm_runs_and_preparations_are_never_skipped(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(), tmp_path)

    def skip_all(run, row) -> None:  # type: ignore[no-untyped-def]
        coordinator.skips |= {run.trial.id} if run.trial.phase != "search" else set()

    assert drive(coordinator, tmp_path, each=skip_all)
    assert coordinator.done
    assert "skipped" not in {(row["reason"] or "")[:7] for row in trials(coordinator)}
