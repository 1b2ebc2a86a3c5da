"""Ray Tune as the engine's executor: starts the coordinator's trials and returns their reports.

Tune only places trials on resources, keeps actors alive between trials and restarts those whose worker died. What runs,
what stops and what is recorded is decided in study/engine/coordinator.py: Tune's searcher, scheduler and state files
see nothing but a trial's serialized text. All calls go through study/execution/tune_bridge.py.
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

import study.cluster.connection  # noqa: F401  # isort: skip  (first: it sets what Ray reads when it is imported)
import ray
from ray import cloudpickle, tune
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.cluster.allocation import Resources
from study.engine.coordinator import Coordinator
from study.execution.ray_internals import RayActorManager, keep_idle_actors, replace_actor_manager
from study.execution.retries import MAX_WORKER_RETRIES
from study.execution.slot_exchange import SlotExchange
from study.execution.train_slot import TrainSlot
from study.execution.tune_bridge import StopCheck, StopTuning, TuneBridge
from study.execution.worker import TrialWorker
from study.execution.worker_context import WorkerContext
from study.execution.worker_failures import to_worker_failure
from study.records.rows import RunningTrial
from study.study import Study

UNLIMITED_TRIALS = 1_000_000
"""Tune's own limit is fixed for a run; TuneBridge's follows the cluster and is the effective one."""

EXCHANGE_CALLS = 10_000
"""Calls that the exchange holds at once: one for each worker and one for each slot, most of them waiting."""

KILLED_FOR_MEMORY = "an end by Ray, as its node's memory was nearly full: run fewer at once, --max-concurrent"
"""One line for the twenty that Ray prints."""


def execute(
    coordinator: Coordinator,
    context: WorkerContext,
    resources: Resources,
    space: Any,
    check_stop: StopCheck,
    notify: Callable[[str], None],
    max_trials: Callable[[], int] | None = None,
) -> str:
    """Run the coordinator's trials until none is left or the study must stop; return why it stopped, or "".

    `space` is the module of the space file; `notify` gets the tasks' messages to the user. `max_trials` returns how
    many trials may be under way and is called regularly, for clusters whose size changes during a run. Without it, on
    one machine, workers without a trial are kept, as no autoscaler waits for what they hold.
    """
    # classes defined in a space file are pickled by value: workers cannot import it
    cloudpickle.register_pickle_by_value(space)
    replace_actor_manager(ActorManager)
    keep_idle_actors(0 if max_trials else resources.concurrent)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scratch = Path(tempfile.mkdtemp(prefix="kdstudy-tune-"))
    bridge = TuneBridge(coordinator, context, check_stop, notify, max_trials or (lambda: resources.concurrent))
    try:
        _make_tuner(_make_trainable(coordinator.study, context, resources), bridge, scratch).fit()
    except StopTuning as stop:
        if stop.__cause__ is not None:
            raise stop.__cause__ from None
        return str(stop)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    coordinator.writer.flush()
    bridge.delete_checkpoints()
    return ""


def _make_tuner(trainable: Any, bridge: TuneBridge, scratch: Path) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=CoordinatorSearcher(bridge),
            scheduler=CoordinatorScheduler(bridge),
            num_samples=-1,
            max_concurrent_trials=UNLIMITED_TRIALS,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=MAX_WORKER_RETRIES),
            callbacks=[BridgeCallback(bridge)],
            verbose=0,
        ),
    )


def _make_trainable(study: Study, context: WorkerContext, resources: Resources) -> Any:
    """Return the reusable actor class that runs trials, with the resources it requests."""
    worker = {"CPU": resources.cpus, "GPU": resources.gpus}
    if resources.workers == 1:
        single = tune.with_parameters(TrialWorker, study=study, context=context, gpus=resources.gpus)
        return tune.with_resources(single, worker)
    # an empty first bundle: the slot's own actor takes nothing from its workers
    bundles = tune.PlacementGroupFactory([{}, *[worker] * resources.workers])
    slot = tune.with_parameters(TrainSlot, study=study, context=context, exchange=_start_exchange())
    return tune.with_resources(slot, bundles)


def _start_exchange() -> Any:
    """Start the actor that connects slots with their workers, on the driver's own node, which is never a spot node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_concurrency=EXCHANGE_CALLS, scheduling_strategy=here)(SlotExchange)
    return actor.remote()


class ActorManager(RayActorManager):  # type: ignore[misc]
    """Ray's actor manager, which reports workers killed for lack of memory as actors that died.

    Tune does not handle OutOfMemoryError and would end the whole run.
    """

    def _actor_start_failed(self, tracked_actor: Any, exception: Exception) -> None:
        super()._actor_start_failed(tracked_actor, _as_actor_death(exception, tracked_actor))

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        actor = tracked_actor_task._tracked_actor
        super()._actor_task_failed(tracked_actor_task, _as_actor_death(exception, actor))


def _as_actor_death(error: Exception, tracked_actor: Any) -> Exception:
    if not isinstance(error, OutOfMemoryError):
        return error
    name = f"actor {tracked_actor.actor_id}"  # the same each time Tune reports it, so that it counts once
    death: Exception = RayActorError(name, f"{error}\n{KILLED_FOR_MEMORY}")
    return death


class BridgeCallback(tune.Callback):  # type: ignore[misc]
    """Calls the bridge in each iteration of Tune's loop, also while no reports arrive."""

    def __init__(self, bridge: TuneBridge):
        self._bridge = bridge

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._bridge.tick()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._bridge.mark_placed(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Tune keeps every trial until the run ends, each with running averages of all its results
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()


class CoordinatorSearcher(Searcher):  # type: ignore[misc]
    """Tune searcher that suggests the coordinator's next trial."""

    def __init__(self, bridge: TuneBridge):
        super().__init__(metric="message", mode="max")
        self._bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        run = self._bridge.next_trial(trial_id)
        if run is None:
            return None if self._bridge.coordinator.running else str(Searcher.FINISHED)
        return to_config(run)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        # without an error the coordinator ended the trial when its last row arrived
        if error:
            self._bridge.retry_or_fail(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the records are the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the records are the only state."""


class CoordinatorScheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune scheduler that passes each result to the coordinator, which stops or continues the trial."""

    def __init__(self, bridge: TuneBridge):
        super().__init__()
        self._bridge = bridge

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave the order to Tune, which starts its pending trials in turn.

        FIFOScheduler returns the first pending trial, often one whose actor is still starting. Tune would move it to
        the next actor that becomes free and discard its own: where trials are shorter than the start of an actor, some
        slots would never start. It would also look through all trials of the study each time.
        """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        ended, progressed = self._bridge.handle_report(trial.trial_id, result["message"])
        if progressed:
            trial.run_metadata.num_failures = 0
        return str(TrialScheduler.STOP if ended else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # called for every worker failure; the searcher is called for the last one only
        self._bridge.record_failure(trial.trial_id, to_worker_failure(_read_error(trial)))


def _read_error(trial: Any) -> Exception | None:
    """Return a Tune trial's last error. Not by Trial.get_error, which reads a copy that Tune makes later."""
    path = trial.pickled_error_file
    if path is None or not Path(path).is_file():
        return None
    # Tune stores errors only as pickles; this one is from this run, in a temporary folder of mode 0700
    error: Exception = cloudpickle.loads(Path(path).read_bytes())
    return error


def to_config(run: RunningTrial) -> dict[str, Any]:
    """Return a trial as Tune's config: a single text, so that Tune neither flattens nor prints its settings."""
    return {"trial": json.dumps(asdict(run.trial)), "epochs_done": run.epoch, "costs": json.dumps(dict(run.costs))}
