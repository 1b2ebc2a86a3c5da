"""ShanghaiTech's files, with their awkward cases, and density maps whose sums are counts."""

from __future__ import annotations

import io
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.io import loadmat, savemat

from study.errors import InputError
from trainables.data import shanghaitech
from trainables.data.shanghaitech import CrowdSet, Scene, ShanghaiTech
from trainables.data.synthetic import crowds

AWKWARD = {
    1: ("RGB", (40, 30), [(3.5, 4.25), (20, 10)]),
    2: ("L", (33, 21), [(7, 7)]),
    3: ("RGB", (50, 40), []),
    4: ("RGB", (40, 40), [(10, 10), (10, 10), (10, 10), (11, 30)]),
    10: ("RGB", (40, 30), [(-4, 5), (39.6, 10), (20, 30.2), (0, 0)]),
}
"""By number: mode, width and height, and heads counted from 0: one, none, equal ones, some outside."""


def part_a(root: Path, scenes=AWKWARD, splits=("train", "test")) -> Path:
    """A folder in the real layout."""
    rng = np.random.default_rng(0)
    for split in splits:
        for number, (mode, (width, height), heads) in scenes.items():
            pixels = rng.integers(0, 256, (height, width) + (3,) * (mode == "RGB"), dtype=np.uint8)
            crowds.write_scene(root / f"{split}_data", number, Image.fromarray(pixels), np.array(heads).reshape(-1, 2))
    return root


@pytest.fixture
def folder(tmp_path) -> Path:
    return part_a(tmp_path / "part_A_final")


def scene(heads, height=40, width=60) -> Scene:
    return Scene(np.zeros((3, height, width), np.uint8), np.array(heads, dtype=np.float64).reshape(-1, 2))


def truth(folder: Path) -> Path:
    return folder / "train_data" / "ground_truth" / "GT_IMG_1.mat"


def cell(content) -> np.ndarray:
    """MATLAB's {content}."""
    made = np.empty((1, 1), dtype=object)
    made[0, 0] = content
    return made


def compressed(info) -> bytes:
    file = io.BytesIO()
    savemat(file, {"image_info": cell(info)}, do_compression=True)
    return file.getvalue()


# -- files


def test_awkward_scenes_are_read_in_the_order_of_their_numbers(folder):
    loaded = ShanghaiTech(folder).load()
    assert [scene.count for scene in loaded.train] == [2, 1, 0, 4, 4]
    assert [scene.image.shape for scene in loaded.train] == [
        (3, 30, 40), (3, 21, 33), (3, 40, 50), (3, 40, 40), (3, 30, 40)
    ]  # fmt: skip
    assert loaded.train[0].heads.tolist() == [[3.5, 4.25], [20, 10]], "counted from 0, where MATLAB counts from 1"
    assert loaded.train[1].heads.shape == (1, 2)
    assert loaded.train[2].heads.shape == (0, 2)
    grey = loaded.train[1].image
    assert np.array_equal(grey[0], grey[1])
    assert np.array_equal(grey[0], grey[2])


def test_heads_outside_are_moved_to_the_edge_and_counted(folder):
    loaded = ShanghaiTech(folder).load()
    assert loaded.train[-1].heads.tolist() == [[0, 5], [39, 10], [20, 29], [0, 0]]
    assert loaded.note == ("5 of 300 train images; 5 of 182 test images; 6 heads outside their image moved to its edge")


@pytest.mark.parametrize(
    "spelling",
    ["part_A_final", "part_A", "ShanghaiTech/part_A_final", "ShanghaiTech_Crowd_Counting_Dataset/part_A_final"],
)
@pytest.mark.parametrize("truths", ["ground_truth", "ground-truth"])
def test_spellings_in_circulation_are_found(tmp_path, spelling, truths):
    part_a(tmp_path / spelling)
    for split in ("train", "test"):
        folder = tmp_path / spelling / f"{split}_data"
        (folder / "ground_truth").rename(folder / truths)
    (tmp_path / spelling / "train_data" / "images" / "._IMG_77.jpg").write_bytes(b"a Mac's shadow file")
    assert len(ShanghaiTech(tmp_path).load().train) == 5


