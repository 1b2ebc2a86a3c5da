"""The parts of Ray that are not public and that the engine needs, the same from Ray 2.54 to 2.60.

Each function says what it is for and what the public way would cost. tests/study/execution/test_ray_internals.py names
what a new Ray has moved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.air.execution._internal import RayActorManager
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.tune.execution import tune_controller
from ray.tune.utils.object_cache import _ObjectCache
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

__all__ = [
    "DataParallelTrainer",
    "RayActorManager",
    "find_logs_folder",
    "keep_idle_actors",
    "lend_placement_group",
    "replace_actor_manager",
]

# DataParallelTrainer is the base class of TorchTrainer: a documented developer API that ray.train does not export.
# TorchTrainer imports torch, which takes seconds in a task without it, and its local mode joins a process group in a
# worker that inherits torchrun's environment.


def find_logs_folder() -> Path | None:
    """Return the folder of the logs of this node's workers; None in a process that is not connected.

    Publicly, logs are read by Ray's state API, which needs a dashboard.
    """
    node = ray._private.worker._global_node
    return Path(node.get_logs_dir_path()) if node is not None else None


def replace_actor_manager(manager: type[RayActorManager]) -> None:
    """Let Tune use this actor manager in the current process.

    Tune has no public hook between a worker's error and its handling of it, and ends the whole run on errors that it
    does not know, such as OutOfMemoryError.
    """
    tune_controller.RayActorManager = manager


def keep_idle_actors(count: int) -> None:
    """Let Tune in the current process keep up to `count` actors without a trial for the trials to come.

    Publicly it keeps one, and ends the others whenever no trial is waiting, as at the end of a search. Each one that is
    started again takes seconds.
    """

    class IdleActors(_ObjectCache):  # type: ignore[misc]
        def increase_max(self, key: Any, by: int = 1) -> None:
            """Tune asks for room for each trial that it is about to start; the first one makes it for all."""
            super().increase_max(key, by if key in self._max_num_objects else by + count)

    tune_controller._ObjectCache = IdleActors


def lend_placement_group(trainer: type[DataParallelTrainer], group: Any) -> type[DataParallelTrainer]:
    """Return this class of trainer with workers in the placement group `group`, which the trainer does not remove.

    A trainer of this class has the handle of its running controller as `controller`, so that a run can be killed.
    Publicly, a trainer reserves a placement group of its own in addition to Tune's. It stays reserved when Tune ends
    the actor that runs the trainer, until a cleaner has asked Ray's state API whether the trainer lives, which fails
    without a dashboard; the next trial then waits for these resources for ever. For data sets, which trials do not pass
    to Ray, and for a request to the autoscaler, which Tune has made, it would start an actor each.
    """
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
    from ray.train.v2._internal.execution.worker_group import WorkerGroup
    from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle

    class LentGroupHandle(DefaultPlacementGroupHandle):  # type: ignore[misc]
        def shutdown(self) -> None:
            """Leave the group to Tune."""

    class LentWorkerGroup(WorkerGroup):  # type: ignore[misc]
        def _create_placement_group(self, *_: Any) -> LentGroupHandle:
            return LentGroupHandle(group)

    class LentScalingPolicy(FixedScalingPolicy):  # type: ignore[misc]
        def after_controller_start(self, *_: Any) -> None:
            """Request nothing, as all methods below."""

        def _maybe_send_resource_request(self) -> None: ...

        def _cancel_resource_request(self) -> None: ...

    class LentController(TrainController):  # type: ignore[misc]
        worker_group_cls = LentWorkerGroup

    class LentTrainer(trainer):  # type: ignore[misc]
        controller: Any = None

        def _create_default_callbacks(self) -> list[Any]:
            unwanted = (DatasetsCallback, PlacementGroupCleanerCallback)
            return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unwanted)]

        def _initialize_and_run_controller(self, **options: Any) -> Any:
            options["scaling_policy"] = LentScalingPolicy(self.scaling_config)
            # on this node, whose disk has the run's folder; owned by this actor, it ends with it
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            self.controller = ray.remote(num_cpus=0, scheduling_strategy=here)(LentController).remote(**options)
            ray.get(self.controller.run.remote())
            return ray.get(self.controller.get_result.remote())

    return LentTrainer
