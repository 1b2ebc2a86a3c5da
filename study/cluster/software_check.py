"""Check that all nodes of a cluster have the same software, before a trial is placed on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError

from study import code_version
from study.cluster.node_tasks import list_training_nodes, run_on_nodes
from study.code_version import PACKAGES, CodeVersion, read_package
from study.errors import InputError, join_lines

INSTALL_ADVICE = "install the same on every node, then start it again"

MAX_NODES_NAMED = 3
"""Nodes named in an error; a cluster set up wrongly differs on all of them."""

cloudpickle.register_pickle_by_value(code_version)  # a node that lacks this project can tell so, too


def check_software() -> None:
    """Raise InputError naming the nodes that lack what trials need, or have another version of it."""
    nodes, here = list_training_nodes(), read_needed_versions()
    answers = run_on_nodes(dict.fromkeys(nodes, _make_reader()))
    problems = [
        f"{nodes[node]} {text}" for node, answer in answers.items() if (text := _describe_problem(answer, here))
    ]
    if problems:
        others = len(problems) - MAX_NODES_NAMED
        more = f"; and {others} more nodes" if others > 0 else ""
        raise InputError(f"{'; '.join(problems[:MAX_NODES_NAMED])}{more}: {INSTALL_ADVICE}")


def read_needed_versions() -> dict[str, str]:
    """Return the versions of what trials need as this process would import it; empty strings for what is missing."""
    return _make_reader()()


def describe_differences(node: Mapping[str, str], driver: Mapping[str, str]) -> str:
    """Return how a node's versions differ from the driver's; empty if they do not."""
    return ", ".join(
        f"has {name} {node[name]} where the driver has {driver[name]}" if node[name] else f"lacks {name}"
        for name in driver
        if node[name] != driver[name]
    )


def _describe_problem(answer: Any, driver: Mapping[str, str]) -> str:
    """Return what is wrong with a node; "" for a lost or silent one, which storage_check.py reports."""
    if isinstance(answer, RayTaskError):
        return f"cannot report its versions ({str(answer).splitlines()[-1]})"
    if isinstance(answer, RuntimeEnvSetupError):
        return f"cannot prepare a process ({join_lines(answer, 200)})"
    return "" if isinstance(answer, RayError) else describe_differences(answer, driver)


def _make_reader() -> Callable[[], dict[str, str]]:
    """Return a nested function: it is pickled by value, so that it also reaches a node without this module."""

    def read() -> dict[str, str]:
        import importlib.metadata
        import platform

        versions = {"python": platform.python_version()}
        for package in ("ray", "torch"):
            try:  # the part after the plus names a build: those for CPU and for GPU compute the same
                versions[package] = importlib.metadata.version(package).split("+")[0]
            except importlib.metadata.PackageNotFoundError:
                versions[package] = ""
        for package in PACKAGES:
            code = CodeVersion({}, package_files=read_package(package))
            versions[f"kdstudy's {package}"] = f"with code {code.digest[:8]}" if code.files else ""
        return versions

    return read
