"""Studies that go on: with more budget, within their caps, and not at all where every trial of a cell fails."""

from __future__ import annotations

import dataclasses
import shutil
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from study import Arm, Budget, Never, uniform
from study.code_version import CodeVersion
from study.engine.coordinator import Coordinator
from study.engine.usage import find_exhausted_cap, sum_gpu_seconds, sum_wall_seconds
from study.errors import InputError
from study.records.same_study import read_same_study
from study.records.study_json import build_study_json, write_study
from study.space_file import Space
from study.study import Study
from study.task import Plan, Preparation
from tests.study.toy import BASELINE, SEARCHED, drive, flush_each, open_coordinator, toy
from trainables.tasks.simulated import Fault, Simulated, SimulatedLoss

CODE = CodeVersion({"space file": "0" * 16})


SMALL = Budget(trials=5, epochs=6, seeds=3)
START = datetime(2026, 1, 1, tzinfo=UTC)


METRICS = {"train/loss": 0.5, "val/accuracy": 0.5, "val/cost": 0.5, "test/accuracy": 0.5, "test/cost": 0.5}


def trials(coordinator: Coordinator) -> list[dict[str, Any]]:
    return coordinator.writer.records.trials.read_rows()


def counting(coordinator: Coordinator) -> list[tuple[Any, ...]]:
    """The rows that count, without the times."""
    kept = ("trial_id", "cell", "phase", "number", "seed", "state", "reason", "params", "epochs_done", "val/accuracy")
    rows = [row for row in trials(coordinator) if row["state"] != "SUPERSEDED"]
    return sorted(tuple(row[name] for name in kept) for row in rows)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 2, 3, 4, 5))])
@pytest.mark.parametrize("larger", [Budget(12, 6, 3), Budget(5, 6, 5), Budget(12, 6, 5)])
def test_extended_study_is_the_study_that_was_larger_from_the_start(tmp_path: Path, larger: Budget, seed: int) -> None:
    whole = open_coordinator(toy(seed=seed, budget=larger), tmp_path / "whole")
    assert drive(whole, tmp_path / "whole")
    small = open_coordinator(toy(seed=seed, budget=SMALL), tmp_path / "small")
    assert drive(small, tmp_path / "small")
    assert small.done
    best = {row["params"] for row in trials(small) if row["phase"] == "confirm" and row["arm"] == "searched"}

    extended = open_coordinator(toy(seed=seed, budget=larger), tmp_path / "small")
    assert not extended.done
    assert drive(extended, tmp_path / "small")
    assert extended.done
    assert counting(extended) == counting(whole)
    superseded = [row for row in trials(extended) if row["state"] == "SUPERSEDED"]
    chosen = {row["params"] for row in trials(whole) if row["phase"] == "confirm" and row["arm"] == "searched"}
    assert len(superseded) == (SMALL.seeds if chosen != best else 0)
    assert open_coordinator(toy(seed=seed, budget=larger), tmp_path / "small").done


def test_an_extension_supersedes_in_some_studies_and_not_in_others(tmp_path: Path) -> None:
    """Else the test above would not see both."""
    changed = set()
    for seed in (1, 2):
        coordinator = open_coordinator(toy(seed=seed, budget=Budget(12, 6, 1)), tmp_path / str(seed))
        drive(coordinator, tmp_path / str(seed))
        (number,) = {coordinator.cells["student / searched"].search.best_number}
        changed.add(number is not None and number >= SMALL.trials)
    assert changed == {True, False}


