"""Studies that go on: with more budget, within their caps, and not at all where every trial of a cell fails."""

from __future__ import annotations

import dataclasses
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from study import Arm, Budget, Never, uniform
from study.errors import InputError
from study.flow import Flow
from study.folder import check_same, document
from study.loading import Space
from study.records import write_study
from study.spending import gpu_seconds, used_up, wall_seconds
from study.study import Study
from tests.study.toy import BASELINE, drive, open_flow, toy
from trainables.simulated import Fault, Simulated, SimulatedLoss

SMALL = Budget(trials=5, epochs=6, seeds=3)
START = datetime(2026, 1, 1, tzinfo=UTC)


def trials(flow: Flow) -> list[dict[str, Any]]:
    return flow.records.trials.rows()


def counting(flow: Flow) -> list[tuple[Any, ...]]:
    """The rows that count, without the times."""
    kept = ("trial_id", "cell", "phase", "number", "seed", "state", "reason", "params", "epochs_done", "val/accuracy")
    rows = [row for row in trials(flow) if row["state"] != "SUPERSEDED"]
    return sorted(tuple(row[name] for name in kept) for row in rows)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("larger", [Budget(12, 6, 3), Budget(5, 6, 5), Budget(12, 6, 5)])
def test_extended_study_is_the_study_that_was_larger_from_the_start(tmp_path: Path, larger: Budget, seed: int) -> None:
    whole = open_flow(toy(seed=seed, budget=larger), tmp_path / "whole")
    assert drive(whole, tmp_path / "whole")
    small = open_flow(toy(seed=seed, budget=SMALL), tmp_path / "small")
    assert drive(small, tmp_path / "small")
    assert small.done
    best = {row["params"] for row in trials(small) if row["phase"] == "confirm" and row["arm"] == "searched"}

    extended = open_flow(toy(seed=seed, budget=larger), tmp_path / "small")
    assert not extended.done
    assert drive(extended, tmp_path / "small")
    assert extended.done
    assert counting(extended) == counting(whole)
    superseded = [row for row in trials(extended) if row["state"] == "SUPERSEDED"]
    chosen = {row["params"] for row in trials(whole) if row["phase"] == "confirm" and row["arm"] == "searched"}
    assert len(superseded) == (SMALL.seeds if chosen != best else 0)
    assert open_flow(toy(seed=seed, budget=larger), tmp_path / "small").done


def test_an_extension_supersedes_in_some_studies_and_not_in_others(tmp_path: Path) -> None:
    """Else the test above would not see both."""
    changed = set()
    for seed in range(6):
        flow = open_flow(toy(seed=seed, budget=Budget(12, 6, 1)), tmp_path / str(seed))
        drive(flow, tmp_path / str(seed))
        (number,) = {flow.cells["student / searched"].best}
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
        return document(study, Space(study, types.ModuleType("space"), tmp_path, "", ""), inputs, None, "")

    write_study(tmp_path, described(toy(budget=SMALL)))
    changed = toy(budget=budget)
    if allowed:
        assert check_same(tmp_path, changed, {"data": {"fingerprint": "x"}}) is not None
    else:
        with pytest.raises(InputError, match=r"holds another study of this name \(budget\.\w+: \d → \d\)"):
            check_same(tmp_path, changed, {"data": {"fingerprint": "x"}})


def test_cell_of_which_every_trial_fails_at_once_stops_the_study_and_says_so(tmp_path: Path) -> None:
    arms = (BASELINE, Arm("bad", SimulatedLoss(x=uniform(0, 1), fault=Fault("exception"))))
    flow = open_flow(toy(arms, budget=Budget(40, 6, 3)), tmp_path)
    assert drive(flow, tmp_path)
    assert sum(row["state"] == "FAILED" for row in trials(flow)) == 4
    assert len(flow.problems) == 1
    assert "student / bad: its first 4 trials all failed at once" in flow.problems[0]
    again = open_flow(toy(arms, budget=Budget(40, 6, 3)), tmp_path)
    assert again.problems == flow.problems
    assert again.next() is None
    assert open_flow(toy(arms, budget=Budget(40, 6, 3)), tmp_path, retry_failed=True).next() is not None


def test_cell_with_one_trial_that_got_further_goes_on(tmp_path: Path) -> None:
    arms = (BASELINE, Arm("bad", SimulatedLoss(x=uniform(0, 1), fault=Fault("exception", epoch=2))))
    flow = open_flow(toy(arms, stopping=Never()), tmp_path)
    drive(flow, tmp_path)
    assert sum(row["state"] == "FAILED" for row in trials(flow)) == 9


def test_caps_are_reached_over_all_runs_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    capped = dataclasses.replace(SMALL, gpu_hours=40 / 3600)
    study = toy(budget=capped, task=Simulated(seconds_per_epoch=0.0))
    flow = open_flow(study, tmp_path)
    flow.resources = {"device": "cuda", "cpus": 1, "gpus": 0.5}
    drive(flow, tmp_path, each=lambda run, row: row.__setitem__("seconds", 2.0))  # half a GPU: one second each
    assert not flow.done
    assert flow.over_budget.startswith("gpu_hours 0.0111 used up")
    assert 40 <= flow.gpu_seconds <= 46, "a running trial is not cut between two epochs by the flow itself"
    reopened = open_flow(study, tmp_path)
    assert reopened.gpu_seconds == flow.gpu_seconds
    assert reopened.next() is None
    more = open_flow(toy(budget=SMALL, task=Simulated(seconds_per_epoch=0.0)), tmp_path)
    assert drive(more, tmp_path)
    assert more.done


def test_wall_clock_counts_each_run_from_its_start_to_its_last_sign_of_life() -> None:
    starts = [START, START + timedelta(hours=5), START + timedelta(hours=9)]
    seen = [START + timedelta(hours=hours) for hours in (1.0, 2.0, 5.5)]
    assert wall_seconds(starts, seen) == (2.0 + 0.5) * 3600
    assert wall_seconds([], seen) == 0


def test_gpu_time_counts_shares_and_cpu_trials_nothing() -> None:
    assert gpu_seconds([{"seconds": 10.0, "gpus": 0.25}, {"seconds": 8.0, "gpus": None}]) == 2.5


def test_cap_is_named_when_it_is_reached() -> None:
    budget = Budget(1, 1, 1, wall_hours=2, gpu_hours=1)
    assert used_up(budget, wall=7199, gpu=3599) == ""
    assert used_up(budget, wall=7200, gpu=0) == "wall_hours 2 used up (2 h)"
    assert used_up(budget, wall=0, gpu=3600) == "gpu_hours 1 used up (1 h)"


@pytest.mark.parametrize("hours", [0, -1, float("inf"), float("nan"), "3"])
def test_cap_that_is_no_number_of_hours_is_refused(hours: Any) -> None:
    with pytest.raises(InputError, match="wall_hours is"):
        Budget(1, 1, 1, wall_hours=hours)
