"""Density maps: their sums are counts, and they are cached and computed again if damaged."""

from __future__ import annotations

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
from trainables.data.arrays.cache import get_cache_folder
from trainables.tasks.crowd_counting import density_maps
from trainables.tasks.crowd_counting.density_maps import AdaptiveKernels, make_density_map

# -- density maps

points = st.integers(0, 30).flatmap(lambda n: arrays(np.float64, (n, 2), elements=st.floats(0, 1)))


@settings(max_examples=60, deadline=None)
@given(points, st.integers(1, 50), st.integers(1, 50))
def test_map_sums_to_the_count_wherever_heads_are(shares, height, width):
    heads = shares * [width - 1, height - 1]
    density = make_density_map(heads, (height, width), AdaptiveKernels())
    assert density.shape == (height, width)
    assert density.sum() == pytest.approx(len(heads), abs=1e-9)
    half = density_maps._sum_blocks(density)
    assert half.shape == (1, -(-height // 2), -(-width // 2))
    assert float(half.double().sum()) == pytest.approx(len(heads), abs=1e-5)


def test_kernels_are_as_wide_as_the_three_nearest_heads_are_apart():
    heads = np.random.default_rng(0).uniform(0, 300, (40, 2))
    distances = np.sort(cdist(heads, heads), axis=1)[:, 1:4]
    kernels = AdaptiveKernels(smallest=0.3, largest=1e9)
    assert kernels.compute_sigmas(heads) == pytest.approx(0.3 * distances.mean(axis=1))


def test_kernels_of_few_or_equal_heads_stay_within_their_bounds():
    kernels = AdaptiveKernels(smallest=2.0, largest=9.0)
    assert kernels.compute_sigmas(np.array([[5.0, 5.0]])).tolist() == [9.0]
    assert kernels.compute_sigmas(np.array([[5.0, 5.0]] * 4)).tolist() == [2.0] * 4
    assert kernels.compute_sigmas(np.array([[0.0, 0.0], [20.0, 0.0]])) == pytest.approx([6.0, 6.0])
    assert kernels.compute_sigmas(np.zeros((0, 2))).shape == (0,)


def test_map_far_from_edges_is_the_sum_of_gaussians():
    heads = np.array([[30.0, 20.0], [33.5, 24.25]])
    sigma = 0.3 * np.hypot(3.5, 4.25)
    rows, columns = np.mgrid[:40, :60]
    square = (columns[None] - heads[:, :1, None]) ** 2 + (rows[None] - heads[:, 1:, None]) ** 2
    expected = (np.exp(-square / (2 * sigma**2)) / (2 * np.pi * sigma**2)).sum(axis=0)
    density = make_density_map(heads, (40, 60), AdaptiveKernels())
    assert density == pytest.approx(expected, abs=1e-3 * expected.max())


@pytest.mark.parametrize(
    "settings",
    [{"beta": 0}, {"neighbours": 0}, {"smallest": 5, "largest": 4}, {"smallest": 0.29}, {"smallest": float("nan")}],
)
def test_impossible_kernels_are_refused(settings):
    with pytest.raises(InputError, match=r"must be above 0, .* smallest ≥ 0\.3 pixels"):
        AdaptiveKernels(**settings)


# -- their cache


def test_maps_are_computed_once_for_the_same_content(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scenes = [scene([(3, 4), (20, 21)]), scene([])]
    first = density_maps.load_density_maps(scenes, AdaptiveKernels())
    with monkeypatch.context() as patch:
        patch.setattr(density_maps, "make_density_map", None)
        again = density_maps.load_density_maps([scene([(3, 4), (20, 21)]), scene([])], AdaptiveKernels())
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    for other in ([scene([(3, 4), (20, 22)]), scene([])], [scene([(3, 4), (20, 21)], width=62), scene([])]):
        density_maps.load_density_maps(other, AdaptiveKernels())
    density_maps.load_density_maps(scenes, AdaptiveKernels(beta=0.2))
    assert len(list(get_cache_folder("density").iterdir())) == 4


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_maps_are_computed_again(monkeypatch, tmp_path, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scenes = [scene([(3, 4), (20, 21)])]
    (first,) = density_maps.load_density_maps(scenes, AdaptiveKernels())
    (path,) = get_cache_folder("density").iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:500] if damage == "truncated" else content[:-400] + b"\x40" * 400)
    (again,) = density_maps.load_density_maps(scenes, AdaptiveKernels())
    assert torch.equal(first, again)
    assert path.read_bytes() == content


def test_maps_that_cannot_be_cached_are_computed_with_a_note(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    scenes = [scene([(3, 4), (20, 21)])]
    expected = density_maps.load_density_maps(scenes, AdaptiveKernels())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(TrialNote, match=r"cannot be cached in .*/file/kdstudy/density \(Not a dir.*XDG_CACHE_HOME"):
        made = density_maps.load_density_maps(scenes, AdaptiveKernels())
    assert all(torch.equal(*pair) for pair in zip(made, expected, strict=True))
