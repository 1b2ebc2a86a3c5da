"""How many trials fit: the arithmetic over nodes, and over those that a cluster file of `ray up` lets be added."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study.cluster.allocation import Node, allocate, list_addable_nodes
from study.errors import InputError
from study.preflight import DriverOptions, find_resources
from tests.study.toy import toy


@pytest.mark.parametrize(
    ("nodes", "gpus_each", "fitting"),
    [
        ([Node(2, 0)], None, 2),
        ([Node(16, 4)], None, 4),
        ([Node(16, 4)], 0.5, 8),
        ([Node(16, 4)], 0.3, 12),  # three to a GPU: a trial is not split over two
        ([Node(2, 4)], 0.25, 2),
        ([Node(16, 1), Node(16, 1), Node(4, 0)], 1, 2),
        ([Node(8, 1)], 0, 8),
    ],
)
def test_trials_fit_node_by_node(nodes: list[Node], gpus_each: float | None, fitting: int) -> None:
    assert allocate(nodes, gpus_each, None).concurrent == fitting


@pytest.mark.parametrize(
    ("nodes", "gpus_each", "workers", "fitting"),
    [
        ([Node(2, 0)], None, 2, 1),
        ([Node(3, 0), Node(3, 0)], None, 2, 3),  # one trial's workers lie on two nodes
        ([Node(16, 1), Node(16, 1)], None, 2, 1),
        ([Node(16, 4)], 0.5, 3, 2),
        ([Node(3, 8)], 0.25, 2, 1),
    ],
)
def test_workers_of_a_trial_fit_on_any_nodes(
    nodes: list[Node], gpus_each: float | None, workers: int, fitting: int
) -> None:
    allotted = allocate(nodes, gpus_each, None, workers)
    assert (allotted.concurrent, allotted.to_row()["cpus"]) == (fitting, workers)
    assert allotted.to_row()["gpus"] == allotted.gpus * workers


@pytest.mark.parametrize(
    ("nodes", "gpus_each", "message"),
    [
        ([Node(2, 0)], None, "3 workers of 1 CPU and 0 GPU each, there are 2 CPU and 0 GPU: room for 2; lower"),
        ([Node(16, 1), Node(16, 1)], None, "3 workers of 1 CPU and 1 GPU each, .*: room for 2; lower --workers-per-tr"),
        (
            [Node(16, 8)],
            2,
            "--gpus-per-worker 2: allowed is a share of one GPU, from 0 to 1; .* --workers-per-trial",
        ),
    ],
)
def test_workers_that_do_not_fit_are_refused_with_the_arithmetic(
    nodes: list[Node], gpus_each: float | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        allocate(nodes, gpus_each, None, 3)


def test_forecast_and_run_get_as_many_trials_as_the_workers_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.cluster.this_machine.count_cpus", lambda: 7)
    monkeypatch.setattr("study.preflight.list_gpu_names", list)
    allotted = {
        workers: find_resources(DriverOptions(tmp_path), toy(workers_per_trial=workers)) for workers in (1, 2, 3)
    }
    assert [allotted[workers].concurrent for workers in (1, 2, 3)] == [7, 3, 2]


def test_at_most_as_many_as_asked_for() -> None:
    assert allocate([Node(16, 0)], None, 3).concurrent == 3


@pytest.mark.parametrize(("nodes", "gpus_each"), [([Node(4, 0)], 1), ([Node(4, 0)], 0.5)])
def test_what_fits_on_no_node_is_refused_with_the_arithmetic(nodes: list[Node], gpus_each: float) -> None:
    with pytest.raises(InputError, match=rf"1 CPU and {gpus_each:g} GPU on one node, there are .* no trial fits"):
        allocate(nodes, gpus_each, None)


CPU, GPU = Node(8, 0), Node(4, 1)
TYPES = {
    "head": {"resources": {"CPU": 0}, "max_workers": 0},
    "cpu": {"resources": {"CPU": 8}, "max_workers": 3},
    "gpu": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 4},
}


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
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
    cluster_file: Path, present: dict[str, int], added: list[Node]
) -> None:
    assert list_addable_nodes(present, cluster_file) == added


@pytest.mark.parametrize("text", [None, "", "head_node_type: head", "{}"])
def test_file_that_ray_up_did_not_write_adds_no_nodes(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "file").write_text(text)
    assert list_addable_nodes({"head": 1}, tmp_path / "file") == []
