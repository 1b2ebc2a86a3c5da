"""Drawn crowds: their people stay within limits, and their files are drawn once and again if damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from study.errors import InputError
from trainables.data.arrays.cache import get_cache_folder
from trainables.data.synthetic import crowds
from trainables.data.synthetic.crowds import DrawnCrowds

DRAWN = DrawnCrowds(train=3, test=2, height=40, width=56, most=20)


def test_drawn_crowds_have_people_within_their_limits_and_images():
    loaded = DrawnCrowds(train=12, test=4, height=40, width=56, fewest=3, most=9).load()
    assert (len(loaded.train), len(loaded.test)) == (12, 4)
    for drawn in (*loaded.train, *loaded.test):
        assert 3 <= drawn.count <= 9
        assert ((drawn.heads >= 0) & (drawn.heads <= [55, 39])).all()


@pytest.mark.parametrize("settings", [{"train": 1}, {"height": 16}, {"fewest": 0}, {"fewest": 50, "most": 50}])
def test_impossible_drawn_crowds_are_refused(settings):
    with pytest.raises(InputError, match="allowed are"):
        DrawnCrowds(**settings)


# -- their files


def cached() -> list[Path]:
    return [path for path in get_cache_folder("crowds").iterdir() if path.suffix != ".lock"]


def test_drawn_crowds_are_written_once_and_are_the_same_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = DRAWN.load()
    (folder,) = cached()
    assert sorted(path.name for path in folder.iterdir()) == ["sha256", "test_data", "train_data"]
    monkeypatch.setattr(crowds, "draw_scene", None)
    assert DRAWN.load().fingerprint == first.fingerprint
    assert first.note == ""
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert DRAWN.load().fingerprint == first.fingerprint
    assert DrawnCrowds(train=3, test=2, height=40, width=56, most=20, seed=1).load().fingerprint != first.fingerprint


@pytest.mark.parametrize("damage", ["image", "points", "truncated", "missing", "unfinished", "more"])
def test_drawn_crowds_that_are_damaged_are_drawn_again(monkeypatch, tmp_path, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = DRAWN.load()
    (folder,) = cached()
    image, points = folder / "train_data/images/IMG_2.jpg", folder / "test_data/ground_truth/GT_IMG_1.mat"
    if damage in ("image", "points"):
        path = image if damage == "image" else points
        content = path.read_bytes()
        path.write_bytes(content[:-30] + bytes([content[-30] ^ 1]) + content[-29:])
    elif damage == "truncated":
        image.write_bytes(image.read_bytes()[:99])
    elif damage == "missing":
        image.unlink()
        (folder / "train_data/ground_truth/GT_IMG_2.mat").unlink()
    elif damage == "unfinished":
        shutil.rmtree(folder / "test_data")
    else:
        shutil.copy(image, image.with_name("IMG_4.jpg"))
    again = DRAWN.load()
    assert again.fingerprint == first.fingerprint
    assert (len(again.train), len(again.test)) == (3, 2)
    assert cached() == [folder]


def test_drawn_crowds_that_cannot_be_written_are_an_error_of_the_folder(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written to .*/file/kdstudy/crowds \(Not a dir.*XDG_CACHE_HOME"):
        DRAWN.load()
