"""Images as bytes in parquet files, good and bad."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from study.errors import InputError
from tests.trainables import small
from tests.trainables.small_sr_faces import assert_refused, picture
from trainables.data.image_folder import ImageFolder
from trainables.data.image_parquet import ImageParquet

CLASSES = ("ant", "bee")
COUNT = 12


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """A folder with images of two classes."""
    for seed in range(2 * COUNT):
        picture(tmp_path / "photos" / CLASSES[seed % 2] / f"{seed:02}.png", 12 + seed % 3, 10 + seed % 2, seed=seed)
    return tmp_path / "photos"


def list_rows(folder: Path) -> list[dict[str, Any]]:
    return [{"image": path.read_bytes(), "label": path.parent.name} for path in sorted(folder.glob("*/*.png"))]


def write(path: Path, rows: list[dict[str, Any]], names: list[str] | None = None, group: int = 5) -> None:
    table = pa.Table.from_pylist(rows)
    if names is not None:
        about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


def test_images_are_those_of_the_same_files_in_folders(photos, tmp_path):
    write(tmp_path / "data" / "photos.parquet", list_rows(photos))
    found, expected = ImageParquet(tmp_path / "data", size=8).load(), ImageFolder(photos, size=8).load()
    assert found.class_names == expected.class_names == CLASSES
    assert found.fingerprint == expected.fingerprint
    assert np.array_equal(found.train_images, expected.train_images)
    assert np.array_equal(found.test_labels, expected.test_labels)
    lazy = ImageParquet(tmp_path / "data", size=8, cache=False).load()
    assert np.array_equal(lazy.train_images[:], found.train_images)
    task = dataclasses.replace(small.TASK, data=ImageParquet(tmp_path / "data", size=8), validation=0.25)
    assert len(task.examples("train", "cpu")) > 0


def test_data_sets_of_hugging_face_are_read_as_they_are(photos, tmp_path):
    """Several files a split, images as structs, and numbers whose names are not in their order."""
    names = ["wasp", "bee", "ant"]
    rows = [
        {"image": {"bytes": row["image"], "path": "x.png"}, "label": names.index(row["label"])}
        for row in list_rows(photos)
    ]
    wasp = rows[0] | {"image": {"bytes": turn(rows[0]["image"]["bytes"]), "path": ""}, "label": 0}
    write(tmp_path / "data" / "train-0.parquet", rows[:9], names)
    write(tmp_path / "data" / "train-1.parquet", [*rows[9:16], wasp], names, group=3)
    write(tmp_path / "data" / "test-0.parquet", rows[16:], names)
    images = ImageParquet(tmp_path / "data", "train-*.parquet", test="test-*.parquet", size=8).load()
    assert images.class_names == tuple(names)
    assert images.train_labels.tolist() == [row["label"] for row in rows[:16]] + [0]
    assert images.test_labels.tolist() == [row["label"] for row in rows[16:]]
    # files of val= and test= are not of train=, whatever its pattern
    assert len(ImageParquet(tmp_path / "data", test="test-*.parquet", size=8).load().train_images) == 17


def turn(content: bytes) -> bytes:
    turned = io.BytesIO()
    Image.open(io.BytesIO(content)).rotate(90, expand=True).save(turned, "PNG")
    return turned.getvalue()


def test_numbers_without_names_are_classes_in_their_order(photos, tmp_path):
    rows = [row | {"label": {"ant": 10, "bee": 9}[row["label"]]} for row in list_rows(photos)]
    write(tmp_path / "data" / "photos.parquet", rows)
    assert ImageParquet(tmp_path / "data", size=8).load().class_names == ("9", "10")


def test_arrays_are_decoded_again_when_a_file_changes(photos, tmp_path):
    path = tmp_path / "data" / "photos.parquet"
    write(path, list_rows(photos))
    before = ImageParquet(tmp_path / "data", size=8).load().fingerprint
    write(path, list_rows(photos)[:-1])
    assert ImageParquet(tmp_path / "data", size=8).load().fingerprint != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[7].update(label=None), r"photos\.parquet, row 07 has the label None: correct it, or remove"),
        (
            lambda rows: rows[7].update(image=b""),
            r"photos\.parquet, row 07 has no image: fill it in, or remove the row",
        ),
        (lambda rows: rows[7].update(image=b"no image"), r"photos\.parquet, row 07 cannot be decoded"),
        (lambda rows: [row.update(label="ant") for row in rows], r"\*\.parquet has 1 labels; needed are two or more"),
        (lambda rows: [row.pop("label") for row in rows], "has no column 'label'; its columns are: image"),
        (
            lambda rows: [row.update(image="a.png") for row in rows],
            "column 'image' of .* is of type string; allowed are",
        ),
    ],
)
def test_rows_that_cannot_be_used_are_named(photos, tmp_path, change, message):
    rows = list_rows(photos)
    change(rows)
    write(tmp_path / "data" / "photos.parquet", rows)
    assert_refused(ImageParquet(tmp_path / "data", size=8), message)


def test_files_that_cannot_be_used_are_named(photos, tmp_path):
    rows = list_rows(photos)
    data = tmp_path / "data"
    write(data / "train.parquet", rows)
    (data / "bad.parquet").write_bytes(b"no parquet")
    write(data / "test.parquet", [rows[0] | {"label": "cow"}])
    assert_refused(ImageParquet(data, "none.parquet", size=8), r"none\.parquet matches no file")
    assert_refused(ImageParquet(data, "bad.parquet", size=8), r"bad\.parquet cannot be read \(.*give a parquet file")
    assert_refused(
        ImageParquet(data, "train.parquet", test="train.parquet", size=8), "has the files of val= and test= alone"
    )
    assert_refused(ImageParquet(data, "train.parquet", test="test.parquet", size=8), "row 0 is of class 'cow', which")
    with pytest.raises(InputError, match=r"shares of 0\.5 for validation"):
        ImageParquet(data, val=0.5, test=0.5)