def test_fingerprint_is_of_content_not_of_place(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere")
    first, second = ShanghaiTech(folder).load(), ShanghaiTech(tmp_path / "elsewhere").load()
    assert first.fingerprint == second.fingerprint
    path = truth(tmp_path / "elsewhere")
    shutil.copy(path.with_name("GT_IMG_2.mat"), path)
    assert ShanghaiTech(tmp_path / "elsewhere").load().fingerprint != first.fingerprint


def test_fingerprint_covers_where_train_ends_and_test_begins():
    scenes = tuple(scene([(n, n)]) for n in range(4))
    parts = [CrowdSet("", scenes[:end], scenes[end:]).fingerprint for end in (1, 2, 3)]
    assert len(set(parts)) == 3
    assert CrowdSet("", scenes[:2], scenes[2:]).fingerprint == parts[1]


@pytest.mark.parametrize("spelling", ["part_B_final", "part_B", "Part_b"])
def test_part_b_is_refused(tmp_path, spelling):
    with pytest.raises(InputError, match=rf"ShanghaiTech A: .*/{spelling} is part B, .*--data-dir"):
        ShanghaiTech(part_a(tmp_path / spelling)).load()


def test_data_is_complete_with_exactly_the_published_images(folder, monkeypatch):
    assert not ShanghaiTech(folder).load().complete
    monkeypatch.setattr(shanghaitech, "TRAIN_IMAGES", 5)
    assert not ShanghaiTech(folder).load().complete
    monkeypatch.setattr(shanghaitech, "TEST_IMAGES", 5)
    loaded = ShanghaiTech(folder).load()
    assert loaded.complete
    assert loaded.note == "6 heads outside their image moved to its edge"


@pytest.mark.parametrize("empty", ["ground_truth", "ground-truth"])
def test_of_two_folders_of_points_the_one_that_has_them_is_read(folder, empty):
    (full,) = {"ground_truth", "ground-truth"} - {empty}
    for split in ("train_data", "test_data"):
        (folder / split / "ground_truth").rename(folder / split / "aside")
        (folder / split / empty).mkdir()
        (folder / split / "aside").rename(folder / split / full)
    assert [scene.count for scene in ShanghaiTech(folder).load().train] == [2, 1, 0, 4, 4]


def test_missing_folder_is_named_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"not in any of .*/part_A_final, .*--data-dir"):
        ShanghaiTech(tmp_path).load()
    with pytest.raises(InputError, match="no data folder given"):
        ShanghaiTech().load()
    (tmp_path / "train_data").mkdir()
    with pytest.raises(InputError, match=r"train_data/images has no IMG_<number>.jpg"):
        ShanghaiTech(tmp_path).load()


def test_image_without_ground_truth_is_named_and_the_reverse(folder):
    truth = folder / "train_data" / "ground_truth" / "GT_IMG_4.mat"
    truth.rename(folder / "aside")
    with pytest.raises(InputError, match=r"IMG_4\.jpg has no ground truth .*GT_IMG_4\.mat"):
        ShanghaiTech(folder).load()
    (folder / "aside").rename(truth)
    (folder / "train_data" / "images" / "IMG_10.jpg").unlink()
    with pytest.raises(InputError, match=r"GT_IMG_10\.mat has no image .*IMG_10\.jpg"):
        ShanghaiTech(folder).load()


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_corrupt_jpeg_is_named(folder, damage):
    path = folder / "test_data" / "images" / "IMG_3.jpg"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "text": b"no picture", "empty": b""}[damage])
    with pytest.raises(InputError, match=r"test_data/images/IMG_3\.jpg cannot be decoded"):
        ShanghaiTech(folder).load()


@pytest.mark.parametrize(
    "content",
    [
        {"annPoints": np.zeros((3, 2))},
        {"image_info": np.zeros((3, 2))},
        {"image_info": {"number": 3}},
        {"image_info": {"location": np.zeros((3, 3))}},
        {"image_info": {"location": "three heads"}},
        {"image_info": {"location": np.array([[1.0, np.nan]])}},
        {"image_info": {"location": np.array([[np.inf, 2.0]])}},
        {"image_info": {"location": ""}},
        {"image_info": {"location": np.zeros((2, 1))}},
        {"image_info": {"location": np.ones((1, 2)) * 1j}},
        {"image_info": cell([[1, 2]])},
    ],
)
def test_mat_file_of_another_structure_is_named(folder, content):
    savemat(truth(folder), content)
    with pytest.raises(InputError, match=r"GT_IMG_1\.mat is of another structure \(.*\); expected is image_info"):
        ShanghaiTech(folder).load()