@pytest.mark.parametrize(
    ("budget", "allowed"),
    [
        (Budget(9, 6, 3), True),
        (Budget(5, 6, 4), True),
        (dataclasses.replace(SMALL, wall_hours=1.0, gpu_hours=2.0), True),
        (Budget(4, 6, 3), False),
        (Budget(5, 6, 2), False),
        (Budget(5, 7, 3), False),
    ],
)
def test_more_trials_and_seeds_are_the_same_study_fewer_or_other_epochs_are_not(
    tmp_path: Path, budget: Budget, allowed: bool
) -> None:
    def described(study: Study) -> dict[str, Any]:
        inputs = {"data": {"fingerprint": "x"}}
        return build_study_json(
            study, Space(study, types.ModuleType("space"), tmp_path, "", "", CODE), inputs, None, ""
        )

    write_study(tmp_path, described(toy(budget=SMALL)))
    changed = toy(budget=budget)
    if allowed:
        assert read_same_study(tmp_path, changed, {"data": {"fingerprint": "x"}}) is not None
    else:
        with pytest.raises(InputError, match=r"holds another study of this name \(budget\.\w+: \d → \d\)"):
            read_same_study(tmp_path, changed, {"data": {"fingerprint": "x"}})


def test_number_of_workers_is_part_of_a_study_and_was_one_before_there_was_a_choice(tmp_path: Path) -> None:
    study, inputs = toy(), {"data": {"fingerprint": "x"}}
    described = build_study_json(
        study, Space(study, types.ModuleType("space"), tmp_path, "", "", CODE), inputs, None, ""
    )
    del described["study"]["workers_per_trial"]
    write_study(tmp_path, described)
    assert read_same_study(tmp_path, study, inputs) is not None
    with pytest.raises(InputError, match=r"another study of this name \(workers_per_trial: 1 → 2\)"):
        read_same_study(tmp_path, toy(workers_per_trial=2), inputs)


def test_cell_of_which_every_trial_fails_at_once_stops_the_study_and_says_so(tmp_path: Path) -> None:
    arms = (BASELINE, Arm("bad", SimulatedLoss(x=uniform(0, 1), fault=Fault("exception"))))
    coordinator = open_coordinator(toy(arms, budget=Budget(40, 6, 3)), tmp_path)
    assert drive(coordinator, tmp_path)
    assert sum(row["state"] == "FAILED" for row in trials(coordinator)) == 4
    assert len(coordinator.problems) == 1
    assert "student / bad: its first 4 trials all failed at once" in coordinator.problems[0]
    again = open_coordinator(toy(arms, budget=Budget(40, 6, 3)), tmp_path)
    assert again.problems == coordinator.problems
    assert again.next_trial() is None
    assert open_coordinator(toy(arms, budget=Budget(40, 6, 3)), tmp_path, retry_failed=True).next_trial() is not None


def test_four_failures_do_not_stop_a_cell_whose_other_trials_run(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy((BASELINE, SEARCHED), task=Simulated(teacher_epochs=0)), tmp_path)
    runs = [
        run for run in (coordinator.next_trial() for _ in range(9)) if run is not None and run.trial.arm == "searched"
    ]
    coordinator.report(runs[0].trial.id, {"epoch": 1, "metrics": METRICS, "schedules": {}, "seconds": 0.0}, "here:1")
    for run in runs[1:6]:
        coordinator.fail(run.trial.id, "an option that does not work")
    assert coordinator.problem == ""
    assert open_coordinator(toy((BASELINE, SEARCHED), task=Simulated(teacher_epochs=0)), tmp_path).problem == ""


def test_score_that_was_not_finite_is_trained_anew_from_the_start_when_asked(tmp_path: Path) -> None:
    study = toy((Arm("bad", SimulatedLoss(fault=Fault("nan", epoch=6), needs_teacher=False), baseline=True),))
    coordinator = open_coordinator(study, tmp_path)
    drive(coordinator, tmp_path)
    assert {row["state"] for row in trials(coordinator)} == {"FAILED"}
    again = open_coordinator(study, tmp_path, retry_failed=True)
    assert [(run.start_over, run.epochs_done) for run in again.queue.resumable] == [(True, 0)] * 3
    assert open_coordinator(study, tmp_path).queue.resumable == []


