"""A few images of three classes, in a folder for each class."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.small_sr_faces import picture

CLASSES = ("ant", "bee", "cat")
COUNT = 12


def write_images(folder: Path, count: int, first: int = 0) -> None:
    """Write `count` images of each class, of several sizes."""
    for label, name in enumerate(CLASSES):
        for number in range(count):
            seed = first + number + 100 * label
            picture(folder / name / f"{number}.png", 12 + seed % 3, 10 + seed % 2, seed=seed)
