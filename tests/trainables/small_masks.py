"""Folders of images with label images: a bright rectangle is class 1, the rest class 0, its frame has no class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FRAME = 255
"""The value of pixels without a class."""


def write_pair(folder: Path, name: str, seed: int, width: int = 30, height: int = 24, mode: str = "L") -> None:
    """Write folder/images/<name>.png, and folder/labels/<name>.png of this Pillow mode."""
    image, label = draw_pair(seed, width, height)
    save(Image.fromarray(image), folder / "images" / f"{name}.png")
    picture = Image.fromarray(label)
    if mode == "P":
        picture.putpalette([0, 0, 0, 200, 30, 30] + [90] * 762)
    save(picture, folder / "labels" / f"{name}.png")


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def draw_pair(seed: int, width: int = 30, height: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Return image (H, W, 3) and label (H, W)."""
    generator = np.random.default_rng(seed)
    image = generator.integers(20, 80, (height, width, 3), dtype=np.uint8)
    label = np.zeros((height, width), dtype=np.uint8)
    top, left = (int(value) for value in generator.integers(4, 9, 2))
    label[top - 1 : top + 9, left - 1 : left + 9] = FRAME
    label[top : top + 8, left : left + 8] = 1
    image[label == 1] += 120
    return image, label


def write_folder(root: Path, count: int = 24) -> Path:
    for number in range(count):
        write_pair(root, f"{number:02d}", number, width=30 + number % 3, mode="LP"[number % 2])
    return root
