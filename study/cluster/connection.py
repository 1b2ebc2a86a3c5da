"""The Ray cluster of a study: start or join one, and list its nodes."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from study.cluster import this_machine
from study.cluster.ray_files import find_home

# Ray reads these when it is imported. Telemetry off; Tune's own log files, state snapshots, progress tables and
# SIGINT handler off: the records, the live display and the driver replace them.
os.environ["HOME"] = find_home()
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1000000000"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
# within a Ray job, WORKER_ENVIRONMENT counts and not the job's own variables of these names
os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
# Ray would start a worker for each CPU at once, none of which a study can use: they lack its runtime environment
os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112  (Ray reads it in this case)

import ray
from ray.exceptions import RayError

from study.cluster.addresses import ADDRESS_FORMS, check_address, uses_job_api
from study.cluster.allocation import Node, Resources, list_addable_nodes
from study.cluster.local_node import start_local_node
from study.cluster.software_check import check_software
from study.errors import InputError, join_lines
from study.space_file import list_import_paths
from study.storage.downloads import VARIABLE, are_downloads_permitted

NODE_TYPE_LABEL = "ray.io/node-group"
"""Label with the node type in an autoscaling cluster."""

GPU_TYPE_PREFIX = "accelerator_type:"
"""Prefix of the resource that names a node's type of GPU."""

START_ATTEMPTS = 3
"""Ray waits 30 seconds for its own processes, which are too few on a machine that is busy with other work."""

WORKER_ENVIRONMENT = {
    # one thread per trial, whatever the shell sets: threads change rounding and slow each other down
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc keeps freed memory: else each step's tensors are mapped and cleared again, up to half of a step's time. One
    # arena, as others are limited to 64 MB and trials train in a thread
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "RAY_TRAIN_V2_ENABLED": "1",
    # Ray Train looks at workers every 0.5 instead of 2 s, and gives the process groups of lost ones 1 instead of 30 s
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "1",
    # asks Ray's state API, which needs a dashboard; losses are handled after the fact
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # relative paths of a study stay those of the driver
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # each worker has its own GPU as cuda:0
    "TRAIN_ENABLE_SHARE_CUDA_VISIBLE_DEVICES": "0",
    # the driver prints and the records log
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
}
"""Environment variables of all processes that train, whatever a node of the cluster sets."""


