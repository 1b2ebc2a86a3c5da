"""The resources of a trial: how many workers fit on which nodes, those included that an autoscaler may add.

Imports nothing of Ray: --dry-run allocates this machine without the third of a second that its import takes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.errors import InputError

GPU_RESOLUTION = 10_000
"""Parts into which Ray divides a GPU; requested shares are rounded down to whole parts."""

CLUSTER_FILE = Path("~/ray_bootstrap_config.yaml")
"""Written on the head by `ray up`, as JSON; Ray's own code recognizes an autoscaling cluster by it too."""


@dataclass(frozen=True)
class Resources:
    """Resources of each worker of a trial, and the number of concurrent trials."""

    cpus: float
    gpus: float
    concurrent: int
    workers: int = 1
    """Workers of one trial."""

    @property
    def trial_gpus(self) -> float:
        return self.gpus * self.workers

    def __str__(self) -> str:
        trials = f"{self.concurrent} trial{'s' * (self.concurrent > 1)} at once"
        workers = f"{self.workers} workers of " if self.workers > 1 else ""
        return f"{trials}, each with {workers}{self.cpus:g} CPU and {self.gpus:g} GPU"

    def to_row(self) -> dict[str, Any]:
        """Return the columns of a trial's row: the resources of all its workers together."""
        return {"device": "cuda" if self.gpus else "cpu", "cpus": self.cpus * self.workers, "gpus": self.trial_gpus}


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of one machine."""

    cpus: int
    gpus: int

    @classmethod
    def from_resources(cls, resources: Mapping[str, float]) -> Node:
        """Return the node with these resources, by Ray's names."""
        return cls(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))

    def count_workers(self, gpus_per_worker: float) -> int:
        """Return how many workers of one CPU and this share of a GPU fit; Ray places no share across two GPUs."""
        if gpus_per_worker == 0:
            return self.cpus
        return min(self.cpus, self.gpus * (GPU_RESOLUTION // int(gpus_per_worker * GPU_RESOLUTION)))

    def __str__(self) -> str:
        return f"{self.cpus} CPU and {self.gpus} GPU"


def allocate(
    nodes: list[Node], gpus_per_worker: float | None, max_concurrent: int | None, workers_per_trial: int = 1
) -> Resources:
    """Return the resources of each trial and how many trials fit on the nodes.

    A worker gets one CPU and, unless `gpus_per_worker` is given, one GPU if any node has one. It is placed on a single
    node, the workers of a trial on any.
    Raises InputError with the arithmetic if not even one trial fits.
    """
    gpus = gpus_per_worker
    if gpus is None:
        gpus = 1.0 if any(node.gpus for node in nodes) else 0.0
    if not 0 <= gpus <= 1:  # a process trains on a single GPU
        raise InputError(
            f"--gpus-per-worker {gpus:g}: allowed is a share of one GPU, from 0 to 1; a trial trains on several by "
            "--workers-per-trial"
        )
    if 0 < gpus < 1 / GPU_RESOLUTION:
        raise InputError(f"--gpus-per-worker {gpus:g}: the smallest share of a GPU is {1 / GPU_RESOLUTION:g}")
    fitting = sum(node.count_workers(gpus) for node in nodes)
    trials = fitting // workers_per_trial
    if trials < 1:
        raise InputError(_no_fit_message(nodes, gpus, fitting, workers_per_trial))
    return Resources(1, gpus, min(trials, max_concurrent or trials), workers_per_trial)


def _no_fit_message(nodes: list[Node], gpus: float, fitting: int, workers_per_trial: int) -> str:
    counts = Counter(nodes).items()
    listed = ", ".join(f"{count} × {node}" if count > 1 else str(node) for node, count in counts) or "no nodes"
    if workers_per_trial == 1:
        advice = "lower --gpus-per-worker" if gpus else "give the nodes CPUs"
        return f"a trial asks for 1 CPU and {gpus:g} GPU on one node, there are {listed}: no trial fits; {advice}"
    advice = "lower --workers-per-trial" + (" or --gpus-per-worker" if gpus else "")
    return (
        f"a trial asks for {workers_per_trial} workers of 1 CPU and {gpus:g} GPU each, there are {listed}: room for "
        f"{fitting}; {advice}"
    )


def list_addable_nodes(present: Mapping[str, int], path: Path = CLUSTER_FILE) -> list[Node]:
    """Return the nodes that a cluster's autoscaler may add, most GPUs first: Ray itself lists only those that exist.

    `present` counts the nodes by type, named as in the cluster file. A file whose head type is not present belongs to
    another cluster and is ignored. Without one, as on other machines than the head, a study counts on the nodes that
    exist, and follows the cluster if it grows.
    """
    try:
        cluster: dict[str, Any] = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: this user has no home
        return []
    head, types = cluster.get("head_node_type"), cluster.get("available_node_types", {})
    if head not in present:
        return []
    workers = {name: Node.from_resources(spec.get("resources", {})) for name, spec in types.items() if name != head}
    free = int(cluster.get("max_workers", 0)) - sum(present.get(name, 0) for name in workers)
    added: list[Node] = []
    for name, node in sorted(workers.items(), key=lambda item: -item[1].gpus):
        missing = int(types[name].get("max_workers", 0)) - present.get(name, 0)
        added += [node] * max(0, min(missing, free - len(added)))
    return added
