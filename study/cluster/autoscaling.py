"""Nodes that a cluster's autoscaler may add, from the file that `ray up` leaves on the head.

Ray itself lists only the nodes that exist. Without the file, as on Kubernetes or on other machines than the head, a
study counts on those alone and follows the cluster if it grows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CLUSTER_FILE = Path("~/ray_bootstrap_config.yaml")
"""Written by `ray up`, as JSON; Ray's own code recognizes an autoscaling cluster by it too."""


def list_addable_nodes(present: Mapping[str, int], path: Path = CLUSTER_FILE) -> list[dict[str, float]]:
    """Return the resources of each node that may be added, most GPUs first.

    `present` counts the nodes by type, named as in the cluster file. A file whose head type is not present belongs to
    another cluster and is ignored.
    """
    try:
        cluster: dict[str, Any] = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: this user has no home
        return []
    head, types = cluster.get("head_node_type"), cluster.get("available_node_types", {})
    if head not in present:
        return []
    workers = {name: spec for name, spec in types.items() if name != head}
    free = int(cluster.get("max_workers", 0)) - sum(present.get(name, 0) for name in workers)
    added: list[dict[str, float]] = []
    for name, spec in sorted(workers.items(), key=lambda item: -item[1].get("resources", {}).get("GPU", 0)):
        missing = int(spec.get("max_workers", 0)) - present.get(name, 0)
        added += [spec.get("resources", {})] * max(0, min(missing, free - len(added)))
    return added
