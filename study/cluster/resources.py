"""The Ray cluster a study runs on: joining or starting one, what it has, and what of it a trial gets."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Ray reads these when it is imported. Telemetry off; Tune's own log files, state snapshots, progress tables and
# SIGINT handler off: the records, the display and run.py do these jobs.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1000000000"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"

import ray
from ray.exceptions import RayError

from study.cluster import addresses, autoscaling
from study.cluster.software_check import check_installed
from study.errors import InputError

NODE_TYPE = "ray.io/node-group"
"""The label under which a node of an autoscaling cluster carries its type."""

GPU_KIND = "accelerator_type:"
"""Before the name of a node's GPUs, as a resource."""

GPU_PARTS = 10_000
"""Ray counts a GPU in so many parts, and rounds what is asked for down to whole ones."""


@dataclass(frozen=True)
class Resources:
    """What each worker of a trial gets, and how many trials run at once."""

    cpus: float
    gpus: float
    concurrent: int
    workers: int = 1
    """Of one trial."""

    @property
    def trial_gpus(self) -> float:
        return self.gpus * self.workers

    def __str__(self) -> str:
        trials = f"{self.concurrent} trial{'s' * (self.concurrent > 1)} at once"
        workers = f"{self.workers} workers of " if self.workers > 1 else ""
        return f"{trials}, each with {workers}{self.cpus:g} CPU and {self.gpus:g} GPU"

    def as_row(self) -> dict[str, Any]:
        """As each trial's row records it: what all its workers have together."""
        return {"device": "cuda" if self.gpus else "cpu", "cpus": self.cpus * self.workers, "gpus": self.trial_gpus}


@dataclass(frozen=True)
class Node:
    """What one machine has."""

    cpus: int
    gpus: int

    def workers(self, gpus_each: float) -> int:
        """How many workers of one CPU and so many GPUs fit. A fraction is one of a single GPU: Ray splits none."""
        if gpus_each == 0:
            return self.cpus
        return min(self.cpus, self.gpus * (GPU_PARTS // int(gpus_each * GPU_PARTS)))

    def __str__(self) -> str:
        return f"{self.cpus} CPU and {self.gpus} GPU"


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
        _join(address, quiet)
    # Ray puts its own handler in: a batch system's goodbye is an interruption
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _join(address: str, options: dict[str, Any]) -> None:
    where = _found() if address == "auto" else address
    if addresses.uses_job_api(where):
        raise InputError(f"address {where!r}: here allowed are {addresses.FORMS}")
    addresses.check(where, found=address == "auto")
    try:
        ray.init(address=address, **options)
        check_installed()
    except (RayError, ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        ray.shutdown()
        raise InputError(f"cannot join the Ray cluster at {where!r}: {' '.join(str(error).split())[:400]}") from None
    except InputError:
        ray.shutdown()
        raise


def _found() -> str:
    """The head that 'auto' means, as HOST:PORT."""
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
    """Leave the cluster; one started here ends, and its workers with it."""
    ray.shutdown()


def nodes() -> list[Node]:
    """The nodes of the cluster that Ray is connected to."""
    return [_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def gpu_kinds() -> list[str]:
    """The GPUs that the cluster has, by Ray's names."""
    named = {name for node in ray.nodes() if node["Alive"] for name in node["Resources"]}
    return sorted(name.removeprefix(GPU_KIND) for name in named if name.startswith(GPU_KIND))


def pending_nodes() -> list[Node]:
    """The nodes that the cluster's autoscaler may still add."""
    present = Counter(node["Labels"].get(NODE_TYPE, "") for node in ray.nodes() if node["Alive"])
    return [_node(resources) for resources in autoscaling.coming(present)]


def max_trials(resources: Resources, max_concurrent: int | None) -> int:
    """How many such trials may be under way at once; at least one, which then waits for a node."""
    places = sum(node.workers(resources.gpus) for node in nodes() + pending_nodes())
    return max(1, min(places // resources.workers, max_concurrent or places))


def _node(resources: Mapping[str, float]) -> Node:
    return Node(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def allocate(
    there: list[Node], gpus_per_trial: float | None, max_concurrent: int | None, workers: int = 1
) -> Resources:
    """What each trial gets, and how many fit; one GPU a worker if there is any and nothing else was asked for.

    A worker is placed on one node, the workers of a trial on any.
    Raises InputError with the arithmetic if not even one trial fits.
    """
    each = (1.0 if any(node.gpus for node in there) else 0.0) if gpus_per_trial is None else gpus_per_trial
    if not 0 <= each <= 1:  # no process trains on several
        raise InputError(
            f"--gpus-per-trial {each:g}: allowed is a share of one GPU, from 0 to 1; a trial trains on several by "
            "--workers-per-trial"
        )
    if 0 < each < 1 / GPU_PARTS:
        raise InputError(f"--gpus-per-trial {each:g}: the smallest share of a GPU is {1 / GPU_PARTS:g}")
    places = sum(node.workers(each) for node in there)
    fitting = places // workers
    if fitting < 1:
        raise InputError(_too_much(there, each, places, workers))
    return Resources(1, each, min(fitting, max_concurrent or fitting), workers)


def _too_much(there: list[Node], each: float, places: int, workers: int) -> str:
    alike = Counter(there).items()
    named = ", ".join(f"{count} × {node}" if count > 1 else str(node) for node, count in alike) or "no nodes"
    if workers == 1:
        fewer = "lower --gpus-per-trial" if each else "give the nodes CPUs"
        return f"a trial asks for 1 CPU and {each:g} GPU on one node, there are {named}: no trial fits; {fewer}"
    fewer = "lower --workers-per-trial" + (" or --gpus-per-trial" if each else "")
    return (
        f"a trial asks for {workers} workers of 1 CPU and {each:g} GPU each, there are {named}: room for {places}; "
        f"{fewer}"
    )
