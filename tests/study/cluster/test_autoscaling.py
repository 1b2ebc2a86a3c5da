"""Which nodes an autoscaler may still add: the arithmetic over a cluster file of `ray up`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study.cluster import resources as cluster
from study.cluster.autoscaling import coming
from study.cluster.resources import Node, Resources, max_trials

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
def test_nodes_that_may_come_are_those_missing_of_each_type(
    path: Path, present: dict[str, int], added: list[dict[str, float]]
) -> None:
    assert coming(present, path) == added


@pytest.mark.parametrize("text", [None, "", "head_node_type: head", "{}"])
def test_file_that_is_none_of_ray_up_promises_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "file").write_text(text)
    assert coming({"head": 1}, tmp_path / "file") == []


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
def test_room_follows_the_nodes_and_is_never_none(
    monkeypatch: pytest.MonkeyPatch, workers: int, max_concurrent: int | None, there: list[Node], open_at_once: int
) -> None:
    nodes: dict[str, Any] = {"nodes": lambda: there[:1], "coming": lambda: there[1:]}
    for name, found in nodes.items():
        monkeypatch.setattr(cluster, name, found)
    assert max_trials(Resources(1, 1.0, 1, workers), max_concurrent) == open_at_once