def test_preparation_of_an_older_plan_is_not_resumed_and_ends_no_newer_one(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Storing(Simulated):
        def list_preparations(self, storage: Path, plan: Plan) -> list[Preparation]:
            return [Preparation("outputs 0–400", 3, {"runs": len(plan.runs)})]

    small, large = (toy(budget=Budget(trials, 6, 3), task=Storing()) for trials in (5, 12))
    coordinator = open_coordinator(small, tmp_path)
    run = coordinator.next_trial()
    assert run is not None
    assert run.trial.phase == "prepare"
    coordinator.interrupt("Ctrl-C")
    extended = open_coordinator(large, tmp_path)
    assert extended.queue.resumable == []
    started = extended.next_trial()
    assert started is not None
    assert started.trial.config == {"runs": 15}
    (older,) = (row for row in trials(extended) if row["trial_id"] == run.trial.id)
    assert older["state"] == "SUPERSEDED"


def test_teacher_that_was_lost_and_cut_off_while_made_again_is_made_from_the_start(tmp_path: Path) -> None:
    assert drive(open_coordinator(toy(budget=SMALL), tmp_path), tmp_path)
    shutil.rmtree(tmp_path / "teachers")
    larger = toy(budget=Budget(5, 6, 5))
    again = open_coordinator(larger, tmp_path).next_trial()  # and killed before its first epoch
    assert again is not None
    assert again.trial.phase == "prepare"
    coordinator = open_coordinator(larger, tmp_path)
    assert not coordinator.running
    (open_again,) = coordinator.queue.resumable
    assert (open_again.trial, open_again.epochs_done, open_again.start_over) == (again.trial, 0, True)
    assert drive(coordinator, tmp_path)
    assert (tmp_path / "teachers").is_dir()


@pytest.mark.parametrize("table", ["trials", "epochs"])
def test_study_mended_after_lost_rows_is_read_back_as_it_ended(
    tmp_path: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after deleting a damaged segment, whichever it was: what is trained again is recorded out of order."""
    monkeypatch.setattr("study.records.part_file.ROWS_PER_PART", 10)
    whole = open_coordinator(toy(), tmp_path / "whole")
    drive(whole, tmp_path / "whole", each=flush_each(whole))
    for path in sorted((tmp_path / "whole" / "toy" / table).glob("*.parquet")):
        folder = tmp_path / path.name
        shutil.copytree(tmp_path / "whole", folder)
        (folder / "toy" / table / path.name).unlink()
        mended = open_coordinator(toy(), folder)
        assert drive(mended, folder)
        assert mended.done
        ended = counting(mended)
        numbers = [row[1:4] for row in ended]
        assert len(set(numbers)) == len(numbers), "a number has two trials"
        again = open_coordinator(toy(), folder)
        assert again.done
        assert counting(again) == ended


def test_cell_with_one_trial_that_got_further_goes_on(tmp_path: Path) -> None:
    arms = (BASELINE, Arm("bad", SimulatedLoss(x=uniform(0, 1), fault=Fault("exception", epoch=2))))
    coordinator = open_coordinator(toy(arms, stopping=Never()), tmp_path)
    drive(coordinator, tmp_path)
    assert sum(row["state"] == "FAILED" for row in trials(coordinator)) == 9


def test_caps_are_reached_over_all_runs_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    capped = dataclasses.replace(SMALL, gpu_hours=40 / 3600)
    study = toy(budget=capped, task=Simulated(seconds_per_epoch=0.0))
    coordinator = open_coordinator(study, tmp_path)
    coordinator.resources = {"device": "cuda", "cpus": 1, "gpus": 0.5}
    drive(coordinator, tmp_path, each=lambda run, row: row.__setitem__("seconds", 2.0))  # half a GPU: one second each
    assert not coordinator.done
    assert coordinator.over_budget.startswith("gpu_hours 0.0111 used up")
    assert 40 <= coordinator.usage.gpu_seconds <= 46, (
        "a running trial is not cut between two epochs by the coordinator itself"
    )
    reopened = open_coordinator(study, tmp_path)
    assert reopened.usage.gpu_seconds == coordinator.usage.gpu_seconds
    assert reopened.next_trial() is None
    more = open_coordinator(toy(budget=SMALL, task=Simulated(seconds_per_epoch=0.0)), tmp_path)
    assert drive(more, tmp_path)
    assert more.done


def test_wall_clock_is_what_runs_wrote_down_and_of_a_killed_one_its_last_sign_of_life() -> None:
    runs = [{"started": (START + timedelta(hours=hours)).isoformat()} for hours in (0, 5, 9)]
    seen = [START + timedelta(hours=hours) for hours in (1.0, 2.0, 5.5)]
    assert sum_wall_seconds(runs, seen) == (2.0 + 0.5) * 3600
    runs[0]["seconds"] = 8000.0  # type: ignore[assignment]
    assert sum_wall_seconds(runs, seen) == 8000 + 0.5 * 3600
    assert sum_wall_seconds([], seen) == 0


def test_gpu_time_is_that_of_the_epochs_by_their_trials_share() -> None:
    trials = [{"trial_id": "a", "gpus": 0.25}, {"trial_id": "b", "gpus": None}]
    epochs = [{"trial_id": "a", "seconds": 4.0}, {"trial_id": "a", "seconds": 6.0}, {"trial_id": "b", "seconds": 9.0}]
    assert sum_gpu_seconds(trials, epochs) == 2.5


def test_gpu_time_of_a_trial_cut_off_counts_and_so_do_its_resources_when_it_ends_in_replay(tmp_path: Path) -> None:
    coordinator = open_coordinator(toy(), tmp_path)
    coordinator.resources = {"device": "cuda", "cpus": 1.0, "gpus": 0.5}
    drive(coordinator, tmp_path, rows=17, each=lambda run, row: row.__setitem__("seconds", 2.0))
    assert coordinator.usage.gpu_seconds == 17.0
    resumed = open_coordinator(toy(), tmp_path)  # killed: the running trial's row is that of its start
    assert resumed.usage.gpu_seconds == 17.0
    again = open_coordinator(toy(), tmp_path, retry_failed=True)
    assert {row["gpus"] for row in trials(again)} == {0.5}


def test_what_replay_writes_down_is_no_sign_of_life(tmp_path: Path) -> None:
    """A kill between the last epoch's row and its trial's: the end is told now, and was then."""
    coordinator = open_coordinator(toy(stopping=Never()), tmp_path)
    drive(coordinator, tmp_path, rows=2)
    run = coordinator.next_trial()
    assert run is not None
    for epoch in range(1, run.trial.epochs + 1):
        coordinator.writer.add_epoch(run, {"epoch": epoch, "metrics": METRICS, "schedules": {}, "seconds": 0.0}, "")
    coordinator.writer.flush()
    last = max(row["recorded"] for row in coordinator.writer.records.epochs.read_rows())
    resumed = open_coordinator(toy(stopping=Never()), tmp_path)
    (row,) = (row for row in trials(resumed) if row["trial_id"] == run.trial.id)
    assert (row["state"], row["ended"]) == ("COMPLETE", last)


def test_cap_is_named_when_it_is_reached() -> None:
    budget = Budget(1, 1, 1, wall_hours=2, gpu_hours=1)
    assert find_exhausted_cap(budget, wall_seconds=7199, gpu_seconds=3599) == ""
    assert find_exhausted_cap(budget, wall_seconds=7200, gpu_seconds=0) == "wall_hours 2 used up (2 h)"
    assert find_exhausted_cap(budget, wall_seconds=0, gpu_seconds=3600) == "gpu_hours 1 used up (1 h)"
    priced = Budget(1, 1, 1, wall_hours=2, gpu_hours=1, usd_per_hour=0.4)
    assert find_exhausted_cap(priced, wall_seconds=0, gpu_seconds=5400) == "gpu_hours 1 used up (1.5 h, 0.60 USD)"
    assert find_exhausted_cap(priced, wall_seconds=7200, gpu_seconds=60) == "wall_hours 2 used up (2 h)"


@pytest.mark.parametrize("hours", [0, -1, float("inf"), float("nan"), "3"])
def test_cap_that_is_no_number_of_hours_is_refused(hours: Any) -> None:
    with pytest.raises(InputError, match="wall_hours is"):
        Budget(1, 1, 1, wall_hours=hours)
    with pytest.raises(InputError, match=r"usd_per_hour is .* US dollars above 0"):
        Budget(1, 1, 1, usd_per_hour=hours)
