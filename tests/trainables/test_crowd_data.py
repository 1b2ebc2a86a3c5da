"""ShanghaiTech's files, with their awkward cases, and density maps whose sums are counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.io import savemat
from scipy.spatial.distance import cdist

from study.errors import InputError
from trainables.data import crowds, density_maps
from trainables.data.crowds import DrawnCrowds
from trainables.data.density_maps import AdaptiveKernels, density_map
from trainables.data.derived import derived_folder
from trainables.data.shanghaitech import Scene, ShanghaiTech

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
            crowds.write(root / f"{split}_data", number, Image.fromarray(pixels), np.array(heads).reshape(-1, 2))
    return root


@pytest.fixture
def folder(tmp_path) -> Path:
    return part_a(tmp_path / "part_A_final")


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
    path = tmp_path / "elsewhere" / "train_data" / "ground_truth" / "GT_IMG_1.mat"
    shutil.copy(tmp_path / "elsewhere" / "train_data" / "ground_truth" / "GT_IMG_2.mat", path)
    assert ShanghaiTech(tmp_path / "elsewhere").load().fingerprint != first.fingerprint


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
    ],
)
def test_mat_file_of_another_structure_is_named(folder, content):
    savemat(folder / "train_data" / "ground_truth" / "GT_IMG_1.mat", content)
    with pytest.raises(InputError, match=r"GT_IMG_1\.mat is of another structure \(.*\); expected is image_info"):
        ShanghaiTech(folder).load()


@pytest.mark.parametrize("content", [b"", b"no mat file" * 40, "half"])
def test_mat_file_that_cannot_be_read_is_named(folder, content):
    path = folder / "train_data" / "ground_truth" / "GT_IMG_1.mat"
    path.write_bytes(path.read_bytes()[:200] if content == "half" else content)
    with pytest.raises(InputError, match=r"GT_IMG_1\.mat cannot be read as a \.mat file"):
        ShanghaiTech(folder).load()


# -- drawn crowds


def test_drawn_crowds_are_written_once_and_are_the_same_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = DrawnCrowds(train=3, test=2, height=40, width=56, most=20)
    first = data.load()
    (folder,) = derived_folder("crowds").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["test_data", "train_data"]
    monkeypatch.setattr(crowds, "draw", None)
    assert data.load().fingerprint == first.fingerprint
    assert first.note == ""
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert data.load().fingerprint == first.fingerprint
    assert DrawnCrowds(train=3, test=2, height=40, width=56, most=20, seed=1).load().fingerprint != first.fingerprint


def test_drawn_crowds_have_people_within_their_limits_and_images():
    loaded = DrawnCrowds(train=12, test=4, height=40, width=56, fewest=3, most=9).load()
    assert (len(loaded.train), len(loaded.test)) == (12, 4)
    for scene in (*loaded.train, *loaded.test):
        assert 3 <= scene.count <= 9
        assert ((scene.heads >= 0) & (scene.heads <= [55, 39])).all()


@pytest.mark.parametrize("settings", [{"train": 1}, {"height": 16}, {"fewest": 0}, {"fewest": 50, "most": 50}])
def test_impossible_drawn_crowds_are_refused(settings):
    with pytest.raises(InputError, match="allowed are"):
        DrawnCrowds(**settings)


# -- density maps


def scene(heads, height=40, width=60) -> Scene:
    return Scene(np.zeros((3, height, width), np.uint8), np.array(heads, dtype=np.float64).reshape(-1, 2))


points = st.integers(0, 30).flatmap(lambda n: arrays(np.float64, (n, 2), elements=st.floats(0, 1)))


@settings(max_examples=60, deadline=None)
@given(points, st.integers(1, 50), st.integers(1, 50))
def test_map_sums_to_the_count_wherever_heads_are(shares, height, width):
    heads = shares * [width - 1, height - 1]
    density = density_map(heads, (height, width), AdaptiveKernels())
    assert density.shape == (height, width)
    assert density.sum() == pytest.approx(len(heads), abs=1e-9)
    half = density_maps._half(density)
    assert half.shape == (1, -(-height // 2), -(-width // 2))
    assert float(half.double().sum()) == pytest.approx(len(heads), abs=1e-5)


def test_kernels_are_as_wide_as_the_three_nearest_heads_are_apart():
    heads = np.random.default_rng(0).uniform(0, 300, (40, 2))
    distances = np.sort(cdist(heads, heads), axis=1)[:, 1:4]
    kernels = AdaptiveKernels(smallest=0.01, largest=1e9)
    assert kernels.widths(heads) == pytest.approx(0.3 * distances.mean(axis=1))


def test_kernels_of_few_or_equal_heads_stay_within_their_bounds():
    kernels = AdaptiveKernels(smallest=2.0, largest=9.0)
    assert kernels.widths(np.array([[5.0, 5.0]])).tolist() == [9.0]
    assert kernels.widths(np.array([[5.0, 5.0]] * 4)).tolist() == [2.0] * 4
    assert kernels.widths(np.array([[0.0, 0.0], [20.0, 0.0]])) == pytest.approx([6.0, 6.0])
    assert kernels.widths(np.zeros((0, 2))).shape == (0,)


def test_map_far_from_edges_is_the_sum_of_gaussians():
    heads = np.array([[30.0, 20.0], [33.5, 24.25]])
    sigma = 0.3 * np.hypot(3.5, 4.25)
    rows, columns = np.mgrid[:40, :60]
    square = (columns[None] - heads[:, :1, None]) ** 2 + (rows[None] - heads[:, 1:, None]) ** 2
    expected = (np.exp(-square / (2 * sigma**2)) / (2 * np.pi * sigma**2)).sum(axis=0)
    density = density_map(heads, (40, 60), AdaptiveKernels())
    assert density == pytest.approx(expected, abs=1e-3 * expected.max())


@pytest.mark.parametrize("settings", [{"beta": 0}, {"neighbours": 0}, {"smallest": 5, "largest": 4}])
def test_impossible_kernels_are_refused(settings):
    with pytest.raises(InputError, match="must be above 0"):
        AdaptiveKernels(**settings)


def test_maps_are_computed_once_for_the_same_content(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scenes = [scene([(3, 4), (20, 21)]), scene([])]
    first = density_maps.density_maps(scenes, AdaptiveKernels())
    with monkeypatch.context() as patch:
        patch.setattr(density_maps, "density_map", None)
        again = density_maps.density_maps([scene([(3, 4), (20, 21)]), scene([])], AdaptiveKernels())
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    for other in ([scene([(3, 4), (20, 22)]), scene([])], [scene([(3, 4), (20, 21)], width=62), scene([])]):
        density_maps.density_maps(other, AdaptiveKernels())
    density_maps.density_maps(scenes, AdaptiveKernels(beta=0.2))
    assert len(list(derived_folder("density").iterdir())) == 4


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_maps_are_made_again(monkeypatch, tmp_path, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scenes = [scene([(3, 4), (20, 21)])]
    (first,) = density_maps.density_maps(scenes, AdaptiveKernels())
    (path,) = derived_folder("density").iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:500] if damage == "truncated" else content[:-400] + b"\x40" * 400)
    (again,) = density_maps.density_maps(scenes, AdaptiveKernels())
    assert torch.equal(first, again)
    assert path.read_bytes() == content
