"""Whether all nodes of a cluster have the same software, found out before a trial is placed on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError

from study.cluster.node_tasks import ask_every_node, training_nodes
from study.errors import InputError

WAY_OUT = "install the same on every node, then start it again"


def check_installed() -> None:
    """Raises InputError naming the nodes that lack what trials need, or have another version of it."""
    nodes, here = training_nodes(), software()
    told = ask_every_node(dict.fromkeys(nodes, _looking()))
    amiss = [f"{nodes[node]} {problem}" for node, answer in told.items() if (problem := _amiss(answer, here))]
    if amiss:
        more = f"; and {len(amiss) - 3} more nodes" if len(amiss) > 3 else ""
        raise InputError(f"{'; '.join(amiss[:3])}{more}: {WAY_OUT}")


def software() -> dict[str, str]:
    """The versions of what trials need, as this process would import it; empty for what is missing."""
    return _looking()()


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What another node has that is not as here; empty if nothing."""
    return ", ".join(
        f"has {name} {there[name]} where the driver has {here[name]}" if there[name] else f"lacks {name}"
        for name in here
        if there[name] != here[name]
    )


def _amiss(answer: Any, here: Mapping[str, str]) -> str:
    """What a node's answer says that is not as here; nothing of a node that is lost, or silent: see round_trip.py."""
    if isinstance(answer, RayTaskError):
        return f"cannot say what is installed ({str(answer).splitlines()[-1]})"
    if isinstance(answer, RuntimeEnvSetupError):
        return f"cannot prepare a process ({' '.join(str(answer).split())[:200]})"
    return "" if isinstance(answer, RayError) else differences(answer, here)


def _looking() -> Callable[[], dict[str, str]]:
    def installed() -> dict[str, str]:
        import importlib.metadata
        import importlib.util
        import platform
        from hashlib import sha256
        from pathlib import Path

        found = {"python": platform.python_version()}
        for package in ("ray", "torch"):
            try:  # what comes after the plus names a build: those for CPUs and for GPUs compute the same
                found[package] = importlib.metadata.version(package).split("+")[0]
            except importlib.metadata.PackageNotFoundError:
                found[package] = ""
        for package in ("study", "trainables"):
            spec = importlib.util.find_spec(package)
            folders = list(spec.submodule_search_locations or []) if spec else []
            files = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
            code = sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]
            found[f"kdstudy's {package}"] = f"with code {code}" if files else ""
        return found

    return installed  # a function within a function travels by value, also to a node that lacks this module
