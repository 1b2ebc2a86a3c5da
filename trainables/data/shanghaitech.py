"""ShanghaiTech part A: photographs of crowds with a point for each head, in the authors' own layout.

Nothing is downloaded. The dataset has no validation split; the task takes one from the training images.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from study.errors import InputError
from study.identity import LOCATION
from trainables.data.arrays.duplicates import ImageHashes, group_equal, hash_images
from trainables.data.arrays.splits import Labels, Pixels
from trainables.data.files.source_files import check_colours, open_image
from trainables.data.folders import find_folder, make_root_absolute
from trainables.models.backbones.pretrained import IMAGENET_MEAN, IMAGENET_STD

Points = npt.NDArray[np.float64]

TRAIN_IMAGES = 300
TEST_IMAGES = 182
FOLDERS = tuple(
    f"{parent}{part}"
    for parent in ("", "ShanghaiTech/", "ShanghaiTech_Crowd_Counting_Dataset/")
    for part in ("part_A_final", "part_A")
)
"""The folder of part A in the copies in circulation."""
TRUTHS = ("ground_truth", "ground-truth")


@dataclass(frozen=True, eq=False)
class Scene:
    """A photograph and the annotated heads in it."""

    image: Pixels
    """(3, H, W); a grey photograph has three equal channels."""
    heads: Points
    """(N, 2): column and row, from 0, inside the image; equal points are different people."""

    @property
    def count(self) -> int:
        return len(self.heads)


@dataclass(frozen=True, eq=False)
class CrowdSet:
    """Photographs in memory: a pool for training and validation, and the dataset's own test split."""

    name: str
    train: tuple[Scene, ...]
    test: tuple[Scene, ...]
    note: str = ""
    """Remark for the record, such as missing training images; else empty."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Per channel, of pixels in [0, 1], for normalisation."""
    std: tuple[float, ...] = IMAGENET_STD
    complete: bool = True
    """False if images of the dataset are missing; published figures are shown for complete sets only."""

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of splits, images and points, independent of the files' names."""
        digest = hashlib.sha256(repr((len(self.train), len(self.test))).encode())
        for scene in (*self.train, *self.test):
            for array in (scene.image, scene.heads):
                digest.update(repr(array.shape).encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    @cached_property
    def hashes(self) -> tuple[ImageHashes, ImageHashes]:
        """The hashes of the pool's photographs, and of the test photographs."""
        pool, test = ([scene.image for scene in scenes] for scenes in (self.train, self.test))
        return hash_images(pool, photographs=True), hash_images(test, photographs=True)

    @cached_property
    def equal(self) -> Labels:
        """(N,): for each photograph of the pool the position of the first one with the same content."""
        return group_equal(hash_images([scene.image for scene in self.train], photographs=False))


@dataclass(frozen=True)
class ShanghaiTech:
    """Part A from `root`: the folder part_A_final or one that contains it; FOLDERS lists the accepted spellings.

    The few heads annotated outside their image are moved to its edge, so that an image's count is the annotated one.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)

    def __post_init__(self) -> None:
        make_root_absolute(self)

    @property
    def name(self) -> str:
        return "ShanghaiTech A"

    def load(self) -> CrowdSet:
        """Read all images and their points.

        Raises InputError for a folder that is missing or is part B, an image without points or points without an
        image, and a file that cannot be read or has impossible content.
        """
        if self.root is not None and Path(self.root).name.lower().startswith("part_b"):
            raise InputError(
                f"{self.name}: {self.root} is part B, other photographs; give the folder of part A with --data-dir"
            )
        folder = find_folder(self.name, self.root, FOLDERS, ["train_data"], "ShanghaiTech archive")
        return read_dataset(folder, self.name, TRAIN_IMAGES, TEST_IMAGES)


def read_dataset(folder: Path, name: str, train: int, test: int) -> CrowdSet:
    """Read a dataset in the layout of ShanghaiTech's parts, with `train` and `test` images in its complete splits.

    Raises InputError as `ShanghaiTech.load` does.
    """
    splits = {split: _read_split(folder / f"{split}_data") for split in ("train", "test")}
    notes = [
        f"{len(splits[split])} of {full} {split} images"
        for split, full in (("train", train), ("test", test))
        if len(splits[split]) != full
    ]
    complete = not notes
    moved = sum(count for scenes in splits.values() for _, count in scenes)
    notes += [f"{moved} heads outside their image moved to its edge"] if moved else []
    scenes = {split: tuple(scene for scene, _ in found) for split, found in splits.items()}
    return CrowdSet(name, scenes["train"], scenes["test"], "; ".join(notes), complete=complete)


def _read_split(folder: Path) -> list[tuple[Scene, int]]:
    """Return a split's scenes by number, each with the count of its heads annotated outside the image."""
    # some copies have both spellings, one of them as an empty folder
    truths = max((folder / spelling for spelling in TRUTHS), key=lambda path: len(_find_numbered(path, _TRUTH)))
    images, points = _find_numbered(folder / "images", r"IMG_(\d+)\.jpe?g"), _find_numbered(truths, _TRUTH)
    if not images:
        raise InputError(f"{folder / 'images'} has no IMG_<number>.jpg: unpack the archive again")
    for number in sorted(images.keys() - points.keys()):
        raise InputError(
            f"{images[number]} has no ground truth {truths / f'GT_IMG_{number}.mat'}: add it or remove both"
        )
    for number in sorted(points.keys() - images.keys()):
        raise InputError(f"{points[number]} has no image {folder}/images/IMG_{number}.jpg: add it or remove both")
    return [_read_scene(images[number], points[number]) for number in sorted(images)]


_TRUTH = r"GT_IMG_(\d+)\.mat"


def _find_numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Return the files whose names match, by their number. Raises InputError for two of one number."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := re.fullmatch(pattern, path.name, re.IGNORECASE):
            other = found.setdefault(int(match[1]), path)
            if other != path:
                raise InputError(f"{other} and {path.name} have the same number: remove one of them")
    return found


def _read_scene(image_path: Path, points_path: Path) -> tuple[Scene, int]:
    image, points = _read_image(image_path), _read_points(points_path)
    last = np.array(image.shape[:0:-1]) - 1
    heads = np.clip(points, 0, last)
    # heads lie a few pixels outside at most; farther than the image's size, points and image do not belong together
    far = np.abs(points - heads).max(axis=1) > max(image.shape)
    if far.any():
        (x, y), (width, height) = points[far][0], last + 1
        raise InputError(
            f"{points_path} has a head at ({x:g}, {y:g}), far outside its image of {width} × {height} pixels: "
            "copy both again from the archive"
        )
    return Scene(image, heads), int((heads != points).any(axis=1).sum())


def _read_image(path: Path) -> Pixels:
    """Return an image's pixels (3, H, W), as a viewer shows it.

    Raises InputError for damaged headers, truncated files, and other colours than RGB and grey.
    """
    file = open_image(path)
    check_colours(file, path)
    return np.ascontiguousarray(np.asarray(file.convert("RGB")).transpose(2, 0, 1))


_EXPECTED = "expected is image_info{1,1} with a numeric `location` (N, 2), as in the authors' files"


def _read_points(path: Path) -> Points:
    """Return the annotated heads (N, 2), counted from 0 (MATLAB counts from 1), inside the image or not."""
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises anything for a damaged file: zlib's errors, UnboundLocalError
        raise InputError(f"{path} cannot be read as a .mat file ({error}); {_EXPECTED}") from None
    try:
        info = content["image_info"]
        info = info[0, 0] if info.dtype == object else info  # a cell, or its content
        location = info["location"][0, 0]
        number = info["number"][0, 0].tolist() if "number" in info.dtype.names else None
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise InputError(f"{path} is of another structure ({error}); {_EXPECTED}") from None
    points = _check_points(path, location)
    if number not in (None, [[len(points)]]):
        raise InputError(f"{path} has {len(points)} heads, but number is {number}: copy it again from the archive")
    return points - 1


def _check_points(path: Path, location: npt.NDArray[np.generic]) -> Points:
    shape, kind = location.shape, location.dtype.kind
    if kind not in "fiu" or (location.size and (len(shape) != 2 or shape[1] != 2)):
        raise InputError(f"{path} is of another structure (location is {location.dtype} {shape}); {_EXPECTED}")
    points = location.astype(np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise InputError(f"{path} is of another structure (location is not finite); {_EXPECTED}")
    return points
