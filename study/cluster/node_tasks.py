"""Short functions run on every node on which trials may be placed, to examine that node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ANSWER_SECONDS = 45.0
"""Time within which a live node starts a process and answers."""


def list_training_nodes() -> dict[str, str]:
    """Return the names of the nodes on which trials may be placed, by Ray's node id."""
    alive = (node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
    return {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in alive}


def run_on_nodes(functions: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Run each function once on the node whose id it is given for; return the results by node id.

    The result is a RayError where the task fails, a GetTimeoutError where it takes too long. Needs no free CPU.
    """
    # a lambda is pickled by value, so that it also reaches a node without this module
    task = ray.remote(num_cpus=0, max_retries=0)(lambda function: function())
    nodes = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(function): node
        for node, function in functions.items()
    }
    done, late = ray.wait(list(nodes), num_returns=len(nodes), timeout=ANSWER_SECONDS) if nodes else ([], [])
    for reference in late:
        ray.cancel(reference, force=True)
    timeout = GetTimeoutError(f"has not answered within {ANSWER_SECONDS:g} s")
    return {nodes[reference]: get_or_error(reference) for reference in done} | {nodes[r]: timeout for r in late}


def get_or_error(reference: Any) -> Any:
    """Return a task's result, or the RayError by which it failed."""
    try:
        return ray.get(reference)
    except RayError as error:
        return error
