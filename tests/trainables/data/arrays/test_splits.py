from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.errors import InputError
from trainables.data.arrays.splits import ImageSet, stratified_split


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_split_is_a_partition_with_classes_in_proportion(data):
    labels = np.array(data.draw(st.lists(st.integers(0, 5), min_size=2, max_size=80)))
    count = data.draw(st.integers(1, len(labels) - 1))
    kept, held = stratified_split(labels, count, seed=data.draw(st.integers(0, 100)))
    assert len(held) == count
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert list(kept) == sorted(kept)
    assert list(held) == sorted(held)
    for label in np.unique(labels):
        quota = count * np.mean(labels == label)
        # Largest remainder: every part is its quota rounded down or up.
        assert abs(np.sum(labels[held] == label) - quota) < 1


def test_balanced_classes_are_split_exactly():
    labels = np.repeat(np.arange(10), 5000)
    kept, held = stratified_split(labels, 0.1, seed=0)
    assert np.bincount(labels[held]).tolist() == [500] * 10
    assert np.bincount(labels[kept]).tolist() == [4500] * 10


def test_remainders_go_to_the_largest():
    # Quotas of 10 out of 50, 30, 21, 19 (120): 4.17, 2.5, 1.75, 1.58: one each for the last two.
    labels = np.repeat(np.arange(4), [50, 30, 21, 19])
    _, held = stratified_split(labels, 10, seed=0)
    assert np.bincount(labels[held]).tolist() == [4, 2, 2, 2]


def test_equal_remainders_go_to_the_lower_classes():
    labels = np.repeat(np.arange(4), 25)
    _, held = stratified_split(labels, 10, seed=0)
    assert np.bincount(labels[held]).tolist() == [3, 3, 2, 2]


def test_share_and_count_of_the_same_size_agree():
    labels = np.arange(898) % 10
    assert all(
        np.array_equal(a, b)
        for a, b in zip(stratified_split(labels, 0.1, 5), stratified_split(labels, 90, 5), strict=True)
    )


def test_seed_decides_the_split():
    labels = np.arange(200) % 10
    state = np.random.get_state()[1].copy()
    first, again, other = (stratified_split(labels, 0.5, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(np.random.get_state()[1], state)


def test_split_is_the_same_on_every_machine():
    # Golden: drawn once with numpy's PCG64; a change would silently move every study's validation set.
    assert stratified_split(np.arange(20) % 2, 6, seed=0)[1].tolist() == [1, 10, 12, 17, 18, 19]


@pytest.mark.parametrize("held_out", [0, 100, -1, 101, 0.0, 1.0, 0.001, 1.5])
def test_empty_part_is_refused(held_out):
    with pytest.raises(InputError, match="count from 1 to 99"):
        stratified_split(np.zeros(100, dtype=np.int64), held_out, seed=0)


def image_set(**changes) -> ImageSet:
    pixels, labels = np.arange(16, dtype=np.uint8).reshape(4, 1, 2, 2), np.arange(4)
    parts = {"train_images": pixels, "train_labels": labels, "test_images": pixels, "test_labels": labels}
    return ImageSet(name="tiny", classes=4, mean=(0.5,), std=(0.5,), **(parts | changes))


def test_fingerprint_is_that_of_the_content():
    assert image_set().fingerprint == image_set().fingerprint
    assert len(image_set().fingerprint) == 16


@pytest.mark.parametrize("part", ["train_images", "train_labels", "test_images", "test_labels"])
def test_fingerprint_changes_with_any_value(part):
    changed = getattr(image_set(), part).copy()
    changed.flat[3] += 1
    assert image_set(**{part: changed}).fingerprint != image_set().fingerprint
