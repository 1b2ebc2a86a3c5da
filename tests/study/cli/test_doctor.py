"""doctor: each of its checks with what would fail, and once the whole of it on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study.cli import doctor, hardware
from tests.study.cli.studies import SPACE, called


@pytest.mark.slow
def test_doctor_on_this_machine_with_a_space_starts_ray_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.py").write_text(SPACE)
    said = called("doctor", "toy.py", "--gpus-per-worker", "0")
    assert said.exit_code == 0, said.output
    for line in ("fit together", "Ray on this machine runs a task: 1 node", "its locks hold", "toy.py: toy, 2 cells",
                 "prepare: a simulated teacher", "2 seeds cannot decide"):  # fmt: skip
        assert line in said.stdout
    assert not (tmp_path / "runs").exists()


def test_doctor_fails_with_what_a_study_would_be_refused_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run_python", lambda *_: ("", "out of order"))
    said = called("doctor", tmp_path / "none.py", "--storage-path", "/proc/nowhere", "--address", "host:1")
    assert said.exit_code == 1
    assert "fails    torch and torchvision: out of order: pip install -U torch torchvision" in said.stdout
    assert "storage /proc cannot be written" in said.stdout
    assert "fails    Ray at host:1: out of order" in said.stdout
    assert f"no space file {tmp_path / 'none.py'}" in said.stdout


@pytest.mark.parametrize(("gpus_per_worker", "level"), [(None, "fails"), (1.0, "fails"), (0.0, "warning")])
def test_gpu_that_torch_cannot_use_fails_unless_no_trial_gets_one(
    gpus_per_worker: float | None, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.dumps({"torch": "2", "torchvision": "0", "cuda": None, "gpus": []})
    monkeypatch.setattr(doctor, "run_python", lambda *_: (answer, ""))
    fits, found = doctor.check_torch(["H100"], gpus_per_worker)
    assert (fits.level, found.level) == ("ok", level)
    assert "1 GPU (H100) that torch (CPU only) cannot use" in found.message


def test_missing_and_outdated_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["click>=8.1", "absent-package", "rich>=999", "pytest>=999; extra == 'test'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: asked)
    found = doctor.check_packages()
    assert found.level == "fails"
    assert "absent-package is missing" in found.message
    assert ">=999 is needed" in found.message
    assert "pytest" not in found.message


def test_a_process_is_asked_for_an_answer_its_problem_and_no_longer_than_allowed() -> None:
    assert doctor.run_python("print(1); print(2)", [], 30) == ("2", "")
    assert doctor.run_python("raise ValueError('no\\n such')", [], 30)[1] == "such"
    assert doctor.run_python("import os; os._exit(3)", [], 30) == ("", "exit code 3")
    assert doctor.run_python("import time; time.sleep(60)", [], 0.3) == ("", "no answer in 0.3 s")


@pytest.mark.parametrize(
    ("free", "shared", "level"),
    # Ray's rule: min(0.3 · memory, max(10 GB, 0.95 · /dev/shm)), ray/_private/utils.py resolve_object_store_memory
    [(16e9, 64e6, "warning"), (16e9, 8e9, "ok"), (64e9, 9e9, "warning"), (64e9, 12e9, "ok"), (1e9, 64e6, "warning")],
)
def test_shared_memory_is_held_against_rays_store(free: float, shared: float, level: str) -> None:
    assert hardware.check_shared_memory(free, shared).level == level


def test_little_memory_names_how_many_trials_fit() -> None:
    assert hardware.check_memory(3.5e9, 2).level == "ok"
    assert "--max-concurrent 3" in hardware.check_memory(3.5e9, 8).message


def test_storage_without_locks_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.level for finding in hardware.check_storage(tmp_path / "runs")][1:] == ["ok", "ok"]
    monkeypatch.setattr(hardware, "SECOND_LOCK", "")  # as where a second process is let in
    found = [finding for finding in hardware.check_storage(tmp_path) if "locks do not hold" in finding.message]
    assert [finding.level for finding in found] == ["fails"]
    assert not list(tmp_path.iterdir())


def test_storage_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    (found,) = hardware.check_storage(tmp_path / "runs" / "deeper")
    assert (found.level, "is no folder" in found.message) == ("fails", True)
