from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from study.errors import InputError
from study.identity import describe
from trainables.data.digits import Digits


def test_digits_are_scikit_learns_in_their_order():
    digits, bunch = Digits().load(), load_digits()
    images = np.concatenate([digits.train_images, digits.test_images])
    assert images.dtype == np.uint8
    assert images.shape == (1797, 1, 8, 8)
    assert np.array_equal(images[:, 0] / 15, bunch.images)
    assert np.array_equal(np.concatenate([digits.train_labels, digits.test_labels]), bunch.target)
    assert (len(digits.train_images), len(digits.test_images)) == (898, 899)
    assert digits.train_labels.dtype == np.int64
    assert (digits.classes, digits.note) == (10, "")


def test_mean_and_deviation_normalise_the_pool():
    digits = Digits().load()
    normalised = (digits.train_images / 255 - digits.mean) / digits.std
    assert normalised.mean() == pytest.approx(0, abs=1e-12)
    assert normalised.std() == pytest.approx(1)


def test_subset_is_stratified_fixed_and_noted():
    subset, again, whole = Digits(train=300).load(), Digits(train=300).load(), Digits().load()
    assert len(subset.train_images) == 300
    assert np.bincount(subset.train_labels).min() >= 29
    assert np.array_equal(subset.train_images, again.train_images)
    assert np.array_equal(subset.test_images, whole.test_images)
    assert subset.note == "300 of 898 training images"
    assert (subset.complete, whole.complete) == (False, True)
    assert subset.fingerprint not in ("", whole.fingerprint)
    pool = {image.tobytes() for image in whole.train_images}
    assert all(image.tobytes() in pool for image in subset.train_images)


def test_subset_of_all_is_all():
    assert Digits(train=898).load().fingerprint == Digits().load().fingerprint


def test_fingerprint_is_that_of_the_bundled_file():
    # Golden: scikit-learn 1.9.1; teachers are stored under it.
    assert Digits().load().fingerprint == "0cb0344ee68010c0"


@pytest.mark.parametrize("train", [0, 9, 899, -5])
def test_impossible_subset_is_refused(train):
    with pytest.raises(InputError, match="10 to 898"):
        Digits(train=train)


def test_subset_size_is_part_of_the_identity():
    assert describe(Digits(train=300))["train"] == 300
    assert describe(Digits(train=300)) != describe(Digits(train=301))
