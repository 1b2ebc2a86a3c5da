"""A few faces in VGGFace2's own layout, and folders of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.errors import InputError
from trainables.data import vggface2
from trainables.data.arrays.cache import get_cache_folder
from trainables.data.arrays.face_sr import SrSet

SIZE = 32
WIDTH, HEIGHT = 90, 70
BOX = (25, 14, 31, 40)
"""X, y, width and height: 1.3 · 40 = 52 pixels, from 40.5 − 26 = 14.5 and 34 − 26 = 8 on."""

CROP = (14, 8, 66, 60)
POINTS = (32, 28, 48, 29, 40, 38, 34, 46, 47, 47)
HEADERS = {
    vggface2.BOXES: "NAME_ID,X,Y,W,H",
    vggface2.LANDMARKS: "NAME_ID,P1X,P1Y,P2X,P2Y,P3X,P3Y,P4X,P4Y,P5X,P5Y",
}
TRAIN = [f"n{person:06d}/{image:04d}_01" for person in range(1, 9) for image in range(1, 4)]
SUBSET = "train faces: 8 of 24 by the hash of their names; test faces: 3 of 4 by the hash of their names"
TEST = [f"n{person:06d}/{image:04d}_01" for person in (11, 12) for image in range(1, 3)]

Rows = Mapping[str, Sequence[float]]


def dataset(root: Path, tables: str = "bb_landmark") -> Path:
    """Eight people of three images each to train on, two of two each to test on."""
    for split, names in (("train", TRAIN), ("test", TEST)):
        for number, name in enumerate(names):
            picture(image_path(root, split, name), WIDTH, HEIGHT, seed=number + 100 * (split == "test"))
        write_table(root, vggface2.BOXES, split, dict.fromkeys(names, BOX), tables)
        write_table(root, vggface2.LANDMARKS, split, dict.fromkeys(names, POINTS), tables)
    return root


def picture(path: Path, width: int, height: int, seed: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height)).convert(mode).save(path, quality=95)


def image_path(root: Path, split: str, name: str) -> Path:
    return root / split / f"{name}.jpg"


def table_path(root: Path, table: str, split: str = "train") -> Path:
    return root / "bb_landmark" / table.format(split)


def write_table(root: Path, table: str, split: str, rows: Rows, tables: str = "bb_landmark") -> None:
    path = root / tables / table.format(split)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [HEADERS[table], *(",".join(map(str, (f'"{name}"', *row))) for name, row in rows.items())]
    path.write_text("\n".join([*lines, ""]))


def change_rows(root: Path, table: str, split: str, names: Sequence[str], row: Sequence[float] | None) -> None:
    """Replace the rows of these faces, or remove them."""
    all_names, usual = (TRAIN if split == "train" else TEST), BOX if table == vggface2.BOXES else POINTS
    rows = {name: usual if name not in names else row for name in all_names}
    write_table(root, table, split, {name: row for name, row in rows.items() if row is not None})


def load(root: Path, sizes: tuple[int, int, int] = (6, 2, 3), size: int = SIZE) -> SrSet:
    return vggface2.VGGFace2(root, size, *sizes).load()


def list_cached() -> list[Path]:
    """Return the cache folders of decoded faces."""
    return sorted(path for path in get_cache_folder("sr-faces").iterdir() if path.suffix != ".lock")


def assert_refused(data: object, match: str) -> None:
    """Check that loading is refused in one line and caches nothing."""
    with pytest.raises(InputError, match=match) as caught:
        data.load()
    assert "\n" not in str(caught.value)
    assert not get_cache_folder("sr-faces").exists() or not list_cached()


def rank_by_hash(names: Iterable[str]) -> list[str]:
    """Sort by SHA-256, independently of the implementation."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def choose_faces() -> tuple[list[str], list[str], list[str]]:
    """Return the six, two and three faces of the splits; validation has the first of eight people by hash."""
    (held, *_) = rank_by_hash({name[:7] for name in TRAIN})
    train, val = ([name for name in TRAIN if (name[:7] == held) is own] for own in (False, True))
    return rank_by_hash(train)[:6], rank_by_hash(val)[:2], rank_by_hash(TEST)[:3]
