"""How a cluster is found and joined, and what its workers import."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle

from study.cluster import connection
from study.cluster.allocation import Node, Resources
from study.errors import InputError


def test_auto_without_a_cluster_names_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_found(address: str) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(connection.ray._private.services, "canonicalize_bootstrap_address_or_die", none_found)
    with pytest.raises(InputError, match=r"no Ray cluster runs on this machine, .* give http://HOST:PORT"):
        connection.connect("auto")


@pytest.mark.parametrize("given", ["{bad", "[]", "7", "null", "'{}'", "runtime_env"])
def test_configuration_of_a_job_that_ray_cannot_read_is_one_line(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", given)
    with pytest.raises(InputError, match=r"^RAY_JOB_CONFIG_JSON_ENV_VAR=.*, a JSON object; unset the variable$"):
        connection.connect(None)


@pytest.mark.parametrize("given", ["", "{}", '{"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "4"}}}'])
def test_configuration_of_a_job_is_left_to_ray(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", given)
    connection.check_job_config()


@pytest.mark.parametrize(
    ("exported", "message"),
    [
        ("http://127.0.0.1:8265", "'auto' follows RAY_ADDRESS, which is 'http://127.0.0.1:8265': give that"),
        ("127.0.0.1:1", "no Ray cluster at '.*:1' .*refused"),
    ],
)
def test_auto_follows_the_shells_own_address(exported: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", exported)
    with pytest.raises(InputError, match=message):
        connection.connect("auto")


def test_dashboard_address_is_no_cluster_to_join() -> None:
    with pytest.raises(InputError, match="here allowed are 'auto'"):
        connection.connect("http://127.0.0.1:8265")


def test_workers_find_what_the_driver_finds_and_the_package_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.py").write_text("raise ImportError('not the package')")
    (tmp_path / "helper.py").write_text("answer = 42")
    # without the package's own folder, as in an editable installation
    paths = [path for path in sys.path if not (Path(path) / "study" / "study.py").is_file()]
    monkeypatch.setattr(sys, "path", [*paths, str(tmp_path)])
    hook = cloudpickle.dumps(connection.make_path_hook(is_local=True))
    code = (
        "import pickle, sys; pickle.loads(bytes.fromhex(sys.argv[1]))(); sys.path.insert(0, '.');"
        "import study.study, helper; print(helper.answer)"
    )
    words = [sys.executable, "-c", code, hook.hex()]
    answer = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.stdout == "42\n", answer.stderr


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
        monkeypatch.setattr(connection, name, replacement)
    assert connection.max_trials(Resources(1, 1.0, 1, workers), max_concurrent) == open_at_once


@pytest.fixture
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    monkeypatch.setattr("study.cluster.this_machine.count_threads_left", lambda cpus: (math.inf, ""))


@pytest.mark.usefixtures("no_limits")
def test_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(InputError, match=r"Ray does not start .* \(RuntimeError: no luck\): its logs are in"):
        connection.connect(None)


@pytest.mark.usefixtures("no_limits")
@pytest.mark.parametrize("failures", [1, 2, 3])
def test_ray_that_is_too_slow_is_started_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    def start(**options: object) -> None:
        starts.append(options)
        if len(starts) <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.4, 0, 0))
    with (
        nullcontext() if failures < 3 else pytest.raises(InputError, match=r"logs; 1000 processes compete for \d+ cor")
    ):
        connection.connect(None)
    assert len(starts) == min(failures + 1, 3)


def test_process_that_is_connected_already_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(InputError, match=r"call ray\.shutdown\(\) first"):
        connection.connect(None)