@pytest.mark.parametrize("content", [b"", b"no mat file" * 40, "half", "a flipped byte", "an unknown class"])
def test_mat_file_that_cannot_be_read_is_named(folder, content):
    path = truth(folder)
    if content == "half":
        content = path.read_bytes()[:200]
    elif content == "a flipped byte":
        written = compressed({"location": np.ones((9, 2)), "number": 9})
        content = written[:-20] + bytes([written[-20] ^ 1]) + written[-19:]
        with pytest.raises(zlib.error):
            loadmat(io.BytesIO(content))
    elif content == "an unknown class":  # of arrays, at byte 144, where scipy forgets to raise an error of its own
        content = path.read_bytes()[:144] + b"\xff" + path.read_bytes()[145:]
        with pytest.raises(UnboundLocalError):
            loadmat(io.BytesIO(content))
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"GT_IMG_1\.mat cannot be read as a \.mat file"):
        ShanghaiTech(folder).load()


@pytest.mark.parametrize("number", [1, 3, [[2, 2]], "2"])
def test_number_that_differs_from_the_heads_is_refused(folder, number):
    savemat(truth(folder), {"image_info": cell({"location": np.ones((2, 2)), "number": number})})
    with pytest.raises(InputError, match=r"GT_IMG_1\.mat has 2 heads, but number is"):
        ShanghaiTech(folder).load()


@pytest.mark.parametrize("far", [(1e6, 3), (3, -41), (80, 3)])
def test_head_that_is_of_no_such_image_is_refused(folder, far):
    """An image of 40 × 30 pixels: a head may lie outside, but no farther than the image is large."""
    near = {"location": np.array([[-40.0, 69.0]]) + 1}
    savemat(truth(folder), {"image_info": cell(near)})
    assert ShanghaiTech(folder).load().train[0].heads.tolist() == [[0, 29]]
    savemat(truth(folder), {"image_info": cell({"location": np.array([[1, 1], far]) + 1.0})})
    with pytest.raises(InputError, match=r"GT_IMG_1\.mat has a head at \(.*\), far outside its image of 40 × 30"):
        ShanghaiTech(folder).load()


@pytest.mark.parametrize("do_compression", [False, True])
def test_points_are_read_with_and_without_cell_number_and_compression(folder, do_compression):
    heads = np.array([[3, 4], [5, 6]], dtype=np.uint8)
    for info in (cell({"location": heads, "number": 2.0}), {"location": heads}):
        savemat(truth(folder), {"image_info": info}, do_compression=do_compression)
        assert ShanghaiTech(folder).load().train[0].heads.tolist() == [[2, 3], [4, 5]]


@pytest.mark.parametrize("image", ["IMG_1.JPG", "IMG_1.jpeg", "img_1.jpg"])
@pytest.mark.parametrize("mat", ["GT_IMG_1.MAT", "gt_img_1.mat"])
def test_spelling_of_file_names_does_not_matter(folder, image, mat):
    before = ShanghaiTech(folder).load()
    images = folder / "train_data" / "images"
    (images / "IMG_1.jpg").rename(images / image)
    truth(folder).rename(truth(folder).with_name(mat))
    after = ShanghaiTech(folder).load()
    assert np.array_equal(before.train[0].image, after.train[0].image)
    assert np.array_equal(before.train[0].heads, after.train[0].heads)


@pytest.mark.parametrize("second", ["IMG_01.jpg", "IMG_1.JPG", "IMG_1.jpeg"])
def test_two_images_of_one_number_are_refused(folder, second):
    shutil.copy(folder / "train_data" / "images" / "IMG_1.jpg", folder / "train_data" / "images" / second)
    with pytest.raises(InputError, match="have the same number: remove one of them"):
        ShanghaiTech(folder).load()


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_image_is_turned_as_its_exif_data_say_and_as_its_heads_were_marked(folder, orientation):
    path = folder / "train_data" / "images" / "IMG_1.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).copy().save(path, exif=exif)
    width, height = ImageOps.exif_transpose(Image.open(path)).size
    assert ShanghaiTech(folder).load().train[0].image.shape == (3, height, width)


@pytest.mark.parametrize("mode", ["CMYK"])
def test_image_of_other_colours_is_refused(folder, mode):
    path = folder / "train_data" / "images" / "IMG_1.jpg"
    Image.open(path).convert(mode).save(path)
    with pytest.raises(InputError, match=f"IMG_1.jpg is of Pillow's mode {mode}; allowed are RGB and L"):
        ShanghaiTech(folder).load()
