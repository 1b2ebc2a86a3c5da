"""Tables of one's own images with numbers and points, good and bad."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.errors import InputError
from study.identity import describe
from tests.trainables.small_sr_faces import picture
from trainables.data.image_targets import ImageNumbers, ImagePoints
from trainables.export.restore import instantiate

COUNT = 24
POINTS = ("left", "right")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_table(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def list_rows() -> list[dict[str, object]]:
    splits = ["train"] * 16 + ["val"] * 4 + ["test"] * 4
    return [
        {"path": f"{n:02d}.png", "age": 20 + n, "left_x": 8 + n % 3, "left_y": 3, "right_x": 15, "right_y": 2.5,
         "split": splits[n]} for n in range(COUNT)
    ]  # fmt: skip


@pytest.fixture
def root(tmp_path):
    for number in range(COUNT):
        picture(tmp_path / f"{number:02d}.png", 24, 12, seed=number)
    write_table(tmp_path / "table.csv", list_rows())
    return tmp_path


def numbers(root: Path, **settings) -> ImageNumbers:
    return ImageNumbers(root, "table.csv", **({"numbers": ("age",), "split": "split", "size": 8} | settings))


def points(root: Path, **settings) -> ImagePoints:
    return ImagePoints(root, "table.csv", **({"points": POINTS, "split": "split", "size": 8} | settings))


def assert_refused(data: ImageNumbers | ImagePoints, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        data.load()
    assert "\n" not in str(caught.value)


def test_numbers_are_those_of_the_table_with_mean_and_deviation_of_training(root):
    loaded = numbers(root).load()
    assert loaded.sizes == (16, 4, 4)
    assert loaded.samples.targets[:, 0].tolist() == list(range(20, 44))
    assert loaded.offset == pytest.approx((np.arange(20, 36).mean(),))
    assert loaded.scale == pytest.approx((np.arange(20, 36).std(),))
    assert loaded.samples.images.shape == (COUNT, 3, 8, 8)


def test_points_follow_the_cut_to_the_middle_square(root):
    loaded = points(root).load()
    # 24 × 12 pixels: columns 6 to 18 stay; pixel 8 begins 2 of 12 pixels from the left, its middle 2.5
    assert loaded.samples.targets[0] == pytest.approx([2 * 2.5 / 12 - 1, 2 * 3.5 / 12 - 1, 2 * 9.5 / 12 - 1, -0.5])
    assert (loaded.offset, loaded.scale, loaded.note) == ((0.0,) * 4, (1.0,) * 4, "")


def test_point_marks_its_pixel_in_the_decoded_image(root):
    pixels = np.zeros((12, 24, 3), dtype=np.uint8)
    pixels[3, 8] = 255
    Image.fromarray(pixels).save(root / "00.png")
    loaded = points(root, size=12).load()
    x, y = (loaded.samples.targets[0, :2] * 12 / 2 + 12 / 2 - 0.5).round().astype(int)
    assert loaded.samples.images[0, :, y, x].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_points_are_those_of_the_image_as_it_is_shown(root, orientation):
    """In PNG files, too, whose orientation may stand behind their pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    rows = list_rows()
    for row in rows:
        row |= {"left_x": 4, "left_y": 9, "right_x": 7, "right_y": 5}  # within 24 × 12 and 12 × 24 pixels
    write_table(root / "table.csv", rows)
    found = []
    for suffix in ("png", "jpg"):
        for row in rows:
            with Image.open(root / f"{str(row['path'])[:2]}.png") as image:
                image.convert("RGB").save(root / f"{str(row['path'])[:2]}_turned.{suffix}", exif=exif)
        write_table(root / "table.csv", [row | {"path": f"{str(row['path'])[:2]}_turned.{suffix}"} for row in rows])
        found.append(points(root).load().samples.targets)
    np.testing.assert_array_equal(*found)
    corner = (0, 6) if orientation > 4 else (6, 0)
    expected = [2 * (value + 0.5 - corner[at % 2]) / 12 - 1 for at, value in enumerate((4, 9, 7, 5))]
    np.testing.assert_allclose(found[0][0], expected, rtol=1e-5)


def test_points_that_the_cut_removes_are_counted(root):
    rows = list_rows()
    rows[3]["left_x"] = 1
    write_table(root / "table.csv", rows)
    assert points(root).load().note == "1 points lie outside the middle square of their image"


def test_without_a_column_of_splits_the_content_decides(root):
    loaded = numbers(root, split=None, val=0.3, test=0.3).load()
    assert sum(loaded.sizes) == COUNT
    assert min(loaded.sizes) > 0


def test_description_rebuilds_the_settings(root):
    for data in (numbers(root), points(root, exchanged=(POINTS,))):
        assert instantiate(describe(data), root) == data


def test_changed_numbers_are_another_data_set(root):
    before = numbers(root).load().fingerprint
    rows = list_rows()
    rows[0]["age"] = 99
    write_table(root / "table.csv", rows)
    assert numbers(root).load().fingerprint != before


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"age": "old"}, r"table\.csv, line 5: age is 'old'; allowed is a number: correct it"),
        ({"age": "nan"}, "line 5: age is 'nan'; allowed is a number"),
        ({"age": ""}, "line 5 has no age: fill it in"),
        ({"path": "00.png"}, r"line 5: 00\.png occurs twice"),
        ({"path": "gone.png"}, r"gone\.png cannot be read"),
        ({"split": "dev"}, "line 5: split is 'dev'; allowed are train, val, test"),
    ],
)
def test_rows_with_a_fault_are_named(root, change, match):
    rows = list_rows()
    rows[3] |= change
    write_table(root / "table.csv", rows)
    assert_refused(numbers(root), match)


def test_point_outside_its_image_is_named(root):
    rows = list_rows()
    rows[3]["left_x"] = 24
    write_table(root / "table.csv", rows)
    assert_refused(points(root), r"line 5: left is \(24, 3\), outside 03\.png of 24 × 12 pixels: correct it")


def test_number_that_never_changes_is_refused(root):
    write_table(root / "table.csv", [row | {"age": 0.1} for row in list_rows()])
    assert_refused(numbers(root), "age is 0.1 for all training images; there is nothing to learn")


def test_missing_column_is_named_with_those_that_exist(root):
    assert_refused(numbers(root, numbers=("height",)), "has no column 'height'; its columns are: path, age, left_x")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"points": ()}, r"points is \(\); write their names, such as points=\(\"nose\",\)"),
        ({"points": "nose"}, "points is 'nose'; write their names"),
        ({"points": ("nose", "nose")}, "points has 'nose' twice"),
        ({"exchanged": (("left", "ear"),)}, "there is no point 'ear'; there are left, right"),
        ({"size": 4}, "size is 4"),
        ({"test": 1.5}, "shares of 0.1 for validation and 1.5 for test"),
    ],
)
def test_settings_with_a_fault_are_refused(tmp_path, settings, match):
    with pytest.raises(InputError, match=match):
        points(tmp_path, **settings)
