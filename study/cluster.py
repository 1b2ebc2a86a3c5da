"""The Ray cluster a study runs on: joining or starting one, what it has, and what of it a trial gets."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
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

from study.errors import InputError


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


def nodes() -> list[Node]:
    """The nodes of the cluster that Ray is connected to."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in alive]


def allot(there: list[Node], gpus_per_trial: float | None, max_concurrent: int | None, workers: int = 1) -> Resources:
    """What each trial gets, and how many fit; one GPU a worker if there is any and nothing else was asked for.

    A worker is placed on one node, the workers of a trial on any.
    Raises InputError with the arithmetic if not even one trial fits.
    """
    each = (1.0 if any(node.gpus for node in there) else 0.0) if gpus_per_trial is None else gpus_per_trial
    if not math.isfinite(each) or (each > 1 and each % 1):
        raise InputError(f"--gpus-per-trial {each:g}: allowed are a fraction of one GPU, or whole GPUs")
    if each > 1 and workers > 1:
        raise InputError(f"--gpus-per-trial {each:g} with {workers} workers: each has one GPU, or a fraction of one")
    places = sum(node.workers(each) for node in there)
    fitting = places // workers
    if fitting < 1:
        raise InputError(_too_much(there, each, places, workers))
    return Resources(1, each, min(fitting, max_concurrent or fitting), workers)


def _too_much(there: list[Node], each: float, places: int, workers: int) -> str:
    named = ", ".join(f"{node.cpus} CPU and {node.gpus} GPU" for node in there)
    if workers == 1:
        return (
            f"a trial asks for 1 CPU and {each:g} GPU on one node, there are {named}: no trial fits; "
            "lower --gpus-per-trial"
        )
    return (
        f"a trial asks for {workers} workers of 1 CPU and {each:g} GPU each, there are {named}: room for {places}; "
        "lower --workers-per-trial or --gpus-per-trial"
    )
