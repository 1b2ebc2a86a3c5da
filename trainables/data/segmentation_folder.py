"""Images of your own with a class for each pixel: a folder of images, and one of label images of the same names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

from study.errors import InputError
from study.identity import LOCATION
from trainables.data.arrays.label_maps import ClassTable, LabelMapSet
from trainables.data.arrays.labelled_images import SPLITS, Shares
from trainables.data.arrays.labelled_pixels import LabelledPair, PairDecoding, load_labelled_pixels
from trainables.data.files.image_listing import ALLOWED, ImageListing
from trainables.data.files.source_files import find_spelling
from trainables.data.folders import make_root_absolute

Classes = tuple[str, ...] | tuple[tuple[int, str], ...] | Mapping[int, str]


@dataclass(frozen=True)
class SegmentationFolder:
    """Images in `root`/images, and for each a label image of the same name in `root`/labels, as PNG.

    SegmentationFolder("roads", classes=("background", "road")) splits one folder by the content of its images;
    with train="train", val="val", test="test" the splits are roads/train/images, roads/train/labels and so on, or
    roads/images/train and so on. Values of label images, in grey or as indices of a palette, are classes.
    Raises InputError for a class table with a fault, sides below 8, and shares that leave nothing to train on.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    """The folder that the others lie below; by default the working directory."""
    classes: Classes = ()
    """The names of the classes 0, 1, …, or names by value, such as {0: "background", 255: "road"}."""
    train: str = ""
    """The folder of training images; by default `root` itself."""
    val: str | float = 0.1
    """A folder of validation images, or a share of those in `train`."""
    test: str | float = 0.2
    """A folder of test images, or a share of those in `train`."""
    images: str = "images"
    labels: str = "labels"
    label_suffix: str = ".png"
    """The end of a label image's name, which replaces the image's suffix, such as "_mask.png"."""
    ignore: int | Literal["others"] | None = None
    """The value of pixels without a class, which count in no score; "others" for all values that are no class."""
    background: str | None = None
    """The class that the mean F1 leaves out."""
    exchanged: tuple[tuple[str, str], ...] = ()
    """Pairs of classes that trade places in the mirror image, such as ("left eye", "right eye")."""
    size: int | tuple[int, int] = 128
    """Side in pixels, or height and width. Image and labels are cut to the largest middle part of this shape, and
    resized: labels by the nearest pixel. Scores are those of the resized labels."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root or ".")
        make_root_absolute(self)
        object.__setattr__(self, "classes", _number_classes(self.classes))
        self._shares, self._decoding  # noqa: B018 - their own checks

    @property
    def class_table(self) -> ClassTable:
        return ClassTable(tuple(name for _, name in self._pairs), self.background, self.exchanged)

    @property
    def _pairs(self) -> list[tuple[int, str]]:
        """Value and name of each class."""
        return list(cast(tuple[tuple[int, str], ...], self.classes))

    @property
    def _shares(self) -> Shares:
        return Shares(*(share if isinstance(share, int | float) else 0.0 for share in (self.val, self.test)))

    @property
    def _decoding(self) -> PairDecoding:
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return PairDecoding(height, width, tuple(value for value, _ in self._pairs), self.ignore, self.class_table)

    def load(self) -> LabelMapSet:
        """List all images and labels, and decode them on first use.

        Raises InputError for a folder that is missing or has no images, an image without labels, files that cannot be
        decoded, labels that differ in size from their image or are outside the class table, and a class without a
        training pixel.
        """
        root, pairs, notes = Path(self.root or "."), list[LabelledPair](), list[str]()
        for split, folder in zip(SPLITS, (self.train, self.val, self.test), strict=True):
            if isinstance(folder, str):
                listing = self._list_images(folder)
                notes.append(listing.describe_left_out().removeprefix(", "))
                pairs += self._pair_files(folder, listing, "" if split == "train" else split)
        note = ", ".join(note for note in notes if note)
        return load_labelled_pixels(root.name, root, pairs, self._shares, self._decoding, note)

    def _pair_files(self, folder: str, listing: ImageListing, split: str) -> Iterator[LabelledPair]:
        """Yield each image of a split's folder with its label; the content divides images of `train`."""
        root, images, labels = Path(self.root or "."), self._find(folder, self.images), self._find(folder, self.labels)
        for file in listing.files:
            label = find_spelling(root, f"{labels}/{PurePosixPath(file).with_suffix('')}{self.label_suffix}")
            if not (root / label).exists():
                raise InputError(
                    f"{root / images / file} has no label {root / label}: add it, remove the image, or name the label "
                    "files with labels= and label_suffix="
                )
            yield LabelledPair(f"{images}/{file}", label, split)

    def _list_images(self, folder: str) -> ImageListing:
        path = Path(self.root or ".") / self._find(folder, self.images)
        if not path.is_dir():
            raise InputError(f"{path} is not a folder; give the folder of the images with root=, train= or --data-dir")
        listing = ImageListing(path)
        if not listing.files:
            raise InputError(f"{path} has no {ALLOWED}{listing.describe_left_out()}: give another folder")
        return listing

    def _find(self, folder: str, kind: str) -> str:
        """Return the folder of a split's images or labels below root: train/images, or else images/train."""
        first, second = PurePosixPath(folder, kind).as_posix(), PurePosixPath(kind, folder).as_posix()
        root = Path(self.root or ".")
        return second if not (root / first).is_dir() and (root / second).is_dir() else first


def _number_classes(classes: Any) -> tuple[tuple[int, str], ...]:
    """Return value and name of each class. Raises InputError for anything but names, or names by value."""
    if isinstance(classes, Mapping):
        classes = tuple(classes.items())
    if isinstance(classes, tuple | list) and all(isinstance(one, str) for one in classes):
        classes = tuple(enumerate(classes))
    try:
        return tuple((value, str(name)) for value, name in classes)
    except (TypeError, ValueError):
        raise InputError(
            f'classes is {classes!r}; allowed are names, classes=("background", "road"), and names by value, '
            'classes={0: "background", 255: "road"}'
        ) from None
