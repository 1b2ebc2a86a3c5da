"""Whether all nodes of a cluster share the storage, found out before a study starts: a token there and back.

Where they do not, each trial would keep its checkpoint where no other node finds it, and no teacher would be found.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError

from study.cluster.node_tasks import ask_every_node, training_nodes
from study.errors import InputError
from study.storage.locations import display_path, mirror_of
from study.storage.mirror import Mirror, StorageError

TOKEN = "token"
UNSEEN = "does not see what this machine writes there"
UNHEARD = "writes where this machine does not see it"


def check_shared(storage: Path) -> None:
    """Raises InputError naming the nodes that do not share the storage, and why."""
    nodes = training_nodes()
    if len(nodes) < 2 and ray.get_runtime_context().get_node_id() in nodes:
        return
    mirror, place, token = mirror_of(storage), f"round-trip-{uuid.uuid4().hex}", uuid.uuid4().hex
    try:
        _write(mirror, f"{place}/{TOKEN}", token)
        told = ask_every_node({node: partial(answer, mirror, place, token, node) for node in nodes})
        problems = {node: _problem(said) for node, said in told.items() if said}
        well = nodes.keys() - problems.keys()
        problems |= {node: UNHEARD for node in well if _read(mirror, f"{place}/{node}") is None}
    finally:
        shutil.rmtree(storage / place, ignore_errors=True)
        mirror.remove(place)
    # a node that was lost meanwhile shares nothing, and needs not
    if amiss := {name: problems[node] for node, name in training_nodes().items() if node in problems}:
        raise InputError(refusal(storage, amiss))


def refusal(storage: Path, problems: Mapping[str, str]) -> str:
    """Which nodes do not share the storage, and the ways out."""
    told = "; ".join(f"{node} {problem}" for node, problem in problems.items())
    return (
        f"storage {display_path(storage)} is not shared by all nodes ({told}): give a --storage-path that every node "
        "has mounted in the same place (NFS), or s3://BUCKET/PREFIX"
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


def _problem(said: str | RayError) -> str:
    if isinstance(said, GetTimeoutError | str):
        return str(said)
    return f"cannot run a task ({str(said).splitlines()[0]})"


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
