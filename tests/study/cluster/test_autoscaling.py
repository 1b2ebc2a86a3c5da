"""Which nodes an autoscaler may still add: the arithmetic over a cluster file of `ray up`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study.cluster import resources as cluster
from study.cluster.allocation import Node, Resources
from study.cluster.autoscaling import list_addable_nodes
from study.cluster.resources import max_trials

HEAD, CPU, GPU = {"CPU": 0}, {"CPU": 8}, {"CPU": 4, "GPU": 1}
TYPES = {
    "head": {"resources": HEAD, "max_workers": 0},
    "cpu": {"resources": CPU, "max_workers": 3},
    "gpu": {"resources": GPU, "max_workers": 4},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(json.dumps({"head_node_type": "head", "max_workers": 5, "available_node_types": TYPES}))
    return file


@pytest.mark.parametrize(
    ("present", "added"),
    [
        ({"head": 1}, [GPU] * 4 + [CPU]),  # of all types together no more than max_workers
        ({"head": 1, "gpu": 2}, [GPU] * 2 + [CPU]),
        ({"head": 1, "gpu": 4, "cpu": 1}, []),
        ({"head": 1, "cpu": 3}, [GPU] * 2),
        ({"head": 1, "gpu": 9}, []),
        ({"": 1}, []),  # a cluster started by hand, on a machine where such a file lies
        ({"master": 1, "gpu": 1}, []),
    ],
)
def test_addable_nodes_are_those_missing_of_each_type(
    path: Path, present: dict[str, int], added: list[dict[str, float]]
) -> None:
    assert list_addable_nodes(present, path) == added


@pytest.mark.parametrize("text", [None, "", "head_node_type: head", "{}"])
def test_file_that_ray_up_did_not_write_adds_no_nodes(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "file").write_text(text)
    assert list_addable_nodes({"head": 1}, tmp_path / "file") == []


@pytest.mark.parametrize(
    ("workers", "max_concurrent", "there", "open_at_once"),
    [
        (1, None, [Node(8, 2), Node(4, 4)], 6),
        (1, 4, [Node(8, 2), Node(4, 4)], 4),
        (2, None, [Node(8, 2), Node(4, 3)], 2),
        (1, None, [Node(8, 0)], 1),  # the nodes are gone: one trial waits until there are some again
        (1, 4, [], 1),
    ],
)
def test_max_trials_follows_the_nodes_and_is_at_least_one(
    monkeypatch: pytest.MonkeyPatch, workers: int, max_concurrent: int | None, there: list[Node], open_at_once: int
) -> None:
    replacements: dict[str, Any] = {"list_nodes": lambda: there[:1], "list_pending_nodes": lambda: there[1:]}
    for name, replacement in replacements.items():
        monkeypatch.setattr(cluster, name, replacement)
    assert max_trials(Resources(1, 1.0, 1, workers), max_concurrent) == open_at_once
