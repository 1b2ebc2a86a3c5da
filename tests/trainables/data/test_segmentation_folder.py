"""Folders of one's own images with label images, good and bad."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from study.errors import InputError
from study.identity import describe
from tests.trainables.small_masks import FRAME, save, write_folder, write_pair
from trainables.data.arrays.cache import get_cache_folder
from trainables.data.arrays.labelled_images import Shares
from trainables.data.segmentation_folder import SegmentationFolder
from trainables.export.restore import instantiate
from trainables.task import IGNORED

CLASSES = ("floor", "box")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "boxes")


def folder(root: Path, **settings) -> SegmentationFolder:
    return SegmentationFolder(root, **({"classes": CLASSES, "ignore": FRAME, "size": 16} | settings))


def assert_refused(data: SegmentationFolder, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        data.load()
    assert "\n" not in str(caught.value)


def test_images_and_labels_are_cut_and_resized_alike(root):
    loaded = folder(root, size=(12, 20), val=0.3).load()
    files = sorted((root / "images").glob("*.png"))
    shares = Shares(0.3, 0.2)
    train = [path for path in files if shares.choose_split(hashlib.sha256(path.read_bytes()).hexdigest()) == "train"]
    assert loaded.sizes[0] == len(train) > 0
    for path, image, labels in zip(train, loaded.train.images, loaded.train.labels, strict=True):
        expected = ImageOps.fit(Image.open(path), (20, 12), Image.Resampling.BICUBIC)
        assert np.array_equal(image, np.asarray(expected).transpose(2, 0, 1))
        values = Image.fromarray(np.asarray(Image.open(root / "labels" / path.name)))
        assert np.array_equal(labels, np.asarray(ImageOps.fit(values, (20, 12), Image.Resampling.NEAREST)))
    assert set(np.unique(loaded.samples.labels)) == {0, 1, IGNORED}


def test_split_follows_from_the_content_and_not_from_names(root):
    before = {image.tobytes() for image in folder(root).load().test.images}
    for path in [*root.rglob("*.png")]:
        path.rename(path.with_name(f"renamed {path.name}"))
    assert {image.tobytes() for image in folder(root).load().test.images} == before


@pytest.mark.parametrize("layout", ["split first", "kind first"])
def test_splits_of_their_own_are_kept(tmp_path, layout):
    for number, (split, count) in enumerate({"train": 3, "val": 2, "test": 4}.items()):
        for image in range(count):
            write_pair(tmp_path / "roads" / split, str(image), seed=10 * number + image)
    root = tmp_path / "roads"
    if layout == "kind first":
        for split in ("train", "val", "test"):
            for kind in ("images", "labels"):
                (root / kind).mkdir(exist_ok=True)
                (root / split / kind).rename(root / kind / split)
    assert folder(root, train="train", val="val", test="test").load().sizes == (3, 2, 4)


def test_values_of_labels_are_named_by_the_class_table(root):
    loaded = folder(root, classes={1: "box", 0: "floor"}).load()
    as_listed = folder(root).load()
    assert folder(root, classes={1: "box", 0: "floor"}).class_table.names == ("box", "floor")
    exchanged = np.array([1, 0], dtype=np.uint8)
    counted = as_listed.samples.labels != IGNORED
    assert np.array_equal(loaded.samples.labels[counted], exchanged[as_listed.samples.labels[counted]])
    assert loaded.fingerprint != as_listed.fingerprint


def test_all_values_outside_the_table_can_be_ignored(root):
    assert np.array_equal(folder(root, ignore="others").load().samples.labels, folder(root).load().samples.labels)


@pytest.mark.parametrize("mode", ["1", "I;16"])
def test_black_and_white_and_16_bit_labels_are_read(tmp_path, mode):
    root = tmp_path / "boxes"
    for number in range(12):
        write_pair(root, str(number), number)
        path = root / "labels" / f"{number}.png"
        box = np.asarray(Image.open(path)) == 1
        values = Image.fromarray(box) if mode == "1" else Image.fromarray(box.astype(np.uint16) * 1000)
        assert values.mode in (mode, "I")
        save(values, path)
    loaded = folder(root, classes={0: "floor", 1 if mode == "1" else 1000: "box"}, ignore=None, val=0.4).load()
    assert set(np.unique(loaded.samples.labels)) == {0, 1}


def test_description_rebuilds_the_settings(root):
    data = folder(root, background="floor", exchanged=(("floor", "box"),))
    assert instantiate(describe(data), root) == data


def test_image_without_label_is_named(root):
    (root / "labels" / "03.png").unlink()
    assert_refused(folder(root), r"03\.png has no label .*labels/03\.png: add it, remove the image")


def test_label_of_another_size_is_named(root):
    save(Image.fromarray(np.zeros((24, 29), dtype=np.uint8)), root / "labels" / "03.png")
    assert_refused(folder(root), r"images/03\.png has 30 × 24 pixels, its label labels/03\.png has 29 × 24: save both")


def test_label_outside_the_class_table_is_named(root):
    assert_refused(folder(root, ignore=None), r"has the label 255; the class table has 0 floor, 1 box: add its class")


def test_class_without_a_training_pixel_is_named(root):
    data = folder(root, classes=("floor", "box", "lid"))
    assert_refused(data, "boxes: class 'lid' has no pixel in the training labels: add images with it")


def test_labels_in_colours_are_refused(root):
    path = root / "labels" / "00.png"
    save(Image.open(path).convert("RGB"), path)
    assert_refused(folder(root), r"00\.png is of Pillow's mode RGB; allowed are images whose values are the classes")


def test_split_without_images_is_refused(tmp_path):
    write_pair(tmp_path / "boxes", "only", 0)
    assert_refused(
        folder(tmp_path / "boxes"), r"boxes has 1 train, 0 val, 0 test images: training, validation and test need"
    )


def test_folder_without_images_is_refused(tmp_path):
    assert_refused(folder(tmp_path), r"images is not a folder; give the folder of the images with root=")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"classes": ()}, "a table of 0 classes; allowed are 2 to 255"),
        ({"classes": ("box", "box")}, "class 'box' is in the table twice"),
        ({"classes": 3}, "classes is 3; allowed are names"),
        ({"classes": {0: "floor", -1: "box"}}, "the value -1 of labels; allowed are whole numbers from 0"),
        ({"background": "sky"}, "there is no class 'sky'; the table has floor, box"),
        ({"exchanged": (("box", "lid"),)}, "there is no class 'lid'"),
        ({"ignore": 1}, "ignore is 1; allowed are a value that stands for no class"),
        ({"ignore": "rest"}, "ignore is 'rest'"),
        ({"size": 4}, "size is 4 × 4 pixels; allowed are whole numbers, 8 or more"),
        ({"test": 0.95}, "shares of 0.1 for validation and 0.95 for test"),
    ],
)
def test_settings_with_a_fault_are_refused(tmp_path, settings, match):
    with pytest.raises(InputError, match=match) as caught:
        folder(tmp_path, **settings)
    assert "\n" not in str(caught.value)


def test_arrays_are_decoded_again_when_a_label_changes(root):
    before = folder(root).load().fingerprint
    assert folder(root).load().fingerprint == before
    write_pair(root, "00", seed=99)
    changed = folder(root).load()
    assert changed.fingerprint != before
    assert len([path for path in get_cache_folder("labelled-pixels").iterdir() if path.suffix != ".lock"]) == 2


def test_other_suffixes_of_labels(root):
    for path in (root / "labels").iterdir():
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    assert folder(root, label_suffix="_mask.png").load().sizes == folder_sizes(root)


def folder_sizes(root: Path) -> tuple[int, ...]:
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "images").iterdir()]
    splits = [Shares(0.1, 0.2).choose_split(content) for content in contents]
    return tuple(splits.count(split) for split in ("train", "val", "test"))


def test_equal_settings_of_another_place_are_one_data_set(root, tmp_path):
    data = folder(root)
    assert describe(data) == describe(dataclasses.replace(data, root=tmp_path))
