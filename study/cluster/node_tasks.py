"""Questions put to the nodes of a cluster on which trials may be placed, to each on itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ANSWER_SECONDS = 45.0
"""Until then a node has started a process and looked."""


def training_nodes() -> dict[str, str]:
    """The names of the nodes on which trials may be placed, by Ray's id."""
    alive = (node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
    return {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in alive}


def ask_every_node(questions: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each node answers to its question, by its id; a RayError where that fails, GetTimeoutError where none comes.

    A question asks on its node and nowhere else, once, and needs no free CPU.
    """
    # a function within a function travels by value, also to a node that lacks this module
    ask = ray.remote(num_cpus=0, max_retries=0)(lambda question: question())
    asked = {
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(question): node
        for node, question in questions.items()
    }
    done, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else ([], [])
    for one in silent:
        ray.cancel(one, force=True)
    quiet = GetTimeoutError(f"has not answered within {ANSWER_SECONDS:g} s")
    return {asked[one]: _got(one) for one in done} | {asked[one]: quiet for one in silent}


def _got(answer: Any) -> Any:
    try:
        return ray.get(answer)
    except RayError as error:
        return error
