"""Density maps whose sums are counts, and what is derived from data: kept, and made again where it is damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from study.errors import InputError
from study.task import TrialNote
from tests.trainables.data.test_shanghaitech import scene
from trainables.data.arrays import density_maps
from trainables.data.arrays.cache import derived_folder
from trainables.data.arrays.density_maps import AdaptiveKernels, density_map
from trainables.data.synthetic import crowds
from trainables.data.synthetic.crowds import DrawnCrowds

# -- density maps

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
    kernels = AdaptiveKernels(smallest=0.3, largest=1e9)
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


@pytest.mark.parametrize(
    "settings",
    [{"beta": 0}, {"neighbours": 0}, {"smallest": 5, "largest": 4}, {"smallest": 0.29}, {"smallest": float("nan")}],
)
def test_impossible_kernels_are_refused(settings):
    with pytest.raises(InputError, match=r"must be above 0, .* smallest ≥ 0\.3 pixels"):
        AdaptiveKernels(**settings)


# -- drawn crowds

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


# -- what is kept


def test_drawn_crowds_are_written_once_and_are_the_same_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = DRAWN.load()
    (folder,) = derived_folder("crowds").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["sha256", "test_data", "train_data"]
    monkeypatch.setattr(crowds, "draw", None)
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
    (folder,) = derived_folder("crowds").iterdir()
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
    assert list(derived_folder("crowds").iterdir()) == [folder]


def test_drawn_crowds_that_cannot_be_written_are_an_error_of_the_folder(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written to .*/file/kdstudy/crowds \(Not a dir.*XDG_CACHE_HOME"):
        DRAWN.load()


def test_drawn_crowds_are_the_same_whoever_draws_them_first(monkeypatch, tmp_path):
    """Another process finishes while this one draws: its folder stays."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    checksum, others = crowds._checksum, []

    def slow(folder: Path) -> bytes:
        if not others and folder.name.endswith(".tmp"):
            others.append(shutil.copytree(folder, derived_folder("crowds") / folder.name[1:].split(".")[0]))
            (others[0] / "sha256").write_bytes(checksum(folder))
            (others[0] / "theirs").touch()
        return checksum(folder)

    monkeypatch.setattr(crowds, "_checksum", slow)
    DRAWN.load()
    assert (others[0] / "theirs").is_file()
    assert list(derived_folder("crowds").iterdir()) == others


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


def test_maps_that_cannot_be_kept_are_made_with_a_note(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    scenes = [scene([(3, 4), (20, 21)])]
    expected = density_maps.density_maps(scenes, AdaptiveKernels())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(TrialNote, match=r"cannot be kept in .*/file/kdstudy/density \(Not a dir.*XDG_CACHE_HOME"):
        made = density_maps.density_maps(scenes, AdaptiveKernels())
    assert all(torch.equal(*pair) for pair in zip(made, expected, strict=True))


@pytest.mark.parametrize("given", ["", "relative", "./relative"])
def test_relative_cache_folder_counts_for_nothing(monkeypatch, tmp_path, given):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert derived_folder("density") == tmp_path / ".cache" / "kdstudy" / "density"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert derived_folder("density") == tmp_path / "other" / "kdstudy" / "density"
