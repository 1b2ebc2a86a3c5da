"""Whether all nodes of a cluster share the storage, found out before a study starts: a token there and back.

Where they do not, each trial would keep its checkpoint where no other node finds it, and no teacher would be found.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.errors import InputError
from study.storage.mirror import Mirror, StorageError
from study.storage.places import mirror_of, shown

ANSWER_SECONDS = 45.0
"""Until then a node has started a process and looked."""

TOKEN = "token"
UNSEEN = "does not see what this machine writes there"
UNHEARD = "writes where this machine does not see it"
SILENT = f"has not answered within {ANSWER_SECONDS:g} s"


def check_shared(storage: Path) -> None:
    """Raises InputError naming the nodes that do not share the storage, and why."""
    nodes = _training()
    if len(nodes) < 2 and ray.get_runtime_context().get_node_id() in nodes:
        return
    mirror, place, token = mirror_of(storage), f"round-trip-{uuid.uuid4().hex}", uuid.uuid4().hex
    try:
        _write(mirror, f"{place}/{TOKEN}", token)
        problems = _asked(mirror, place, token, list(nodes))
        well = nodes.keys() - problems.keys()
        problems |= {node: UNHEARD for node in well if _read(mirror, f"{place}/{node}") is None}
    finally:
        shutil.rmtree(storage / place, ignore_errors=True)
        mirror.remove(place)
    if amiss := {name: problems[node] for node, name in _training().items() if node in problems}:
        raise InputError(refusal(storage, amiss))


def refusal(storage: Path, problems: Mapping[str, str]) -> str:
    """Which nodes do not share the storage, and the ways out."""
    told = "; ".join(f"{node} {problem}" for node, problem in problems.items())
    return (
        f"storage {shown(storage)} is not shared by all nodes ({told}): give a --storage-path that every node has "
        "mounted in the same place (NFS), or s3://BUCKET/PREFIX"
    )


def answer(mirror: Mirror, place: str, token: str, node: str) -> str:
    """What a node finds wrong with the storage; if nothing, it leaves a file of its own there."""
    try:
        if mirror.uri:
            mirror.here.mkdir(parents=True, exist_ok=True)
        if _read(mirror, f"{place}/{TOKEN}") != token:
            return UNSEEN
        _write(mirror, f"{place}/{node}", "")
    except StorageError as error:
        return f"says: {error}"
    except OSError as error:
        return f"cannot write {error.filename} ({error.strerror})"
    return ""


def _asked(mirror: Mirror, place: str, token: str, nodes: list[str]) -> dict[str, str]:
    """By node, its problem or its silence."""
    # one by one on its node, and nowhere else if that is lost
    ask = ray.remote(num_cpus=0, max_retries=0)(answer)
    asked = {
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            mirror, place, token, node
        ): node
        for node in nodes
    }
    done, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    problems = {asked[one]: SILENT for one in silent}
    for one in silent:
        ray.cancel(one, force=True)
    for one in done:
        try:
            problem = ray.get(one)
        except ray.exceptions.RayError as error:
            problem = f"cannot run a task ({str(error).splitlines()[0]})"
        if problem:
            problems[asked[one]] = problem
    return problems


def _read(mirror: Mirror, place: str) -> str | None:
    if mirror.uri:
        found = mirror.read(place)
        return found[0] if found else None
    path = mirror.here / place
    return path.read_text() if path.is_file() else None


def _write(mirror: Mirror, place: str, text: str) -> None:
    if mirror.uri:
        mirror.write(place, text)
        return
    path = mirror.here / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def _training() -> dict[str, str]:
    """The names of the nodes on which trials may be placed, by id."""
    alive = (node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
    return {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in alive}
