"""The parts of Ray that are not public and that the engine needs; tests/study/execution/test_ray_internals.py.

Each entry says what it is for and what the public way would cost. They are the same from Ray 2.54 to 2.60.
"""

from __future__ import annotations

from ray.air.execution._internal import RayActorManager
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.tune.execution import tune_controller

__all__ = ["DataParallelTrainer", "RayActorManager", "replace_actor_manager"]

# DataParallelTrainer is the base class of TorchTrainer, for developers but not exported by ray.train. TorchTrainer
# imports torch, seconds for a task without it, and its local mode joins a process group where a worker inherits
# the environment of torchrun.


def replace_actor_manager(manager: type[RayActorManager]) -> None:
    """Let Tune use this actor manager in the current process.

    Tune has no public hook between a worker's error and its handling of it, and ends the whole run on errors that it
    does not know, such as OutOfMemoryError.
    """
    tune_controller.RayActorManager = manager
