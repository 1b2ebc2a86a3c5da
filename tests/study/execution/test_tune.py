"""What a worker's death costs a trial: nothing, unless it dies again and again without getting further."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayActorError, RayTaskError

from study.engine.coordinator import Coordinator
from study.execution.retries import NODE_LOSSES, WORKER_RETRIES, WorkerFailure
from study.execution.tune import _as_death, death_of
from study.execution.tune_bridge import TuneBridge
from study.execution.worker import StepReport, WorkerContext
from study.trial import TrialState
from tests.study.toy import open_flow, toy
from trainables.tasks.simulated import Simulated


def door_of(
    flow: Coordinator, folder: Path, say: Callable[[str], None] = print, room: Callable[[], int] = lambda: 9
) -> TuneBridge:
    return TuneBridge(flow, WorkerContext(folder, folder), lambda: "", say, room)


@pytest.fixture
def door(tmp_path: Path) -> TuneBridge:
    return door_of(open_flow(toy(), tmp_path), tmp_path)


def opened(door: TuneBridge, tune_id: str) -> str:
    """Hand out a trial under Tune's id, and return its own."""
    run = door.open(tune_id)
    assert run is not None
    return run.trial.id


def last_state(flow: Coordinator, trial_id: str) -> tuple[str, str]:
    row = [row for row in flow.records.trials.rows() if row["trial_id"] == trial_id][-1]
    return row["state"], row["reason"]


def test_trial_given_up_after_one_death_is_started_again(door: TuneBridge) -> None:
    trial = opened(door, "a")
    door.died("a", WorkerFailure())
    door.lost("a")
    assert trial not in door.flow.running
    assert opened(door, "b") == trial
    assert last_state(door.flow, trial)[0] == TrialState.RUNNING


def test_trial_whose_workers_die_again_and_again_has_failed(door: TuneBridge) -> None:
    trial = opened(door, "a")
    for number in range(WORKER_RETRIES + 1):
        door.died("a", WorkerFailure("the machine\nhas no memory left", f"actor {number}"))
    door.lost("a")
    state, reason = last_state(door.flow, trial)
    assert state == TrialState.FAILED
    assert reason == "its worker died 4 times without an epoch, last with has no memory left"


def test_death_that_is_told_twice_counts_once(door: TuneBridge) -> None:
    """Tune does so where a worker dies just as it turns to its next trial."""
    trial = opened(door, "0")
    for number in range(WORKER_RETRIES):
        for _ in range(2):
            door.died(str(number), WorkerFailure("gone", f"actor {number}"))
        door.lost(str(number))
        assert opened(door, str(number + 1)) == trial


@pytest.mark.parametrize(("announced", "bound"), [(False, NODE_LOSSES), (True, None)])
def test_lost_nodes_are_forgiven_more_often_and_announced_ones_always(
    door: TuneBridge, announced: bool, bound: int | None
) -> None:
    trial = opened(door, "a")
    for number in range(NODE_LOSSES - 1):
        door.died("a", WorkerFailure("its node has died\nspot", f"actor {number}", of_node=True, announced=announced))
    door.died("a", WorkerFailure("a worker", "worker"))
    door.lost("a")
    assert opened(door, "b") == trial
    for number in range(NODE_LOSSES, NODE_LOSSES + 10):
        door.died("b", WorkerFailure("its node has died\nspot", f"actor {number}", of_node=True, announced=announced))
    door.lost("b")
    if bound is None:
        assert opened(door, "c") == trial
        return
    state, reason = last_state(door.flow, trial)
    assert state == TrialState.FAILED
    assert reason == "its node was lost 29 times without an epoch, last with spot"


def test_trial_given_up_again_and_again_has_failed_whatever_was_heard_of_deaths(door: TuneBridge) -> None:
    trial = opened(door, "1")
    for number in range(1, NODE_LOSSES):
        door.lost(str(number))
        assert opened(door, str(number + 1)) == trial
    door.lost(str(NODE_LOSSES))
    assert last_state(door.flow, trial)[0] == TrialState.FAILED


def test_trial_that_got_further_is_forgiven(door: TuneBridge) -> None:
    trial = opened(door, "a")
    for number in range(WORKER_RETRIES):
        door.died("a", WorkerFailure("gone", f"actor {number}"))
    row = {"epoch": 1, "metrics": {"val/accuracy": 0.5}, "schedules": {}, "seconds": 1.0}
    _, got_on = door.hear("a", json.dumps(asdict(StepReport(rows=[row]))))
    assert got_on
    door.forgive("a")
    door.died("a", WorkerFailure("gone", "another"))
    door.lost("a")
    assert opened(door, "b") == trial


def died(message: str, announced: bool = False) -> ActorDiedError:
    error = ActorDiedError()
    error.actor_id, error.error_msg, error._preempted = "1" * 32, message, announced
    return error


@pytest.mark.parametrize(
    ("error", "of_node", "announced"),
    [
        (died("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"), False, False),
        (died("The actor died because its node has died. Node Id: 727b\n\tmissing too many heartbeats"), True, False),
        (died("The actor died because its node has died. Node Id: 727b", announced=True), True, True),
        (ActorUnavailableError("RPC error: Socket closed", b"\1" * 16), True, False),
        (_as_death(OutOfMemoryError("1 worker(s) were killed"), SimpleNamespace(actor_id=3)), False, False),
        (RayTaskError("step", "traceback", died("its node has died")).as_instanceof_cause(), True, False),
        (RayTaskError("step", "traceback", ValueError("no data")).as_instanceof_cause(), False, False),
    ],
)
def test_lost_node_is_told_from_a_worker_that_died(error: Exception, of_node: bool, announced: bool) -> None:
    """Messages as Ray 2.60 words them; tests/study/cluster/test_nodes.py hears them from real nodes."""
    death = death_of(error)
    assert (death.of_node, death.announced) == (of_node, announced)
    assert bool(death.actor) == isinstance(error, RayActorError)


def test_no_more_trials_are_opened_than_there_is_room_for_and_more_as_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.execution.tune_bridge.ROOM_SECONDS", 0.0)
    monkeypatch.setattr("study.execution.tune_bridge.TICK_SECONDS", 0.0)
    rooms = iter([1, 3, 2])
    study = toy(task=Simulated(teacher_epochs=0))
    door = door_of(open_flow(study, tmp_path), tmp_path, room=lambda: next(rooms))
    assert [door.open(name) is None for name in "ab"] == [False, True]
    door.tick()
    assert [door.open(name) is None for name in "cde"] == [False, False, True]
    door.tick()
    assert door.open("f") is None


def test_user_is_told_once_that_nothing_is_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.execution.tune_bridge.TICK_SECONDS", 0.0)
    said: list[str] = []
    door = door_of(open_flow(toy(), tmp_path), tmp_path, said.append)
    opened(door, "a")
    door.tick()
    assert said == []
    monkeypatch.setattr("study.execution.tune_bridge.WAITING_SECONDS", 0.0)
    for _ in range(3):
        door.tick()
    assert said == ["no worker for any of the trials yet, 1 waiting: no node is free"]
    door.placed("a")
    door.tick()
    door.died("a", WorkerFailure())
    door.tick()
    assert len(said) == 2