def connect(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at `address`.

    Raises InputError if Ray does not start here, if no cluster answers there, refuses this shell, or has other
    software, and in a process that is connected already.
    """
    check_train_version()
    check_job_config()
    check_unconnected()
    environment = {
        "env_vars": WORKER_ENVIRONMENT | ({VARIABLE: "1"} if are_downloads_permitted() else {}),  # Ray adds the hook
        "worker_process_setup_hook": make_path_hook(is_local=address is None),
    }
    # what Ray logs while it starts follows in the error, in one line
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "runtime_env": environment}
    if address is None:
        _start(quiet)
    else:
        _join(address, quiet)
    this_machine.interrupt_on_end_signals()  # replaces Ray's own handler of SIGTERM


def check_train_version() -> None:
    """Raise InputError if Ray Train V2, in which all trials run, is switched off in this shell."""
    given = os.environ.get("RAY_TRAIN_V2_ENABLED", "1")
    if given.lower() not in ("1", "true"):
        raise InputError(f"RAY_TRAIN_V2_ENABLED={given}: trials run in Ray Train V2; unset the variable or set it to 1")


def check_job_config() -> None:
    """Raise InputError if what Ray reads as the configuration of a job in this shell is no JSON object."""
    given = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "")
    try:
        config = json.loads(given or "{}")
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise InputError(
            f"RAY_JOB_CONFIG_JSON_ENV_VAR={given[:60]}: Ray reads the configuration of a job there, a JSON object; "
            "unset the variable"
        )


def make_path_hook(is_local: bool) -> Callable[[], None]:
    """Return a function by which a worker finds the modules that the driver finds, as those next to the space file.

    Ray puts the current folder before all others when the first task comes. A user's study.py there must not hide the
    package, which is therefore imported before.
    """
    paths = list_import_paths()

    def adopt_paths() -> None:
        if is_local:  # in the driver's order
            sys.path[:] = paths + [path for path in sys.path if path not in paths]
        else:
            sys.path.extend(path for path in paths if path not in sys.path and Path(path).is_dir())
        for package in ("study", "trainables"):
            with suppress(ImportError):  # the check of the nodes' software names what is missing
                importlib.import_module(package)

    return adopt_paths


def check_unconnected() -> None:
    """Raise InputError if this process uses Ray already: its workers lack what a study sets before Ray starts."""
    if ray.is_initialized():
        raise InputError(
            "this process is connected to Ray already, as notebooks are after ray.init: call ray.shutdown() first, or "
            "run the study in a process of its own"
        )


def _start(options: dict[str, Any]) -> None:
    machine = this_machine.list_start_options()
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            # "local" and not None, with which Ray would join a cluster that happens to run on this machine
            with start_local_node():
                ray.init(address="local", include_dashboard=False, **machine, **options)
        except UnicodeEncodeError as error:
            ray.shutdown()
            name = str(error.object).encode(errors="backslashreplace").decode()
            raise InputError(f"{name}: Ray takes no names that are not UTF-8: rename it, or use a link to it") from None
        except Exception as error:  # of any kind: Ray's processes are many
            ray.shutdown()
            if attempt == START_ATTEMPTS or "timed out" not in str(error):
                raise InputError(
                    f"Ray does not start on this machine ({type(error).__name__}: {join_lines(error)}): its logs are "
                    f"in {machine['_temp_dir']}/session_latest/logs{this_machine.describe_memory_limit()}"
                    f"{this_machine.describe_load()}"
                ) from None
        else:
            logging.getLogger("ray").setLevel(logging.ERROR)
            return


def _join(address: str, options: dict[str, Any]) -> None:
    head = _resolve_auto() if address == "auto" else address
    if uses_job_api(head):
        raise InputError(f"address {head!r}: here allowed are {ADDRESS_FORMS}")
    check_address(head, resolved=address == "auto")
    try:
        ray.init(address=address, **options)
        logging.getLogger("ray").setLevel(logging.ERROR)
        check_software()
    except (RayError, ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        ray.shutdown()
        raise InputError(f"cannot join the Ray cluster at {head!r}: {join_lines(error)}") from None
    except InputError:
        ray.shutdown()
        raise


def _resolve_auto() -> str:
    """Return the head that 'auto' stands for, as HOST:PORT."""
    if "://" in (given := os.environ.get("RAY_ADDRESS", "")):
        raise InputError(f"'auto' follows RAY_ADDRESS, which is {given!r}: give that as --address, or unset it")
    try:
        return str(ray._private.services.canonicalize_bootstrap_address_or_die("auto"))
    except (ConnectionError, ValueError):
        raise InputError(
            "no Ray cluster runs on this machine, and 'auto' is for the nodes of one: leave --address out to run here, "
            "or give http://HOST:PORT of a cluster's dashboard"
        ) from None


def disconnect() -> None:
    """Leave the cluster; one that `connect` started ends with its workers."""
    ray.shutdown()


def list_nodes() -> list[Node]:
    """Return the live nodes of the connected cluster."""
    return [Node.from_resources(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def list_gpu_types() -> list[str]:
    """Return the types of GPU in the cluster, by Ray's names."""
    names = {name for node in ray.nodes() if node["Alive"] for name in node["Resources"]}
    return sorted(name.removeprefix(GPU_TYPE_PREFIX) for name in names if name.startswith(GPU_TYPE_PREFIX))


def list_pending_nodes() -> list[Node]:
    """Return the nodes that the cluster's autoscaler may still add."""
    present = Counter(node["Labels"].get(NODE_TYPE_LABEL, "") for node in ray.nodes() if node["Alive"])
    return list_addable_nodes(present)


def max_trials(resources: Resources, max_concurrent: int | None) -> int:
    """Return how many such trials may be under way at once; at least one, which may have to wait for a node."""
    workers = sum(node.count_workers(resources.gpus) for node in list_nodes() + list_pending_nodes())
    return max(1, min(workers // resources.workers, max_concurrent or workers))
