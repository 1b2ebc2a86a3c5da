"""The arrays that are kept of decoded faces: made once, whole, and again where they are damaged."""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.errors import InputError
from tests.trainables.small_faces import assert_refused, dataset, image_path, list_cached, load, mask, mask_path
from trainables.data.arrays import face_parsing as face_arrays
from trainables.data.arrays import memmap
from trainables.data.celebamask import MAPPING


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    return dataset(tmp_path / "CelebAMask-HQ")


def test_arrays_are_mapped_and_decoded_once(root, monkeypatch):
    first = load(root)
    assert isinstance(first.samples.images, np.memmap)
    assert not first.test.labels.flags.writeable
    monkeypatch.setattr(face_arrays, "decode_portrait", None)
    again = load(root)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.samples.images, first.samples.images)
    assert len(list_cached()) == 1


def test_fingerprint_is_of_content_not_of_place_or_time(root, tmp_path):
    first = load(root)
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy)
    os.utime(image_path(tmp_path / "copy", 3), (1, 1))
    assert load(tmp_path / "copy").fingerprint == first.fingerprint
    assert len(list_cached()) == 2, "but decoded again: whether the same bytes changed was not known"


def test_changed_file_of_the_same_size_is_seen(root):
    first, path = load(root), mask_path(root, 12, "hair")
    changed = np.roll(mask("hair", 12), 16, axis=1)
    Image.fromarray(mask("hair", 12)).save(path, compress_level=0)
    before = load(root)
    Image.fromarray(changed).save(path, compress_level=0)
    assert before.fingerprint == first.fingerprint
    assert load(root).fingerprint != first.fingerprint
    assert (load(root).val.labels[1] != before.val.labels[1]).any()


def test_other_sizes_and_splits_have_other_fingerprints(root):
    fingerprints = {load(root, size).fingerprint for size in (32, 64)}
    text = (root / MAPPING).read_text()
    (root / MAPPING).write_text(text.replace("202598 ", "182637 "))
    fingerprints.add(load(root).fingerprint)
    assert len(fingerprints) == 3


@pytest.mark.parametrize(
    "damage", ["label", "short images", "short labels", "empty", "no fingerprint", "shape", "type", "gone"]
)
def test_kept_arrays_that_are_damaged_are_made_again(root, damage):
    first = load(root)
    expected = first.samples.images.copy(), first.samples.labels.copy()
    (folder,) = list_cached()
    images, classes = folder / "images.npy", folder / "labels.npy"
    if damage == "label":  # the last one of 19, which is no class
        classes.write_bytes(classes.read_bytes()[:-1] + bytes([19]))
    elif damage.startswith("short"):
        path = images if damage == "short images" else classes
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "empty":
        images.write_bytes(b"")
    elif damage == "no fingerprint":
        (folder / "fingerprint").write_text("")
    elif damage == "gone":
        classes.unlink()
    else:
        np.save(images, expected[0][:, :1] if damage == "shape" else expected[0].astype(np.int16))
    again = load(root)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.samples.images, expected[0])
    assert np.array_equal(again.samples.labels, expected[1])
    assert list_cached() == [folder]


def test_interrupted_decoding_leaves_nothing_and_starts_again(root, monkeypatch):
    decode = face_arrays.decode_portrait

    def interrupted(portrait, resolution):
        if portrait.image.name == "2001.jpg":
            raise KeyboardInterrupt
        return decode(portrait, resolution)

    with monkeypatch.context() as patch:
        patch.setattr(face_arrays, "decode_portrait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(root)
    assert list_cached() == []
    assert load(root).sizes == (2, 2, 2)


def test_what_a_killed_process_left_is_removed(root):
    load(root)
    (folder,) = list_cached()
    left = folder.with_name(f".{folder.name}.tmp")
    folder.rename(left)
    (left / "images.npy").write_bytes(b"half")
    assert load(root).sizes == (2, 2, 2)
    assert list_cached() == [folder]


def test_of_two_that_decode_at_once_one_waits_for_the_other(root, monkeypatch):
    decode, begun, go_on, loaded = face_arrays.decode_portrait, threading.Event(), threading.Event(), []
    calls = []

    def slow(portrait, resolution):
        calls.append(portrait.image.name)
        begun.set()
        assert go_on.wait(120)
        return decode(portrait, resolution)

    monkeypatch.setattr(face_arrays, "decode_portrait", slow)
    monkeypatch.setattr(sys, "stderr", stderr := io.StringIO())  # capsys loses what is printed while it is read
    threads = [threading.Thread(target=lambda: loaded.append(load(root).fingerprint)) for _ in range(2)]
    threads[0].start()
    assert begun.wait(120)
    threads[1].start()
    while "waiting for another" not in stderr.getvalue():
        assert threads[1].is_alive()
        time.sleep(0.01)
    go_on.set()
    for thread in threads:
        thread.join(120)
    assert len(loaded) == 2
    assert loaded[0] == loaded[1]
    assert len(calls) == 6
    assert stderr.getvalue() == "decoded CelebAMask-HQ: waiting for another process that is making it\n"


def test_disk_without_room_is_told_before_decoding(root, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 6 * 4 * 32**2 - 1))
    monkeypatch.setattr(face_arrays, "decode_portrait", None)
    assert_refused(
        root, r"decoded CelebAMask-HQ needs 0\.0 GB in .*/kept/kdstudy/faces, which has 0\.0 GB free: .*XDG_CACHE"
    )


def test_disk_that_fills_while_decoding_is_an_error_of_the_folder(root, monkeypatch):
    def full(portrait, resolution):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(face_arrays, "decode_portrait", full)
    assert_refused(
        root, r"decoded CelebAMask-HQ cannot be written to .*/faces \(No space left on device\): .*XDG_CACHE_HOME"
    )


def test_folder_that_cannot_be_written_is_named(root, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        InputError, match=r"cannot be written to .*/file/kdstudy/faces \(Not a directory\): .*XDG_CACHE"
    ):
        load(root)


def test_long_decoding_tells_how_far_it_is(root, monkeypatch, capsys):
    monkeypatch.setattr(memmap, "_PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(memmap, "_CHUNK", 4)
    load(root)
    assert capsys.readouterr().err.startswith("CelebAMask-HQ: 4 of 6 images decoded to ")
