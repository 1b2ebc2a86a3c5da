"""Retry policy and TuneBridge: a lost worker costs its trial nothing unless losses repeat without a new epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayActorError, RayTaskError

from study.engine.coordinator import Coordinator
from study.execution.retries import MAX_NODE_LOSSES, MAX_WORKER_RETRIES, WorkerFailure
from study.execution.tune import _as_actor_death, to_worker_failure
from study.execution.tune_bridge import TuneBridge
from study.execution.worker import StepReport
from study.execution.worker_context import WorkerContext
from study.trial import TrialState
from tests.study.toy import open_coordinator, toy
from trainables.tasks.simulated import Simulated


def make_bridge(
    coordinator: Coordinator,
    folder: Path,
    notify: Callable[[str], None] = print,
    max_trials: Callable[[], int] = lambda: 9,
) -> TuneBridge:
    return TuneBridge(coordinator, WorkerContext(folder, folder), lambda: "", notify, max_trials)


@pytest.fixture
def bridge(tmp_path: Path) -> TuneBridge:
    return make_bridge(open_coordinator(toy(), tmp_path), tmp_path)


def start_trial(bridge: TuneBridge, tune_id: str) -> str:
    """Start a trial under Tune's id and return its own id."""
    run = bridge.next_trial(tune_id)
    assert run is not None
    return run.trial.id


def last_state(coordinator: Coordinator, trial_id: str) -> tuple[str, str]:
    row = [row for row in coordinator.writer.records.trials.read_rows() if row["trial_id"] == trial_id][-1]
    return row["state"], row["reason"]


def test_trial_that_tune_gives_up_after_one_failure_is_restarted(bridge: TuneBridge) -> None:
    trial = start_trial(bridge, "a")
    bridge.record_failure("a", WorkerFailure())
    bridge.retry_or_fail("a")
    assert trial not in bridge.coordinator.running
    assert start_trial(bridge, "b") == trial
    assert last_state(bridge.coordinator, trial)[0] == TrialState.RUNNING


def test_trial_whose_workers_die_repeatedly_fails(bridge: TuneBridge) -> None:
    trial = start_trial(bridge, "a")
    for number in range(MAX_WORKER_RETRIES + 1):
        bridge.record_failure("a", WorkerFailure("the machine\nhas no memory left", f"actor {number}"))
    bridge.retry_or_fail("a")
    state, reason = last_state(bridge.coordinator, trial)
    assert state == TrialState.FAILED
    assert reason == "its worker died 4 times without an epoch, last with has no memory left"


def test_failure_that_tune_reports_twice_counts_once(bridge: TuneBridge) -> None:
    """Tune does so if a worker dies just as it turns to its next trial."""
    trial = start_trial(bridge, "0")
    for number in range(MAX_WORKER_RETRIES):
        for _ in range(2):
            bridge.record_failure(str(number), WorkerFailure("gone", f"actor {number}"))
        bridge.retry_or_fail(str(number))
        assert start_trial(bridge, str(number + 1)) == trial


@pytest.mark.parametrize(("preempted", "bound"), [(False, MAX_NODE_LOSSES), (True, None)])
def test_lost_nodes_have_a_higher_bound_and_preempted_ones_none(
    bridge: TuneBridge, preempted: bool, bound: int | None
) -> None:
    trial = start_trial(bridge, "a")
    for number in range(MAX_NODE_LOSSES - 1):
        bridge.record_failure(
            "a", WorkerFailure("its node has died\nspot", f"actor {number}", node_lost=True, preempted=preempted)
        )
    bridge.record_failure("a", WorkerFailure("a worker", "worker"))
    bridge.retry_or_fail("a")
    assert start_trial(bridge, "b") == trial
    for number in range(MAX_NODE_LOSSES, MAX_NODE_LOSSES + 10):
        bridge.record_failure(
            "b", WorkerFailure("its node has died\nspot", f"actor {number}", node_lost=True, preempted=preempted)
        )
    bridge.retry_or_fail("b")
    if bound is None:
        assert start_trial(bridge, "c") == trial
        return
    state, reason = last_state(bridge.coordinator, trial)
    assert state == TrialState.FAILED
    assert reason == "its node was lost 29 times without an epoch, last with spot"


