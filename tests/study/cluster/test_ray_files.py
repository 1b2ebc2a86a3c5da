"""Where a Ray that is started here keeps its files: folders, homes, shared memory."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from study.cluster import ray_files
from study.errors import InputError

SESSION = "session_2026-11-28_09-15-45_123456_4194304"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_rays_folder_lies_where_temporary_files_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path("/tmp") / f"kd-{os.getpid()}"
    place.mkdir()
    try:
        monkeypatch.setenv(name, str(place))
        monkeypatch.setattr("tempfile.tempdir", None)
        folder = ray_files.make_ray_folder()
        assert folder == place / f"ray-{os.getuid()}"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert ray_files.make_ray_folder() == folder
    finally:
        (place / f"ray-{os.getuid()}").rmdir()
        place.rmdir()


@pytest.mark.parametrize("place", ["x" * 60, "long/" * 20, "grün", "job 数", "two\nlines", "missing/by/far"])
def test_unusable_temporary_folder_is_replaced_by_a_short_one(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / place if place.isascii() else Path("/tmp") / place
    monkeypatch.setattr(ray_files, "_list_temporary_folders", lambda: [folder, Path("/tmp")])
    chosen = ray_files.make_ray_folder()
    assert chosen.parent == Path("/tmp")
    with socket.socket(socket.AF_UNIX) as server:  # Ray's longest
        (chosen / SESSION / "sockets").mkdir(parents=True)
        server.bind(str(chosen / SESSION / "sockets" / "plasma_store"))
    (chosen / SESSION / "sockets" / "plasma_store").unlink()
    (chosen / SESSION / "sockets").rmdir()
    (chosen / SESSION).rmdir()


def test_without_any_folder_each_reason_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [Path("/tmp/" + "x" * 90), Path("/tmp/grün"), Path("/proc/nowhere")]
    monkeypatch.setattr(ray_files, "_list_temporary_folders", lambda: folders)
    with pytest.raises(InputError, match=r"too long for sockets; .* cannot read; .* cannot be written .*: set TMPDIR"):
        ray_files.make_ray_folder()


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_folder_of_somebody_else_is_left_alone(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(f"/tmp/kd{os.getpid()}{kind}")
    place.mkdir()
    taken = place / f"ray-{os.getuid()}"
    monkeypatch.setattr(ray_files, "_list_temporary_folders", lambda: [place])
    try:
        if kind == "file":
            taken.write_text("")
        else:
            taken.symlink_to(tmp_path if kind == "link" else "nowhere")
        chosen = ray_files.make_ray_folder()
        assert chosen.parent == place
        assert chosen != taken
        assert not list(tmp_path.iterdir())
        chosen.rmdir()
    finally:
        taken.unlink()
        place.rmdir()


@pytest.mark.parametrize("home", ["/proc/nohome", "/proc/1/root/nohome", "/dev/null", "/dev/null/deeper"])
def test_token_stays_in_the_environment_where_no_home_can_keep_it(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    ray_files.provide_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.write_bytes(b"\xff")])
def test_token_that_cannot_be_read_is_replaced_in_the_environment(
    make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the folder that Docker makes where it mounts a file that is not there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    (tmp_path / ".ray").mkdir()
    make(tmp_path / ".ray" / "auth_token")
    ray_files.provide_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.parametrize("given", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_users_own_choice_of_a_token_stands(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nohome")
    monkeypatch.setenv(given, "mine")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    ray_files.provide_token()
    assert os.environ.get("RAY_AUTH_TOKEN", "mine") == "mine"


def test_home_that_can_be_written_keeps_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ray_files.provide_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert ray_files.find_home() == str(tmp_path)


def test_user_without_a_home_gets_rays_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert ray_files.find_home() == str(ray_files.make_ray_folder())
    assert not ray_files.has_writable_home()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_object_store_lies_on_disk_without_shared_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ray_files.choose_object_store(tmp_path) == {}
    place = tmp_path / "shm"
    if kind == "file":
        place.write_text("")
    monkeypatch.setattr(ray_files, "SHARED_MEMORY", place)
    chosen = ray_files.choose_object_store(tmp_path)
    assert chosen["_plasma_directory"] == str(tmp_path)
    assert 75e6 < chosen["object_store_memory"] <= 1e9


@pytest.mark.parametrize(("limit", "store"), [(0, 0), (80_000_000, 0), (201_000_000, 200_000_000), (10**12, 10**9)])
def test_object_store_is_no_larger_than_files_may_be(
    limit: int, store: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, resource.RLIM_INFINITY))
    with nullcontext() if store else pytest.raises(InputError, match=r"needs one of 80 MB: raise .*ulimit -f"):
        assert ray_files.choose_object_store(tmp_path)["object_store_memory"] == store
