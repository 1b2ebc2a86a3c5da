"""How a cluster is found and joined, and what its workers import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ray import cloudpickle

from study.cluster import resources as cluster
from study.errors import InputError


def test_auto_without_a_cluster_names_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_found(address: str) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster.ray._private.services, "canonicalize_bootstrap_address_or_die", none_found)
    with pytest.raises(InputError, match=r"no Ray cluster runs on this machine, .* give http://HOST:PORT"):
        cluster.connect("auto")


@pytest.mark.parametrize("given", ["{bad", "[]", "7", "null", "'{}'", "runtime_env"])
def test_configuration_of_a_job_that_ray_cannot_read_is_one_line(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", given)
    with pytest.raises(InputError, match=r"^RAY_JOB_CONFIG_JSON_ENV_VAR=.*, a JSON object; unset the variable$"):
        cluster.connect(None)


@pytest.mark.parametrize("given", ["", "{}", '{"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "4"}}}'])
def test_configuration_of_a_job_is_left_to_ray(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", given)
    cluster.check_job_config()


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
        cluster.connect("auto")


def test_dashboard_address_is_no_cluster_to_join() -> None:
    with pytest.raises(InputError, match="here allowed are 'auto'"):
        cluster.connect("http://127.0.0.1:8265")


def test_workers_find_what_the_driver_finds_and_the_package_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.py").write_text("raise ImportError('not the package')")
    (tmp_path / "helper.py").write_text("answer = 42")
    # without the package's own folder, as in an editable installation
    paths = [path for path in sys.path if not (Path(path) / "study" / "study.py").is_file()]
    monkeypatch.setattr(sys, "path", [*paths, str(tmp_path)])
    hook = cloudpickle.dumps(cluster.make_path_hook(is_local=True))
    code = (
        "import pickle, sys; pickle.loads(bytes.fromhex(sys.argv[1]))(); sys.path.insert(0, '.');"
        "import study.study, helper; print(helper.answer)"
    )
    words = [sys.executable, "-c", code, hook.hex()]
    answer = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.stdout == "42\n", answer.stderr
