"""What a worker's death costs a trial: nothing, unless it dies again and again without getting further."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from study.executor import WORKER_RETRIES, Door
from study.flow import Flow
from study.trial import TrialState
from study.worker import Told, Workplace
from tests.study.toy import open_flow, toy


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(open_flow(toy(), tmp_path), Workplace(tmp_path, tmp_path), lambda: "", lambda text: None)


def opened(door: Door, tune_id: str) -> str:
    """Hand out a trial under Tune's id, and return its own."""
    config: Any = door.open(tune_id)
    trial = json.loads(config["trial"])
    return next(run.trial.id for run in door.flow.running.values() if asdict(run.trial) == trial)


def last_state(flow: Flow, trial_id: str) -> tuple[str, str]:
    row = [row for row in flow.records.trials.rows() if row["trial_id"] == trial_id][-1]
    return row["state"], row["reason"]


def test_trial_given_up_after_one_death_is_started_again(door: Door) -> None:
    trial = opened(door, "a")
    door.died("a", None)
    door.lost("a")
    assert trial not in door.flow.running
    assert opened(door, "b") == trial
    assert last_state(door.flow, trial)[0] == TrialState.RUNNING


def test_trial_whose_workers_die_again_and_again_has_failed(door: Door) -> None:
    trial = opened(door, "a")
    for _ in range(WORKER_RETRIES + 1):
        door.died("a", RuntimeError("the machine\nhas no memory left"))
    door.lost("a")
    state, reason = last_state(door.flow, trial)
    assert state == TrialState.FAILED
    assert reason == "its worker died 4 times without an epoch, last with RuntimeError: has no memory left"


def test_trial_given_up_again_and_again_has_failed_whatever_was_heard_of_deaths(door: Door) -> None:
    trial = opened(door, "0")
    for number in range(WORKER_RETRIES):
        door.lost(str(number))
        assert opened(door, str(number + 1)) == trial
    door.lost(str(WORKER_RETRIES))
    assert last_state(door.flow, trial)[0] == TrialState.FAILED


def test_trial_that_got_further_is_forgiven(door: Door) -> None:
    trial = opened(door, "a")
    for _ in range(WORKER_RETRIES):
        door.died("a", None)
    row = {"epoch": 1, "metrics": {"val/accuracy": 0.5}, "schedules": {}, "seconds": 1.0}
    _, got_on = door.hear("a", json.dumps(asdict(Told(rows=[row]))))
    assert got_on
    door.forgive("a")
    door.died("a", None)
    door.lost("a")
    assert opened(door, "b") == trial
