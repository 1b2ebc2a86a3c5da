"""Cache of derived data: its folder, and folders that are made once, complete or absent."""

from __future__ import annotations

import io
import sys
import threading
import time
from pathlib import Path

import pytest

from study.errors import InputError
from trainables.data.arrays.cache import ensure_files, get_cache_folder, load_or_make


def fill(folder: Path) -> None:
    (folder / "a.txt").write_text("a")


@pytest.mark.parametrize("given", ["", "relative", "./relative"])
def test_relative_cache_folder_is_ignored(monkeypatch, tmp_path, given):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert get_cache_folder("density") == tmp_path / ".cache" / "kdstudy" / "density"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert get_cache_folder("density") == tmp_path / "other" / "kdstudy" / "density"


def test_folder_is_made_once(tmp_path):
    folder = tmp_path / "kind" / "key"
    assert ensure_files(folder, "data", fill) == folder
    assert ensure_files(folder, "data", pytest.fail) == folder


@pytest.mark.parametrize("damage", ["changed", "missing", "further"])
def test_damaged_folder_is_replaced(tmp_path, damage):
    folder = ensure_files(tmp_path / "key", "data", fill)
    if damage == "missing":
        (folder / "a.txt").unlink()
    else:
        (folder / ("a.txt" if damage == "changed" else "b.txt")).write_text("b")
    assert ensure_files(folder, "data", fill) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "sha256"]


def test_of_two_that_make_a_folder_at_once_one_waits_for_the_other(tmp_path, monkeypatch):
    started, proceed, makers, loaded = threading.Event(), threading.Event(), [], []

    def make(folder: Path) -> None:
        makers.append(threading.current_thread())
        started.set()
        assert proceed.wait(120)
        fill(folder)

    def run() -> None:
        loaded.append(ensure_files(tmp_path / "key", "data", make))

    monkeypatch.setattr(sys, "stderr", stderr := io.StringIO())  # capsys loses what is printed while it is read
    threads = [threading.Thread(target=run) for _ in range(2)]
    threads[0].start()
    assert started.wait(120)
    threads[1].start()
    while "waiting for another process" not in stderr.getvalue():
        assert threads[1].is_alive()
        time.sleep(0.01)
    proceed.set()
    for thread in threads:
        thread.join(120)
    assert makers == threads[:1]
    assert loaded == [tmp_path / "key"] * 2


def test_folder_whose_making_fails_is_absent(tmp_path):
    def fail(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_files(tmp_path / "key", "data", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".key.lock"]


def test_folder_that_cannot_be_read_back_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"data cannot be read back from .*/key: .*XDG_CACHE_HOME"):
        load_or_make(tmp_path / "key", "data", lambda folder: None, fill)
