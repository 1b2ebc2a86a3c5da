"""Ray Tune behind one small door: starts Ray, hands out the flow's trials, passes their rows back.

Tune only places trials on resources, keeps actors alive between them and restarts those whose worker died. What runs,
what is stopped and what is remembered is decided in study/flow.py: Tune's searcher, scheduler and state files see
nothing but a trial's text.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Ray reads these when it is imported. Telemetry off; Tune's own log files, state snapshots, progress tables and
# SIGINT handler off: the records, the display and run.py do these jobs.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1000000000"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"

import ray
from ray import cloudpickle, tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.errors import InputError
from study.flow import Flow, Run
from study.worker import TrialWorker, Workplace

WORKER_RETRIES = 3
"""How often a trial whose worker or node died is started again before it counts as failed."""


@dataclass(frozen=True)
class Resources:
    """What one trial gets, and how many run at once."""

    cpus: int
    gpus: float
    concurrent: int

    def as_row(self) -> dict[str, Any]:
        """As each trial's row records it."""
        return {"device": "cuda" if self.gpus else "cpu", "cpus": self.cpus, "gpus": self.gpus}


@dataclass(frozen=True)
class Node:
    """What one machine has."""

    cpus: int
    gpus: int

    def trials(self, gpus_each: float) -> int:
        """How many trials of one CPU and so many GPUs fit. A fraction is one of a single GPU: Ray splits none."""
        if gpus_each == 0:
            return self.cpus
        fitting = self.gpus // int(gpus_each) if gpus_each >= 1 else self.gpus * int(1 / gpus_each + 1e-9)
        return min(self.cpus, fitting)


def connect(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at `address`.

    Raises InputError if nothing answers there.
    """
    # one thread a trial, whatever the shell says: threads change results by rounding and slow each other down
    threads = {"env_vars": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "runtime_env": threads}
    if address is None:
        # an address of our own unless one is given: a stray cluster must not be joined by accident
        ray.init(address="local", include_dashboard=False, **quiet)
    else:
        _check_answers(address)
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            raise InputError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from None
    # Ray puts its own handler in: a batch system's goodbye is an interruption
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes for an address where nobody is."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        raise InputError(f"address {address!r}: allowed are 'auto', on a node of the cluster, or HOST:PORT of its head")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise InputError(f"no Ray cluster at {address!r} ({error}): is it up, and is this its head's port?") from None


def disconnect() -> None:
    """Leave the cluster; one started here ends, and its workers with it."""
    ray.shutdown()


def cluster() -> list[Node]:
    """The nodes of the cluster that Ray is connected to."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in alive]


def allot(nodes: list[Node], gpus_per_trial: float | None, max_concurrent: int | None) -> Resources:
    """What each trial gets, and how many fit; one GPU if there is any and nothing else was asked for.

    Raises InputError with the arithmetic if not even one trial fits on any node.
    """
    each = (1.0 if any(node.gpus for node in nodes) else 0.0) if gpus_per_trial is None else gpus_per_trial
    if not math.isfinite(each) or (each > 1 and each % 1):
        raise InputError(f"--gpus-per-trial {each:g}: allowed are a fraction of one GPU, or whole GPUs")
    fitting = sum(node.trials(each) for node in nodes)
    if fitting < 1:
        there = ", ".join(f"{node.cpus} CPU and {node.gpus} GPU" for node in nodes)
        raise InputError(
            f"a trial asks for 1 CPU and {each:g} GPU on one node, there are {there}: no trial fits; "
            "lower --gpus-per-trial"
        )
    return Resources(1, each, min(fitting, max_concurrent or fitting))


def execute(
    flow: Flow,
    workplace: Workplace,
    resources: Resources,
    space: Any,
    on_change: Callable[[], None],
) -> None:
    """Run the flow until nothing is left to start. `space` is the module of the space file."""
    # classes written in a space file travel by value: workers cannot import it
    cloudpickle.register_pickle_by_value(space)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scratch = Path(tempfile.mkdtemp(prefix="kdstudy-tune-"))
    door = Door(flow, workplace, on_change)
    try:
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(TrialWorker, study=flow.study, workplace=workplace),
                {"CPU": resources.cpus, "GPU": resources.gpus},
            ),
            tune_config=tune.TuneConfig(
                search_alg=FlowSearcher(door),
                scheduler=FlowScheduler(door),
                num_samples=-1,
                max_concurrent_trials=resources.concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=WORKER_RETRIES),
                verbose=0,
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class Door:
    """Between Tune's trials and the flow's: who is who, and what to do with a message."""

    def __init__(self, flow: Flow, workplace: Workplace, on_change: Callable[[], None]):
        self.flow, self._workplace, self._on_change = flow, workplace, on_change
        self._ids: dict[str, str] = {}
        self.errors: dict[str, Exception | None] = {}
        """What Tune last said of each trial whose worker died."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a pickled copy of its searcher, which nobody ever opens

    def open(self, tune_id: str) -> dict[str, Any] | str | None:
        run = self.flow.next()
        self._on_change()
        if run is None:
            return None if self.flow.running else Searcher.FINISHED
        self._ids[tune_id] = run.trial.id
        return as_config(run)

    def hear(self, tune_id: str, text: str) -> bool:
        """Pass a worker's message to the flow; True if the trial has ended."""
        message = json.loads(text)
        trial_id = self._ids[tune_id]
        if message["failure"]:
            self.flow.fail(trial_id, message["failure"], message["worker"])
            ended = True
        else:
            run = self.flow.running[trial_id]
            ended = self.flow.report(trial_id, message["row"], message["worker"])
            if ended and run.trial.phase != "confirm":
                self._workplace.forget(trial_id)  # only a confirmed student's weights are worth keeping
        self._on_change()
        return ended

    def lost(self, tune_id: str) -> None:
        """Tune gave a trial up: its worker died, or could not start, more often than is forgiven."""
        error = self.errors.get(tune_id)
        lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
        last = f"{type(error).__name__}: {lines[-1]}" if lines else "Ray gives no reason"
        trial_id = self._ids[tune_id]
        self._workplace.explain(trial_id, str(error))
        self.flow.fail(trial_id, f"its worker died {WORKER_RETRIES + 1} times, last with {last}")
        self._on_change()


class FlowSearcher(Searcher):  # type: ignore[misc]
    """Tune's word for: what runs next."""

    def __init__(self, door: Door):
        super().__init__(metric="message", mode="max")
        self._door = door

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return self._door.open(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        # without an error, the flow has ended the trial already: when it heard the last row
        if error:
            self._door.lost(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """The rows are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """The rows are the state."""


class FlowScheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune's word for: a row has come, does the trial go on."""

    def __init__(self, door: Door):
        super().__init__()
        self._door = door

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        ended = self._door.hear(trial.trial_id, result["message"])
        return str(TrialScheduler.STOP if ended else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # told at every death of a worker; the searcher hears of the last one only
        self._door.errors[trial.trial_id] = trial.get_error()


def as_config(run: Run) -> dict[str, Any]:
    """A trial as Tune carries it: one text, so that Tune neither flattens nor prints its settings."""
    return {"trial": json.dumps(asdict(run.trial)), "epochs_done": run.epochs_done}
