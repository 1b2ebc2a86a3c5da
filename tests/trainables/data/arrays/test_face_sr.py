"""Cached arrays of faces for super-resolution: decoded once, and again if files change or arrays are damaged."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from study.errors import InputError
from tests.trainables.small_sr_faces import (
    HEIGHT,
    POINTS,
    SUBSET,
    TRAIN,
    WIDTH,
    change_rows,
    choose_faces,
    dataset,
    image_path,
    list_cached,
    load,
    picture,
)
from trainables.data import vggface2
from trainables.data.arrays import face_sr as sr_arrays
from trainables.data.arrays.face_sr import hash_to_fraction
from trainables.data.vggface2 import LANDMARKS


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    return dataset(tmp_path / "VGGFace2")


def test_hash_is_the_same_on_every_machine():
    # printf n000001/0001_01 | sha256sum: the first 12 digits, by 16^12
    assert hash_to_fraction("n000001/0001_01") == int("f0659e6fd9d7", 16) / 16**12


def test_arrays_are_mapped_and_decoded_once(root, monkeypatch):
    first = load(root)
    assert isinstance(first.images, np.memmap)
    assert not first.images.flags.writeable
    monkeypatch.setattr(vggface2, "read_image_header", None)
    monkeypatch.setattr(sr_arrays, "open_image", None)
    again = load(root)
    assert again.fingerprint == first.fingerprint
    assert again.note == first.note == SUBSET
    assert np.array_equal(again.boxes, first.boxes)
    assert len(list_cached()) == 1


@pytest.mark.parametrize("change", ["image", "landmarks"])
def test_changed_files_are_seen(root, change):
    first = load(root)
    name = choose_faces()[0][0]
    if change == "image":
        picture(image_path(root, "train", name), WIDTH, HEIGHT, seed=77)
    else:
        change_rows(root, LANDMARKS, "train", [name], (31, *POINTS[1:]))
    again = load(root)
    assert again.fingerprint != first.fingerprint
    assert (again.images[0] != first.images[0]).any() == (change == "image")
    assert (again.boxes[0] != first.boxes[0]).any() == (change == "landmarks")


def test_image_that_is_gone_since_is_named(root):
    load(root)
    image_path(root, "test", choose_faces()[2][0]).unlink()
    with pytest.raises(InputError, match=r"n0000.*jpg cannot be decoded \(.*No such file"):
        load(root)


@pytest.mark.parametrize("damage", ["images", "boxes", "about", "not finite"])
def test_kept_arrays_that_are_damaged_are_made_again(root, damage):
    first, (folder,) = load(root), list_cached()
    expected = first.images.copy()
    if damage == "not finite":
        np.save(folder / "boxes.npy", np.full((11, 4, 4), np.nan, np.float32))
    else:
        (path,) = folder.glob(f"{damage}.*")
        path.write_bytes(path.read_bytes()[:-1])
    again = load(root)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.images, expected)
    assert np.isfinite(again.boxes).all()


def test_fingerprint_is_of_content_not_of_place(root, tmp_path):
    first = load(root)
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy)
    assert load(tmp_path / "copy").fingerprint == first.fingerprint
    change_rows(root, LANDMARKS, "train", TRAIN, (31, *POINTS[1:]))
    assert load(root).fingerprint != first.fingerprint, "of boxes too"


def test_sizes_are_kept_beside_each_other(root):
    assert load(root, size=32).fingerprint != load(root, size=48).fingerprint
    assert len(list_cached()) == 2
