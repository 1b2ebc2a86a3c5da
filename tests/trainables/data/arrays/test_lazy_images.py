"""Images that are decoded when they are taken: ahead of their turn, by threads that end, with bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from study.errors import InputError
from tests.trainables.small_sr_faces import picture
from trainables.data.arrays.decoding import Decoding, measure_pixels
from trainables.data.arrays.lazy_images import AHEAD, LazyImages
from trainables.data.files.image_sources import ImageFiles

COUNT, THREADS = 24, 2
DECODING = Decoding(8, grey=False, cache=False, threads=THREADS)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    names = [f"{number:02}.png" for number in range(COUNT)]
    for seed, name in enumerate(names):
        picture(tmp_path / name, 12 + seed % 3, 10, seed=seed)
    return names


@pytest.fixture
def images(tmp_path: Path, files: list[str]) -> LazyImages:
    return LazyImages(files, ImageFiles(tmp_path), DECODING)


@pytest.fixture
def pixels(tmp_path: Path, files: list[str]) -> np.ndarray:
    return np.stack([DECODING.decode(tmp_path / file) for file in files])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition()


def test_images_are_taken_as_from_an_array(images: LazyImages, pixels: np.ndarray) -> None:
    assert (images.shape, images.dtype, len(images)) == (pixels.shape, pixels.dtype, COUNT)
    assert np.array_equal(images[3:9], pixels[3:9])
    positions = np.array([5, 1, 23, 1, 0])
    assert np.array_equal(images[positions], pixels[positions])


def test_batches_are_decoded_ahead_within_bounds_and_threads_end(
    images: LazyImages, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    decode = Decoding.decode

    def count(self: Decoding, path: str, content: bytes) -> np.ndarray:
        decoded.append(path)
        return decode(self, path, content)

    monkeypatch.setattr(Decoding, "decode", count)
    threads = threading.active_count()
    order = np.random.default_rng(0).permutation(COUNT)
    batches = np.split(order, [5, 10, 15, 20])
    images.prefetch(iter(batches))
    for number, batch in enumerate(batches):
        ahead = sum(map(len, batches[: number + AHEAD]))
        wait_for(lambda ahead=ahead: len(decoded) == ahead)
        assert threading.active_count() <= threads + THREADS
        assert np.array_equal(images[batch], pixels[batch])
    assert len(decoded) == COUNT  # each once
    wait_for(lambda: threading.active_count() == threads)


def test_other_batches_than_those_announced_are_decoded_too(images: LazyImages, pixels: np.ndarray) -> None:
    threads = threading.active_count()
    batches = np.split(np.arange(COUNT), 4)
    images.prefetch(iter(batches))
    assert np.array_equal(images[batches[2]], pixels[batches[2]])
    assert np.array_equal(images[batches[0]], pixels[batches[0]])
    images.prefetch(iter(()))  # an epoch that was stopped is forgotten
    assert np.array_equal(images[batches[1]], pixels[batches[1]])
    wait_for(lambda: threading.active_count() == threads)


def test_damaged_file_is_named(images: LazyImages, tmp_path: Path) -> None:
    (tmp_path / "07.png").write_bytes(b"no image")
    images.prefetch(iter([np.arange(4, 8)]))
    with pytest.raises(InputError, match=r"07\.png cannot be decoded"):
        images[np.arange(4, 8)]
    (tmp_path / "07.png").unlink()
    with pytest.raises(InputError, match=r"07\.png cannot be read"):
        images[7:8]


def test_mean_and_deviation_are_those_of_all_pixels(pixels: np.ndarray) -> None:
    mean, std = measure_pixels(pixels)
    scaled = pixels.astype(np.float64) / 255
    assert mean == pytest.approx(scaled.mean(axis=(0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(scaled.std(axis=(0, 2, 3)), rel=1e-9)


@pytest.mark.parametrize("threads", [0, 1.5])
def test_number_of_threads_that_makes_no_sense_is_refused(threads: float) -> None:
    with pytest.raises(InputError, match="allowed is a whole number, at least 1, or None"):
        Decoding(8, grey=False, threads=threads)
