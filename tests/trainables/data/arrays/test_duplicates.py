"""Duplicates by content, and photographs that look alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from trainables.data.arrays import duplicates
from trainables.data.arrays.duplicates import (
    ALIKE,
    ImageHashes,
    describe_duplicates,
    find_duplicates,
    group_equal,
    hash_content,
    hash_images,
    hash_looks,
    load_hashes,
    name_positions,
)
from trainables.data.arrays.splits import split_pool
from trainables.data.synthetic.face_drawing import draw_face
from trainables.data.synthetic.sr_faces import LOOKS


def draw(seed: int, size: int = 96) -> np.ndarray:
    return np.ascontiguousarray(draw_face(np.random.default_rng(seed), size, LOOKS).image.transpose(2, 0, 1))


def save_again(image: np.ndarray, quality: int = 70, size: int | None = None) -> np.ndarray:
    """The photograph as a JPEG of another quality, and at another size."""
    picture = Image.fromarray(image.transpose(1, 2, 0))
    if size is not None:
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return np.ascontiguousarray(np.asarray(Image.open(file)).transpose(2, 0, 1))


def correlate(one: np.ndarray, other: np.ndarray) -> float:
    return float(hash_looks(one) @ hash_looks(other))


def test_content_is_shape_and_pixels() -> None:
    image = draw(0)
    changed = image.copy()
    changed[0, 5, 5] ^= 1
    assert np.array_equal(hash_content(image), hash_content(image.copy()))
    assert not np.array_equal(hash_content(image), hash_content(changed))
    flat = np.zeros((3, 4, 8), dtype=np.uint8)
    assert not np.array_equal(hash_content(flat), hash_content(flat.reshape(3, 8, 4)))


def test_a_photograph_saved_again_looks_alike_and_other_faces_do_not() -> None:
    faces = [draw(seed) for seed in range(40)]
    again = [correlate(face, save_again(face, quality)) for face in faces for quality in (40, 70)]
    resized = [correlate(face, save_again(face, 90, size=128)) for face in faces]
    assert np.median([*again, *resized]) > 0.999
    assert np.mean(np.array([*again, *resized]) >= ALIKE) > 0.97
    assert max(correlate(one, other) for n, one in enumerate(faces) for other in faces[:n]) < 0.9


def test_looks_are_the_correlation_of_cells_whatever_brightness_and_contrast() -> None:
    image = draw(3, 64)
    cells = image.astype(np.float64).mean(axis=0).reshape(16, 4, 16, 4).mean(axis=(1, 3)).ravel()
    other = draw(4, 64)
    others = other.astype(np.float64).mean(axis=0).reshape(16, 4, 16, 4).mean(axis=(1, 3)).ravel()
    assert correlate(image, other) == pytest.approx(np.corrcoef(cells, others)[0, 1], abs=1e-5)
    dimmed = (image * 0.5 + 20).astype(np.uint8)
    assert correlate(image, dimmed) > 0.9999
    assert correlate(image, np.full((3, 9, 9), 7, dtype=np.uint8)) == 0
    assert hash_looks(np.zeros((3, 7, 40), dtype=np.uint8)).shape == (256,)


def describe(splits: dict[str, ImageHashes]) -> str:
    return describe_duplicates(find_duplicates(splits), splits)


def test_equal_and_alike_images_are_counted_once_by_split_and_named() -> None:
    faces = [draw(seed) for seed in range(9)]
    splits = {
        "training": faces[:4],
        "validation": [faces[0], faces[4], save_again(faces[1])],
        "test": [faces[4], faces[2], save_again(faces[3]), faces[5]],
    }
    files = {name: [f"{name}/{number}.png" for number in range(len(images))] for name, images in splits.items()}
    hashes = {name: hash_images(images, True, files[name]) for name, images in splits.items()}
    assert describe(hashes) == (
        "1 of 3 validation images occur in training (validation/0.png is training/0.png); "
        "1 of 3 validation images look like one in training (validation/2.png is like training/1.png); "
        "2 of 4 test images occur in training or validation (test/0.png is validation/1.png, and 1 more); "
        "1 of 4 test images look like one in training or validation (test/2.png is like training/3.png)"
    )
    assert find_duplicates(hashes)[3] == ("test", "test/1.png", "training/2.png", True)
    exact = {name: hash_images(images, False) for name, images in splits.items()}
    assert describe(exact) == (
        "1 of 3 validation images occur in training (image 0 is image 0); "
        "2 of 4 test images occur in training or validation (image 0 is image 1, and 1 more)"
    )
    assert describe({"training": exact["training"], "test": hash_images(faces[5:], False)}) == ""


def test_search_by_main_components_finds_what_comparing_all_pairs_does() -> None:
    generator = np.random.default_rng(0)
    drawn = generator.standard_normal((1400, 256)) * np.geomspace(1, 0.01, 256)
    looks = np.concatenate([drawn[:900], drawn[:500] + 0.1 * drawn[900:]])
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    looks[[3, 902]] = 0  # images of even brightness
    content = generator.integers(0, 256, (1400, 16)).astype(np.uint8)
    hashes = ImageHashes(content, looks.astype(np.float32), name_positions(1400))
    splits = {"training": hashes.slice(0, 900), "test": hashes.slice(900, 1400)}

    correlations = looks[900:] @ looks[:900].T
    alike = np.flatnonzero(correlations.max(axis=1) >= ALIKE)
    assert 100 < len(alike) < 400  # of 500: some lie on each side of the limit
    expected = [(f"image {900 + position}", f"image {correlations[position].argmax()}") for position in alike]
    assert [(one.image, one.other) for one in find_duplicates(splits)] == expected


def test_equal_images_stay_in_one_split_and_a_pool_without_them_is_split_as_before() -> None:
    labels = np.arange(40) % 4
    alone = np.arange(40)
    expected = split_pool(labels, 5, 0.25, 0, alone)
    assert (len(expected["val"]), len(expected["train"])) == (10, 30)
    images = [np.full((1, 2, 2), value, dtype=np.uint8) for value in [*range(20), *range(20)]]
    equal = group_equal(hash_images(images, False))
    assert equal.tolist() == [*range(20), *range(20)]
    splits = split_pool(labels, 5, 0.25, 0, equal)
    assert {position % 20 for position in splits["val"]}.isdisjoint({position % 20 for position in splits["train"]})
    assert sorted([*splits["train"], *splits["val"]]) == list(range(40))
    assert len(splits["val"]) == 10


def test_hashes_of_arrays_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.stack([draw(seed) for seed in range(3)])
    first = load_hashes("faces", "some fingerprint", images)
    monkeypatch.setattr(duplicates, "hash_images", None)
    again = load_hashes("faces", "some fingerprint", images)
    assert np.array_equal(first.content, again.content)
    assert np.array_equal(first.looks, again.looks)
