"""Check before a study starts that all nodes of a cluster share its storage: each reads a token and writes a file.

If they did not, each trial would write its checkpoint where no other node finds it, and no node would find a teacher.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError

from study.cluster.node_tasks import list_training_nodes, run_on_nodes
from study.errors import InputError
from study.storage.locations import display_path, mirror_of
from study.storage.mirror import Mirror
from study.storage.s3 import StorageError

TOKEN_FILE = "token"
UNREADABLE = "does not see what this machine writes there"
NOT_VISIBLE_HERE = "writes where this machine does not see it"


def check_shared_storage(storage: Path) -> None:
    """Raise InputError naming the nodes that do not share the storage, and why."""
    nodes = list_training_nodes()
    if len(nodes) < 2 and ray.get_runtime_context().get_node_id() in nodes:
        return
    mirror, place, token = mirror_of(storage), f"round-trip-{uuid.uuid4().hex}", uuid.uuid4().hex
    try:
        _write_text(mirror, f"{place}/{TOKEN_FILE}", token)
        answers = run_on_nodes({node: partial(probe_storage, mirror, place, token, node) for node in nodes})
        problems = {node: _describe_problem(answer) for node, answer in answers.items() if answer}
        healthy = nodes.keys() - problems.keys()
        problems |= {node: NOT_VISIBLE_HERE for node in healthy if _read_text(mirror, f"{place}/{node}") is None}
    finally:
        shutil.rmtree(storage / place, ignore_errors=True)
        mirror.delete_folder(place)
    # nodes lost in the meantime do not matter
    if failing := {name: problems[node] for node, name in list_training_nodes().items() if node in problems}:
        raise InputError(not_shared_message(storage, failing))


def not_shared_message(storage: Path, problems: Mapping[str, str]) -> str:
    """Return which nodes do not share the storage, and the ways out."""
    nodes = "; ".join(f"{node} {problem}" for node, problem in problems.items())
    return (
        f"storage {display_path(storage)} is not shared by all nodes ({nodes}): give a --storage-path that every node "
        "has mounted in the same place (NFS), or s3://BUCKET/PREFIX"
    )


def probe_storage(mirror: Mirror, place: str, token: str, node: str) -> str:
    """Return a node's problem with the storage; if it has none, write a file named after the node there."""
    try:
        if mirror.uri:
            mirror.folder.mkdir(parents=True, exist_ok=True)
        if _read_text(mirror, f"{place}/{TOKEN_FILE}") != token:
            return UNREADABLE
        _write_text(mirror, f"{place}/{node}", "")
    except StorageError as error:
        return f"reports: {error}"
    except OSError as error:
        return f"cannot write {error.filename} ({error.strerror})"
    return ""


def _describe_problem(answer: str | RayError) -> str:
    if isinstance(answer, GetTimeoutError | str):
        return str(answer)
    return f"cannot run a task ({str(answer).splitlines()[0]})"


def _read_text(mirror: Mirror, place: str) -> str | None:
    if mirror.uri:
        found = mirror.read_text(place)
        return found[0] if found else None
    path = mirror.folder / place
    return path.read_text() if path.is_file() else None


def _write_text(mirror: Mirror, place: str, text: str) -> None:
    if mirror.uri:
        mirror.write_text(place, text)
        return
    path = mirror.folder / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
