"""Images of one's own for classification, listed in a table with their labels."""

from __future__ import annotations

import csv
import dataclasses
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from study.errors import InputError
from tests.trainables.small_images import CLASSES, COUNT, write_images
from tests.trainables.small_sr_faces import assert_refused
from trainables.data.image_folder import ImageFolder
from trainables.data.image_table import ImageTable


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_images(tmp_path / "photos", COUNT)
    return tmp_path / "photos"


def write_table(root: Path, rows: list[dict[str, str]], name: str = "labels.csv") -> ImageTable:
    with (root / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return ImageTable(root, size=8)


def rows_of(root: Path) -> list[dict[str, str]]:
    return [{"path": str(path.relative_to(root)), "label": path.parent.name} for path in sorted(root.rglob("*.png"))]


def test_table_has_the_images_of_the_folder(root):
    table, folder = write_table(root, rows_of(root)).load(), ImageFolder(root, size=8).load()
    assert table.class_names == folder.class_names
    assert np.array_equal(table.train_images, folder.train_images)
    assert np.array_equal(table.test_labels, folder.test_labels)


def test_table_may_have_a_column_of_splits_and_other_names(root):
    splits = ("train", "train", "val", "test")
    rows = [
        {"file": row["path"], "kind": str(CLASSES.index(row["label"]) + 9), "part": splits[number % 4]}
        for number, row in enumerate(rows_of(root))
    ]
    write_table(root, rows, "all.csv")
    images = ImageTable(root, "all.csv", "file", "kind", "part", size=8).load()
    assert images.class_names == ("9", "10", "11")  # by value, not as words
    assert (images.own_validation, len(images.test_images)) == (9, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [{"path": row["path"], "class": "x"} for row in rows], "has no column .label.; its "),
        (lambda rows: [{"path;label": "x"} for row in rows], "are: path;label; separate columns by commas"),
        (lambda rows: [*rows, rows[0]], r"line 38: ant/0\.png occurs twice"),
        (lambda rows: [{"path": row["path"], "label": "ant"} for row in rows], "has 1 labels"),
        (lambda rows: [*rows, {"path": "x.png", "label": ""}], "line 38 has no label"),
        (lambda rows: [*rows, {"path": "x.png", "label": "ant"}], r"x\.png cannot be read"),
    ],
)  # fmt: skip
def test_table_that_cannot_be_used_is_refused(root, change, message):
    assert_refused(write_table(root, change(rows_of(root))), message)


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_composed_in_two_ways(root, on_disk, in_table):
    """As after copying a folder from macOS next to a table that was written elsewhere."""
    (root / "ant").rename(root / unicodedata.normalize(on_disk, "fourmi rétive"))
    rows = [{key: unicodedata.normalize(in_table, value) for key, value in row.items()} for row in rows_of(root)]
    rows[:3] = [row | {"label": unicodedata.normalize(on_disk, row["label"])} for row in rows[:3]]
    table, folder = write_table(root, rows).load(), ImageFolder(root, size=8).load()
    assert table.class_names == folder.class_names
    assert np.array_equal(table.train_images, folder.train_images)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.mkdir()], ids=["pipe", "folder"])
def test_what_is_no_file_is_refused_instead_of_waited_for(root, make):
    make(root / "ant" / "x.png")
    rows = [*rows_of(root), {"path": "ant/x.png", "label": "ant"}]
    assert_refused(write_table(root, list({row["path"]: row for row in rows}.values())), r"x\.png is a folder, pipe,")


def test_missing_table_and_unknown_split_are_refused(root):
    assert_refused(ImageTable(root, size=8), r"labels\.csv cannot be read \(No such file or directory\)")
    rows = [row | {"split": "training"} for row in rows_of(root)]
    table = dataclasses.replace(write_table(root, rows), split="split")
    assert_refused(table, "line 2: split is 'training'; allowed are train, val, test")
    with pytest.raises(InputError, match="val is 'val'; allowed is a share of the images"):
        ImageTable(root, val="val")
