"""Parts of Ray that are not public: where a new Ray has moved one, its test says what it was for."""

from __future__ import annotations

import importlib
import inspect
import operator
import subprocess
import sys
from typing import Any

import pytest
import ray
from ray.tune.execution import tune_controller

from study.execution.ray_internals import keep_idle_actors

TRAIN = "ray.train.v2._internal"


def find(path: str, purpose: str) -> Any:
    """Return what `path`, as module:name, names; fail with a sentence if Ray has it no more."""
    module, _, name = path.partition(":")
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError):
        pytest.fail(f"Ray {ray.__version__} has no {path}, {purpose}: adapt study/execution/ray_internals.py")


def check_parameters(function: Any, *names: str) -> None:
    present = list(inspect.signature(function).parameters)
    if present != list(names):
        pytest.fail(
            f"Ray {ray.__version__}: {function.__qualname__} takes {present} and no longer {list(names)}: adapt "
            "study/execution/ray_internals.py and its callers"
        )


def test_trainer_without_torch_is_the_base_of_torch_trainer_and_imports_no_torch() -> None:
    purpose = "in which one-worker trials run"
    base = find("ray.train.v2.api.data_parallel_trainer:DataParallelTrainer", purpose)
    assert issubclass(find("ray.train.torch:TorchTrainer", purpose), base)
    code = (
        "import sys, ray.train\n"
        "from study.execution.ray_internals import DataParallelTrainer\n"
        "DataParallelTrainer(lambda: None, scaling_config=ray.train.ScalingConfig(num_workers=0)).fit()\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"Ray {ray.__version__}: local mode imports torch, or fails: {done.stderr}"


def test_tune_uses_the_actor_manager_that_this_process_sets() -> None:
    purpose = "by which Tune survives a worker that is killed for lack of memory"
    manager = find("ray.air.execution._internal:RayActorManager", purpose)
    assert find("ray.tune.execution.tune_controller:RayActorManager", purpose) is manager
    check_parameters(find("ray.air.execution._internal:RayActorManager._actor_start_failed", purpose),
                     "self", "tracked_actor", "exception")  # fmt: skip
    check_parameters(find("ray.air.execution._internal:RayActorManager._actor_task_failed", purpose),
                     "self", "tracked_actor_task", "exception")  # fmt: skip
    source = inspect.getsource(find("ray.tune.execution.tune_controller:TuneController.__init__", purpose))
    assert "RayActorManager" in source, f"Ray {ray.__version__}: Tune no longer makes its actor manager by this name"


def test_tune_makes_its_cache_of_actors_by_a_name_that_this_process_sets() -> None:
    purpose = "by which workers of a study on one machine stay between trials"
    cache = find("ray.tune.utils.object_cache:_ObjectCache", purpose)
    assert find("ray.tune.execution.tune_controller:_ObjectCache", purpose) is cache
    check_parameters(cache.increase_max, "self", "key", "by")
    source = inspect.getsource(find("ray.tune.execution.tune_controller:TuneController.__init__", purpose))
    assert "_ObjectCache(" in source, f"Ray {ray.__version__}: Tune no longer makes its cache of actors by this name"


@pytest.mark.parametrize("kept", [0, 3])
def test_so_many_idle_actors_are_kept_until_all_are_given_up(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_controller, "_ObjectCache", tune_controller._ObjectCache)  # restored at the end
    keep_idle_actors(kept)
    cache = tune_controller._ObjectCache(may_keep_one=True)
    for _ in range(5):  # trials that have started
        cache.increase_max("resources")
        cache.decrease_max("resources")
    cached = [actor for actor in range(5) if cache.cache_object("resources", actor)]
    assert len(cached) == max(kept, 1), "Tune itself keeps one"
    assert list(cache.flush_cached_objects()) == []
    assert list(cache.flush_cached_objects(force_all=True)) == cached


def test_worker_group_of_a_controller_and_its_placement_group_can_be_replaced() -> None:
    purpose = "by which workers of Ray Train live in the placement group that Tune reserved"
    group = find(f"{TRAIN}.execution.worker_group:WorkerGroup", purpose)
    assert find(f"{TRAIN}.execution.controller:TrainController.worker_group_cls", purpose) is group
    find(f"{TRAIN}.execution.worker_group:WorkerGroup._create_placement_group", purpose)
    handle = find(f"{TRAIN}.execution.worker_group.placement_group_handle:DefaultPlacementGroupHandle", purpose)
    check_parameters(handle, "pg")
    check_parameters(handle.shutdown, "self")


def test_trainer_leaves_room_for_another_controller() -> None:
    purpose = "by which a trainer starts the controller of ray_internals"
    path = "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._initialize_and_run_controller"
    check_parameters(find(path, purpose), "self", "controller_init_kwargs")


@pytest.mark.parametrize(
    ("path", "purpose"),
    [
        (
            "placement_group_callback:PlacementGroupCleanerCallback",
            "which must not remove the group that Tune reserved",
        ),
        ("datasets:DatasetsCallback", "which starts an actor for data sets that no trial passes to Ray"),
    ],
)
def test_callbacks_that_a_slot_leaves_out_are_among_those_that_a_trainer_makes(path: str, purpose: str) -> None:
    unwanted = find(f"{TRAIN}.callbacks.{path}", purpose)
    trainer = find("ray.train.v2.api.data_parallel_trainer:DataParallelTrainer", purpose)
    made = trainer(lambda: None, scaling_config=ray.train.ScalingConfig(num_workers=2))._create_default_callbacks()
    assert any(isinstance(callback, unwanted) for callback in made), (
        f"Ray {ray.__version__}: a trainer makes no {path}; lend_placement_group need not leave it out"
    )


def test_scaling_policy_is_an_argument_of_the_controller() -> None:
    purpose = "which must request no resources from the autoscaler: Tune has them"
    policy = find(f"{TRAIN}.execution.scaling_policy:FixedScalingPolicy", purpose)
    check_parameters(policy, "scaling_config")
    find("ray.train.v2._internal.execution.callback:ControllerCallback.after_controller_start", purpose)
    assert "scaling_policy=" in inspect.getsource(
        find("ray.train.v2.api.data_parallel_trainer:DataParallelTrainer.fit", purpose)
    )


def test_processes_that_a_study_on_one_machine_does_not_use_can_be_left_out() -> None:
    purpose = "by which Ray starts in half the time on this machine; its use is in study/cluster/local_node.py"
    check_parameters(find("ray._private.node:Node.start_monitor", purpose), "self")
    check_parameters(find("ray._private.node:Node.start_log_monitor", purpose), "self")
    check_parameters(find("ray._private.node:Node.start_api_server", purpose),
                     "self", "include_dashboard", "raise_on_failure")  # fmt: skip
    find("ray._private.parameter:RayParams", purpose)
    assert ray._private.parameter.RayParams(dashboard_agent_listen_port=0).dashboard_agent_listen_port == 0
    assert "ray._private.node.Node(" in inspect.getsource(ray.init), f"Ray {ray.__version__}: another class of node"