def test_trial_that_tune_gives_up_repeatedly_fails_without_any_reported_failure(bridge: TuneBridge) -> None:
    trial = start_trial(bridge, "1")
    for number in range(1, MAX_NODE_LOSSES):
        bridge.retry_or_fail(str(number))
        assert start_trial(bridge, str(number + 1)) == trial
    bridge.retry_or_fail(str(MAX_NODE_LOSSES))
    assert last_state(bridge.coordinator, trial)[0] == TrialState.FAILED


def test_completed_epoch_resets_the_retries(bridge: TuneBridge) -> None:
    trial = start_trial(bridge, "a")
    for number in range(MAX_WORKER_RETRIES):
        bridge.record_failure("a", WorkerFailure("gone", f"actor {number}"))
    row = {"epoch": 1, "metrics": {"val/accuracy": 0.5}, "schedules": {}, "seconds": 1.0}
    _, progressed = bridge.handle_report("a", json.dumps(asdict(StepReport(rows=[row]))))
    assert progressed
    bridge.record_failure("a", WorkerFailure("gone", "another"))
    bridge.retry_or_fail("a")
    assert start_trial(bridge, "b") == trial


def died(message: str, preempted: bool = False) -> ActorDiedError:
    error = ActorDiedError()
    error.actor_id, error.error_msg, error._preempted = "1" * 32, message, preempted
    return error


@pytest.mark.parametrize(
    ("error", "node_lost", "preempted"),
    [
        (
            died("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"),
            False,
            False,
        ),
        (
            died("The actor died because its node has died. Node Id: 727b\n\tmissing too many heartbeats"),
            True,
            False,
        ),
        (died("The actor died because its node has died. Node Id: 727b", preempted=True), True, True),
        (ActorUnavailableError("RPC error: Socket closed", b"\1" * 16), True, False),
        (_as_actor_death(OutOfMemoryError("1 worker(s) were killed"), SimpleNamespace(actor_id=3)), False, False),
        (RayTaskError("step", "traceback", died("its node has died")).as_instanceof_cause(), True, False),
        (RayTaskError("step", "traceback", ValueError("no data")).as_instanceof_cause(), False, False),
    ],
)
def test_lost_node_is_distinguished_from_a_dead_worker(error: Exception, node_lost: bool, preempted: bool) -> None:
    """Messages as Ray 2.60 words them; tests/study/cluster/test_nodes.py gets them from real nodes."""
    failure = to_worker_failure(error)
    assert (failure.node_lost, failure.preempted) == (node_lost, preempted)
    assert bool(failure.actor_id) == isinstance(error, RayActorError)


def test_number_of_trials_follows_the_size_of_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.execution.tune_bridge.MAX_TRIALS_SECONDS", 0.0)
    monkeypatch.setattr("study.execution.tune_bridge.TICK_SECONDS", 0.0)
    limits = iter([1, 3, 2])
    study = toy(task=Simulated(teacher_epochs=0))
    bridge = make_bridge(open_coordinator(study, tmp_path), tmp_path, max_trials=lambda: next(limits))
    assert [bridge.next_trial(name) is None for name in "ab"] == [False, True]
    bridge.tick()
    assert [bridge.next_trial(name) is None for name in "cde"] == [False, False, True]
    bridge.tick()
    assert bridge.next_trial("f") is None


def test_user_is_notified_once_that_no_trial_is_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.execution.tune_bridge.TICK_SECONDS", 0.0)
    messages: list[str] = []
    bridge = make_bridge(open_coordinator(toy(), tmp_path), tmp_path, messages.append)
    start_trial(bridge, "a")
    bridge.tick()
    assert messages == []
    monkeypatch.setattr("study.execution.tune_bridge.WAITING_SECONDS", 0.0)
    for _ in range(3):
        bridge.tick()
    assert messages == ["no worker for any of the trials yet, 1 waiting: no node is free"]
    bridge.mark_placed("a")
    bridge.tick()
    bridge.record_failure("a", WorkerFailure())
    bridge.tick()
    assert len(messages) == 2
