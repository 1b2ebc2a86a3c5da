"""A few faces in CelebAMask-HQ's own layout, with its awkward cases: masks that overlap, three kinds of image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.errors import InputError
from trainables.data.arrays.cache import get_cache_folder
from trainables.data.arrays.face_parsing import CLASSES
from trainables.data.celebamask import IMAGES, MAPPING, MASKS, CelebAMaskHQ

ORIGINALS = {3: 162_770, 7: 0, 0: 162_771, 12: 182_637, 2001: 182_638, 2000: 202_598}
"""By an image's number that of its original in CelebA: two train, two val and two test images, at the borders."""

PARTS = {
    "skin": (100, 60, 420, 400),
    "hair": (80, 20, 430, 120),
    "l_eye": (150, 200, 190, 230),
    "neck": (0, 390, 511, 511),
}
"""Left, top, right, bottom. Hair and neck lie over the skin, whose mask has them too; the eye lies in it."""

SIDES = {3: 1024, 7: 64, 0: 65}
"""Of the images; others have 100 pixels."""


def dataset(root: Path, originals: dict[int, int] = ORIGINALS) -> Path:
    """The folder, and in the mapping also a row for an image that is not there."""
    rng = np.random.default_rng(0)
    rows = [f"{number:<8}{original:<12}{original + 1:06d}.jpg" for number, original in {**originals, 29_999: 5}.items()]
    (root / IMAGES).mkdir(parents=True)
    (root / MAPPING).write_text("\n".join(["idx     orig_idx    orig_file", *rows, ""]))
    for number in originals:
        side = SIDES.get(number, 100)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((side, side))
        (coarse.convert("L") if number == 7 else coarse).save(root / IMAGES / f"{number}.jpg", quality=95)
        for part in PARTS:
            path = mask_path(root, number, part)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask(part, number)).save(path, compress_level=1)
    return root


def mask(part: str, number: int = 0) -> np.ndarray:
    """255 in the part's rectangle, which lies a little farther to the right for each image."""
    (left, top, right, bottom), shift = PARTS[part], 16 * (number % 11)
    values = np.zeros((512, 512), dtype=np.uint8)
    values[top:bottom, left + shift : right + shift] = 255
    return values


def labels(number: int) -> np.ndarray:
    """What the masks make together, in words: each pixel has the last class, in the authors' order, that covers it."""
    covering = [np.where(mask(part, number) > 0, CLASSES.index(part), 0) for part in PARTS]
    return np.max(covering, axis=0).astype(np.uint8)


def mask_path(root: Path, number: int, part: str) -> Path:
    return root / MASKS / str(number // 2000) / f"{number:05d}_{part}.png"


def image_path(root: Path, number: int) -> Path:
    return root / IMAGES / f"{number}.jpg"


def load(root: Path, size: int = 32):
    return CelebAMaskHQ(root, size).load()


def list_cached() -> list[Path]:
    """Return the cache folders of decoded faces."""
    return sorted(path for path in get_cache_folder("faces").iterdir() if path.suffix != ".lock")


def assert_refused(root: Path, match: str) -> None:
    """Check that loading is refused in one line before anything is decoded or cached."""
    with pytest.raises(InputError, match=match) as caught:
        load(root)
    assert "\n" not in str(caught.value)
    assert not get_cache_folder("faces").exists() or not list_cached()
