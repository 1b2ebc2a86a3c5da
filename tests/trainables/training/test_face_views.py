"""Mirrored faces: images, labels and the names of left and right turn together."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
import torchvision.transforms.v2.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import transforms

from tests.trainables.small_faces import dataset, load
from trainables.data.arrays.face_parsing import CLASSES
from trainables.data.arrays.label_maps import LabelMaps, LabelMapSet
from trainables.tasks.segmentation.examples import LabelledPixels, view_labels
from trainables.tasks.segmentation.face_parsing import PARTS
from trainables.training.views import CropFlip, Flips

VIEWS = Flips()
MIRRORED = PARTS.mirror()
MIRRORED_LABELS = torch.tensor(MIRRORED)


def face_set(count: int = 6, height: int = 8, width: int = 10) -> LabelMapSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    labels = rng.integers(0, 19, (count, height, width), dtype=np.uint8)
    return LabelMapSet("random", LabelMaps(images, labels), (count - 2, 1, 1), "0" * 16)


def examples(faces: LabelMapSet, part: LabelMaps | None = None, device: str = "cpu") -> LabelledPixels:
    mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (faces.mean, faces.std))
    return LabelledPixels(faces.samples if part is None else part, VIEWS, mean, std, MIRRORED_LABELS.to(device))


# -- views


def test_flips_are_torchvisions():
    images = torch.from_numpy(face_set().samples.images)
    flipped = VIEWS.apply(images, torch.ones(6, dtype=torch.int64))
    assert flipped.dtype == torch.uint8
    assert torch.equal(flipped, TF.horizontal_flip(images))


def test_view_zero_is_the_untouched_image_and_each_has_its_own():
    images = torch.from_numpy(face_set().samples.images)
    views = torch.tensor([0, 1, 1, 0, 0, 1])
    shown = VIEWS.apply(images, views)
    for image, view, result in zip(images, views, shown, strict=True):
        assert torch.equal(result, TF.horizontal_flip(image) if view else image)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32))
def test_flipping_twice_is_the_identity(batch, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 19, (batch, height, width), generator=generator).to(torch.uint8)
    views = torch.randint(0, 2, (batch,), generator=generator)
    assert torch.equal(VIEWS.apply(VIEWS.apply(images, views), views), images)
    once = view_labels(VIEWS, labels, views, MIRRORED_LABELS)
    assert torch.equal(view_labels(VIEWS, once.to(torch.uint8), views, MIRRORED_LABELS), labels.long())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**62), st.integers(0, 1000), st.integers(0, 2**40))
def test_draws_are_those_of_crop_flip_without_crops(seed, epoch, first):
    samples = torch.arange(first, first + 50)
    draws = VIEWS.draw(seed, epoch, samples)
    assert torch.equal(draws, CropFlip(padding=0, flip=True).draw(seed, epoch, samples))
    assert torch.equal(VIEWS.draw(seed, epoch, samples.flip(0)), draws.flip(0))


def test_half_of_the_faces_are_flipped_independently_of_epoch_and_neighbour():
    draws = torch.stack([VIEWS.draw(3, epoch, torch.arange(20_000)) for epoch in (0, 1)])
    assert VIEWS.count == 2
    assert draws.unique().tolist() == [0, 1]
    assert scipy.stats.binomtest(int(draws[0].sum()), 20_000).pvalue > 1e-3
    for one, other in ((draws[0], draws[1]), (draws[0, :-1], draws[0, 1:])):
        table = np.bincount(2 * one + other, minlength=4).reshape(2, 2)
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


# -- labels


def test_mirrored_labels_swap_left_and_right_parts_alone():
    swapped = {CLASSES[label]: CLASSES[other] for label, other in enumerate(MIRRORED) if label != other}
    # 4↔5, 6↔7, 8↔9 in the authors' numbers
    assert [label for label, other in enumerate(MIRRORED) if label != other] == [4, 5, 6, 7, 8, 9]
    assert swapped == {
        "l_eye": "r_eye", "r_eye": "l_eye", "l_brow": "r_brow", "r_brow": "l_brow", "l_ear": "r_ear", "r_ear": "l_ear"
    }  # fmt: skip


def test_flipped_labels_are_torchvisions_flip_with_sides_exchanged():
    labels = torch.from_numpy(face_set().samples.labels)
    flipped = view_labels(VIEWS, labels, torch.ones(6, dtype=torch.int64), MIRRORED_LABELS)
    expected = TF.horizontal_flip(labels.long())
    for left, right in ((4, 5), (6, 7), (8, 9)):
        at_left, at_right = expected == left, expected == right
        expected = expected.masked_fill(at_left, right).masked_fill(at_right, left)
    assert torch.equal(flipped, expected)


# -- batches


def test_batch_is_normalised_and_flipped_with_its_targets():
    faces = face_set()
    samples, views = torch.tensor([4, 0, 2]), torch.tensor([1, 0, 1])
    batch = examples(faces).batch(samples, views)
    assert batch.inputs.dtype == torch.float32
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert (batch.targets.dtype, batch.targets.shape) == (torch.int64, (3, 8, 10))
    assert batch.samples is samples
    assert batch.views is views
    standardise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # ImageNet's
    for row, (sample, view) in enumerate(zip(samples, views, strict=True)):
        image = standardise(torch.from_numpy(faces.samples.images[sample]).float() / 255)
        torch.testing.assert_close(batch.inputs[row], TF.horizontal_flip(image) if view else image, atol=1e-5, rtol=0)
        labels = torch.from_numpy(faces.samples.labels[sample]).long()
        mirrored = MIRRORED_LABELS[TF.horizontal_flip(labels)]
        assert torch.equal(batch.targets[row], mirrored if view else labels)


def test_mapped_faces_give_the_batches_of_faces_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    loaded = load(dataset(tmp_path / "CelebAMask-HQ"))
    mapped = loaded.pool
    in_memory = LabelMaps(np.array(mapped.images), np.array(mapped.labels))
    samples, views = torch.tensor([3, 0, 3, 2]), torch.tensor([0, 1, 1, 1])
    batches = [examples(loaded, faces).batch(samples, views) for faces in (mapped, in_memory)]
    assert torch.equal(batches[0].inputs, batches[1].inputs)
    assert torch.equal(batches[0].targets, batches[1].targets)


def test_batch_leaves_the_faces_as_they_are():
    faces = face_set()
    kept = faces.samples.images.copy(), faces.samples.labels.copy()
    batch = examples(faces).batch(torch.arange(6), torch.ones(6, dtype=torch.int64))
    batch.inputs.zero_()
    batch.targets.zero_()
    assert np.array_equal(faces.samples.images, kept[0])
    assert np.array_equal(faces.samples.labels, kept[1])


@pytest.mark.gpu
def test_batches_on_the_device_equal_those_on_the_processor():
    faces, samples, views = face_set(), torch.arange(6), torch.tensor([0, 1, 0, 1, 1, 0])
    here = examples(faces).batch(samples, views)
    there = examples(faces, device="cuda").batch(samples.cuda(), views.cuda())
    assert there.inputs.is_cuda
    torch.testing.assert_close(there.inputs.cpu(), here.inputs)
    assert torch.equal(there.targets.cpu(), here.targets)
