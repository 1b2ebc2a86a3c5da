"""Nodes that are not there yet: what a cluster's autoscaler may add, by the file that `ray up` leaves on the head.

Ray itself says only which nodes there are. Where the file is not seen, as on Kubernetes or from another machine than
the head, a study goes by those alone, and follows the cluster if it grows for other reasons.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CLUSTER_FILE = Path("~/ray_bootstrap_config.yaml")
"""Written by `ray up`, as JSON; Ray's own code knows an autoscaling cluster by it, too."""


def coming(present: Mapping[str, int], path: Path = CLUSTER_FILE) -> list[dict[str, float]]:
    """The resources of each node that may be added, given how many there are of each type; most GPUs first.

    Types are named as in the cluster file. A file whose head is not among those present is of another cluster.
    """
    try:
        cluster: dict[str, Any] = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    head, types = cluster.get("head_node_type"), cluster.get("available_node_types", {})
    if head not in present:
        return []
    workers = {name: kind for name, kind in types.items() if name != head}
    room = int(cluster.get("max_workers", 0)) - sum(present.get(name, 0) for name in workers)
    added: list[dict[str, float]] = []
    for name, kind in sorted(workers.items(), key=lambda item: -item[1].get("resources", {}).get("GPU", 0)):
        missing = int(kind.get("max_workers", 0)) - present.get(name, 0)
        added += [kind.get("resources", {})] * max(0, min(missing, room - len(added)))
    return added
