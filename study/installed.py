"""Whether all nodes of a cluster have the same software, found out before a study starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.errors import InputError

ANSWER_SECONDS = 45.0
"""Until then a node has started a process and looked; of silent ones the storage's round trip tells."""


def check_installed() -> None:
    """Raises InputError naming the nodes that lack what trials need, or have another version of it."""
    installed = _inventory()
    here, ask, asked = installed(), ray.remote(num_cpus=0, max_retries=0)(installed), {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            asked[ask.options(scheduling_strategy=there).remote()] = name
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else ([], [])
    amiss = [f"{asked[one]} {problem}" for one in done if (problem := _differs(one, here))]
    if amiss:
        more = f"; and {len(amiss) - 3} more nodes" if len(amiss) > 3 else ""
        raise InputError(f"{'; '.join(amiss[:3])}{more}: install the same on every node, then start it again")


def _differs(answer: Any, here: Mapping[str, str]) -> str:
    """What a node's answer says that is not as here; nothing of a node that is lost meanwhile."""
    try:
        there = ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        return f"cannot say what is installed ({str(error).splitlines()[-1]})"
    except ray.exceptions.RuntimeEnvSetupError as error:
        return f"cannot prepare a process ({' '.join(str(error).split())[:200]})"
    except RayError:
        return ""
    return ", ".join(
        f"has {name} {there[name]} where here is {here[name]}" if there[name] else f"lacks {name}"
        for name in here
        if there[name] != here[name]
    )


def _inventory() -> Callable[[], dict[str, str]]:
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
