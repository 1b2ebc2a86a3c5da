"""Ray Tune behind one small door (study/execution/tune_bridge.py): hands out the flow's trials, passes their rows back.

Tune only places trials on resources, keeps actors alive between them and restarts those whose worker died. What runs,
what is stopped and what is remembered is decided in study/engine/coordinator.py: Tune's searcher, scheduler and state
files see nothing but a trial's text.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study.cluster.resources import Resources  # isort: skip  (first: it sets what Ray reads when it is imported)
from ray import cloudpickle, tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.engine.coordinator import Coordinator
from study.execution.retries import WORKER_RETRIES, WorkerFailure
from study.execution.tune_bridge import StopTuning, TuneBridge, Watch
from study.execution.worker import TrialWorker, WorkerContext
from study.execution.worker_group import TrialWorkerGroup
from study.records.rows import RunningTrial
from study.study import Study

MOST_TRIALS = 1_000_000
"""Tune's own limit is fixed for a run; the door's is what counts."""

NODE_DIED = "its node has died"
"""How Ray tells the loss of a node from a worker's own death: in words, and in nothing else."""

KILLED_FOR_MEMORY = "an end by Ray, as its node's memory was nearly full: run fewer at once, --max-concurrent"
"""In a line what Ray says in twenty."""


def execute(
    flow: Coordinator,
    workplace: WorkerContext,
    resources: Resources,
    space: Any,
    watch: Watch,
    say: Callable[[str], None],
    room: Callable[[], int] | None = None,
) -> str:
    """Run the flow until nothing is left to start, or until it is to stop; returns why.

    `space` is the module of the space file; `say` gets what tasks tell the user. `room` is asked now and then how many
    trials may be under way, where that changes during a run.
    """
    # classes written in a space file travel by value: workers cannot import it
    cloudpickle.register_pickle_by_value(space)
    tune_controller.RayActorManager = ActorManager
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scratch = Path(tempfile.mkdtemp(prefix="kdstudy-tune-"))
    door = TuneBridge(flow, workplace, watch, say, room or (lambda: resources.concurrent))
    try:
        tune.Tuner(
            _placed(flow.study, workplace, resources),
            tune_config=tune.TuneConfig(
                search_alg=CoordinatorSearcher(door),
                scheduler=CoordinatorScheduler(door),
                num_samples=-1,
                max_concurrent_trials=MOST_TRIALS,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=WORKER_RETRIES),
                callbacks=[Tick(door)],
                verbose=0,
            ),
        ).fit()
    except StopTuning as leaving:
        if leaving.__cause__ is not None:
            raise leaving.__cause__ from None
        return str(leaving)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    flow.flush()
    door.forget()
    return ""


def _placed(study: Study, workplace: WorkerContext, resources: Resources) -> Any:
    """The actor of one trial after the other, and what it asks for."""
    worker = {"CPU": resources.cpus, "GPU": resources.gpus}
    if resources.workers == 1:
        alone = tune.with_parameters(TrialWorker, study=study, workplace=workplace, gpus=resources.gpus)
        return tune.with_resources(alone, worker)
    # nothing for the group's own actor, so that the workers of as many trials fit as there is room for
    bundles = tune.PlacementGroupFactory([{}, *[worker] * resources.workers])
    return tune.with_resources(tune.with_parameters(TrialWorkerGroup, study=study, workplace=workplace), bundles)


class ActorManager(RayActorManager):  # type: ignore[misc]
    """Tells of workers that Ray kills before their node's memory is full as of others that die.

    Tune does not know that error, and would end the whole run.
    """

    def _actor_start_failed(self, tracked_actor: Any, exception: Exception) -> None:
        super()._actor_start_failed(tracked_actor, _as_death(exception, tracked_actor))

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        actor = tracked_actor_task._tracked_actor
        super()._actor_task_failed(tracked_actor_task, _as_death(exception, actor))


def _as_death(error: Exception, tracked_actor: Any) -> Exception:
    if not isinstance(error, OutOfMemoryError):
        return error
    name = f"actor {tracked_actor.actor_id}"  # the same each time that Tune tells of it
    death: Exception = RayActorError(name, f"{error}\n{KILLED_FOR_MEMORY}")
    return death


class Tick(tune.Callback):  # type: ignore[misc]
    """Tune's word for: time passes, also while no row comes."""

    def __init__(self, door: TuneBridge):
        self._door = door

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._door.tick()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._door.placed(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Tune keeps every trial to the end, and of each the running averages of everything it was told
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()


class CoordinatorSearcher(Searcher):  # type: ignore[misc]
    """Tune's word for: what runs next."""

    def __init__(self, door: TuneBridge):
        super().__init__(metric="message", mode="max")
        self._door = door

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        run = self._door.open(trial_id)
        if run is None:
            return None if self._door.flow.running else str(Searcher.FINISHED)
        return as_config(run)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        # without an error, the flow has ended the trial already: when it heard the last row
        if error:
            self._door.lost(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """The rows are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """The rows are the state."""


class CoordinatorScheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune's word for: a row has come, does the trial go on."""

    def __init__(self, door: TuneBridge):
        super().__init__()
        self._door = door

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        ended, got_on = self._door.hear(trial.trial_id, result["message"])
        if got_on:
            trial.run_metadata.num_failures = 0  # forgiven: a long trial may lose many a node
            self._door.forgive(trial.trial_id)
        return str(TrialScheduler.STOP if ended else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # told at every death of a worker; the searcher hears of the last one only
        self._door.died(trial.trial_id, death_of(_error(trial)))


def _error(trial: Any) -> Exception | None:
    """What Tune's trial died of last. Not by its get_error: that looks where Tune copies it later."""
    path = trial.pickled_error_file
    if path is None or not Path(path).is_file():
        return None
    # Tune keeps it in no other form; the file is this run's own, in a folder that nobody else may write
    error: Exception = cloudpickle.loads(Path(path).read_bytes())
    return error


def death_of(error: Exception | None) -> WorkerFailure:
    """What an error says of the worker: whether it is its own end, or its node's."""
    if not isinstance(error, RayActorError):
        return WorkerFailure(str(error)) if error else WorkerFailure()
    # unavailable: nobody answers any more where a worker was, which Ray sees long before it counts a node as lost
    of_node = error.preempted or isinstance(error, ActorUnavailableError) or NODE_DIED in error.error_msg
    return WorkerFailure(str(error), error.actor_id or "", of_node, announced=error.preempted)


def as_config(run: RunningTrial) -> dict[str, Any]:
    """A trial as Tune carries it: one text, so that Tune neither flattens nor prints its settings."""
    return {"trial": json.dumps(asdict(run.trial)), "epochs_done": run.epochs_done}
