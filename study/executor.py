"""Ray Tune behind one small door: starts Ray, hands out the flow's trials, passes their rows back.

Tune only places trials on resources, keeps actors alive between them and restarts those whose worker died. What runs,
what is stopped and what is remembered is decided in study/flow.py: Tune's searcher, scheduler and state files see
nothing but a trial's text.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
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
from study.study import Study
from study.worker import TrialWorker, Workplace

WORKER_RETRIES = 3
"""How often a trial whose worker or node died is started again before it counts as failed."""


@dataclass(frozen=True)
class Resources:
    """What one trial gets, and how many run at once."""

    cpus: int
    gpus: float
    concurrent: int


def connect(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at `address`.

    Raises InputError if nothing answers there.
    """
    # one thread a trial, whatever the shell says: threads change results by rounding and slow each other down
    threads = {"env_vars": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "runtime_env": threads}
    try:
        # an address of our own unless one is given: a stray cluster must not be joined by accident
        if address is None:
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, TimeoutError) as error:
        raise InputError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from None


def disconnect() -> None:
    """Leave the cluster; one started here ends, and its workers with it."""
    ray.shutdown()


def cluster() -> tuple[int, float]:
    """CPUs and GPUs of the cluster that Ray is connected to."""
    total = ray.cluster_resources()
    return int(total.get("CPU", 0)), float(total.get("GPU", 0))


def allot(cpus: int, gpus: float, gpus_per_trial: float | None, max_concurrent: int | None) -> Resources:
    """What each trial gets of so many CPUs and GPUs; one GPU if there is any and nothing else was asked for.

    Raises InputError with the arithmetic if not even one trial fits.
    """
    each = (1.0 if gpus else 0.0) if gpus_per_trial is None else gpus_per_trial
    fitting = min(cpus, int(gpus / each + 1e-9)) if each else cpus
    if fitting < 1:
        raise InputError(
            f"a trial asks for 1 CPU and {each:g} GPU, there are {cpus} CPU and {gpus:g} GPU: "
            "no trial fits; lower --gpus-per-trial"
        )
    return Resources(1, each, min(fitting, max_concurrent or fitting))


def execute(
    flow: Flow,
    study: Study,
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
                tune.with_parameters(TrialWorker, study=study, workplace=workplace),
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
            self.flow.fail(trial_id, message["failure"])
            ended = True
        else:
            run = self.flow.running[trial_id]
            ended = self.flow.report(trial_id, message["row"], message["worker"])
            if ended and run.trial.phase != "confirm":
                self._workplace.forget(trial_id)  # only a confirmed student's weights are worth keeping
        self._on_change()
        return ended

    def lost(self, tune_id: str) -> None:
        """Tune gave a trial up: its worker died more often than is forgiven."""
        self.flow.fail(self._ids[tune_id], f"its worker died {WORKER_RETRIES + 1} times")
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


def as_config(run: Run) -> dict[str, Any]:
    """A trial as Tune carries it: one text, so that Tune neither flattens nor prints its settings."""
    return {"trial": json.dumps(asdict(run.trial)), "epochs_done": run.epochs_done}
