"""Images of your own for classification, with a folder for each class."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from study.errors import InputError
from study.identity import LOCATION
from trainables.data.arrays.labelled_images import SPLITS, LabelledFile
from trainables.data.arrays.splits import ImageSet
from trainables.data.files.image_listing import ALLOWED, THUMBNAILS, ImageListing
from trainables.data.files.image_sources import ImageFiles
from trainables.data.own_images import OwnImages

SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""Folders of these names alone are splits: read as classes, they would train a net to tell one from the other."""


@dataclass(frozen=True)
class ImageFolder(OwnImages):
    """Images in a folder for each class: `root`/`train`/<class>/….jpg or .png, decoded as squares of `size` pixels.

    ImageFolder(train="photos/train", val="photos/val", test="photos/test") has splits of its own;
    ImageFolder("photos", test=0.2) splits one folder by the content of its files.
    Raises InputError for a size below 8, and for shares that leave nothing to train on.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    """The folder that the others lie below; by default the working directory."""
    train: str = ""
    """The folder of the classes' folders; by default `root` itself. Classes are numbered in the order of their names.
    """
    val: str | float | None = None
    """A folder of validation images, or a share of those in `train`; by default the task's `validation` decides."""
    test: str | float = 0.2
    """A folder of test images, or a share of those in `train`."""
    size: int = 64
    """Images are cut to the largest square in their middle, and resized."""
    grey: bool = False
    """Decode one channel of grey instead of RGB."""
    cache: bool = field(default=True, metadata=LOCATION)
    """Decode all images once, to a file in the cache; False decodes each whenever it is in a batch, for sets whose file
    would be too large. Results are the same."""
    threads: int | None = field(default=None, metadata=LOCATION)
    """Threads of each trial that decode batches without a cache; by default one for each core, at most 8."""

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, name, os.fspath(value))
            elif not isinstance(value, str) and (name == "train" or isinstance(value, bool)):
                raise InputError(
                    f"ImageFolder: {name} is {value!r}; allowed is the name of a folder below root. (A folder of faces "
                    "for super-resolution is now called PhotoFolder.)"
                )
        super().__post_init__()

    @property
    def _name(self) -> str:
        """The folder of all given folders, as given or its last part: "photos" of "photos/train" and "photos/test"."""
        root, given = Path(self.root or "."), (self.train, self.val, self.test)
        folders = [folder for folder in given if isinstance(folder, str)]
        common = Path(os.path.commonpath([root / folder for folder in folders]))
        return common.relative_to(root).as_posix() if root in common.parents else common.name

    def load(self) -> ImageSet:
        """List all images, and decode them on first use.

        Raises InputError for a folder that is missing or has no images, an image outside the folders of classes or of a
        class that training does not have, and files that cannot be decoded.
        """
        given = {name: folder for name, folder in zip(SPLITS, (self.train, self.val, self.test), strict=True)
                 if isinstance(folder, str)}  # fmt: skip
        listings = {name: self._list_images(folder) for name, folder in given.items()}
        class_names = sorted({_split_path(file)[0] for file in listings["train"].files})
        self._check_class_folders(class_names, listings["train"])
        files = [
            LabelledFile(file, label, split)
            for name, listing in listings.items()
            for file, label, split in self._label_files(name, listing.files, class_names)
        ]
        note = "".join(listing.describe_left_out() for listing in listings.values()).removeprefix(", ")
        return self._load_files(ImageFiles(Path(self.root or ".")), files, class_names, note)

    def _check_class_folders(self, class_names: Sequence[str], listing: ImageListing) -> None:
        """Raise InputError for other folders than those of classes, one without images, and fewer than two classes."""
        train, others = self._locate(self.train), [one for one in (self.val, self.test) if isinstance(one, str)]
        if inner := [folder for folder in map(self._locate, others) if train in folder.parents]:
            raise InputError(
                f"{inner[0]} lies in {train}, whose folders are classes: give training images their own folder, train="
            )
        if len(class_names) < 2:
            raise InputError(
                f"{train} has images of {len(class_names)} classes; needed is a folder for each class, two or more"
            )
        if set(class_names) <= SPLIT_FOLDERS:
            raise InputError(
                f"the folders of {train} are named like splits, not classes: {_join_names(class_names)}; give each, as "
                'in ImageFolder(train="photos/train", test="photos/test")'
            )
        for path in sorted(path for path in train.iterdir() if path.is_dir()):
            is_class = not path.name.startswith(".") and path.name not in THUMBNAILS
            if is_class and unicodedata.normalize("NFC", path.name) not in class_names:
                raise InputError(
                    f"{path} has no {ALLOWED}{listing.describe_left_out()}: add images of this class, or remove it"
                )

    def _label_files(
        self, name: str, files: Sequence[str], class_names: Sequence[str]
    ) -> Iterator[tuple[str, int, str]]:
        """Yield path below root, label and split of each file of a split's folder."""
        numbers = {named: number for number, named in enumerate(class_names)}
        folder = {"train": self.train, "val": self.val, "test": self.test}[name]
        split = "" if name == "train" else name  # the content divides images of `train`, by the shares
        for file in files:
            named = _split_path(file)[0]
            if named not in numbers:
                raise InputError(
                    f"{self._locate(str(folder)) / file} is of class {named!r}, which {self._locate(self.train)} does "
                    f"not have: its classes are {_join_names(class_names)}"
                )
            yield f"{folder}/{file}" if folder else file, numbers[named], split

    def _list_images(self, folder: str) -> ImageListing:
        path = self._locate(folder)
        if not path.is_dir():
            raise InputError(f"{path} is not a folder; give the folder of the images with root= or --data-dir")
        listing = ImageListing(path)
        if not listing.files:
            raise InputError(f"{path} has no {ALLOWED}{listing.describe_left_out()}: give another folder")
        for file in listing.files:
            if not _split_path(file)[1]:
                raise InputError(
                    f"{path / file} lies in no class's folder: move it to one, or remove it; photographs without "
                    "classes are read by PhotoFolder"
                )
        return listing

    def _locate(self, folder: str) -> Path:
        return Path(self.root or ".") / folder


def _split_path(file: str) -> tuple[str, str]:
    """Return the first folder of a path, in NFC, and the rest, which is empty for a file without a folder."""
    first, _, rest = file.partition("/")
    return unicodedata.normalize("NFC", first), rest


def _join_names(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")
