"""CIFAR-10 and CIFAR-100 from the official files, in the binary or the Python version.

The Python version is pickled, and unpickling runs code: its files are read only if they have the published checksum.
With --download, a set that is missing is fetched into --data-dir.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from study.errors import InputError
from study.identity import LOCATION
from study.storage.downloads import are_downloads_permitted, download
from trainables.data.arrays.splits import ImageSet, Labels, Pixels
from trainables.data.folders import make_root_absolute

SHAPE = (3, 32, 32)
TRAIN_IMAGES = 50_000
TEST_IMAGES = 10_000

MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
}
"""Checksums of the pickled files, as in torchvision.datasets.CIFAR10 and CIFAR100."""

ADDRESS = "https://www.cs.toronto.edu/~kriz"
"""Folder of the official archives."""


class _Edition(NamedTuple):
    """One official download and the files in it."""

    archive: str
    md5: str
    """Published checksum of the archive."""
    folder: str
    train: tuple[str, ...]
    test: str


class _Variant(NamedTuple):
    """The properties in which CIFAR-10 and CIFAR-100 differ."""

    editions: tuple[_Edition, ...]
    label_limits: tuple[int, ...]
    """Number of values of each label byte before an image; the last byte is the class."""
    pickled_labels: bytes
    """The key of the classes in a pickled file."""
    mean: tuple[float, ...]
    std: tuple[float, ...]


VARIANTS = {
    10: _Variant(
        editions=(
            _Edition(
                "cifar-10-binary.tar.gz",
                "c32a1d4ab5d03f1284b67883e8d87530",
                "cifar-10-batches-bin",
                tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
                "test_batch.bin",
            ),
            _Edition(
                "cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a",
                "cifar-10-batches-py",
                tuple(f"data_batch_{number}" for number in range(1, 6)),
                "test_batch",
            ),
        ),
        label_limits=(10,),
        pickled_labels=b"labels",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    100: _Variant(
        editions=(
            _Edition(
                "cifar-100-binary.tar.gz",
                "03b5dce01913d631647c71ecec9e9cb8",
                "cifar-100-binary",
                ("train.bin",),
                "test.bin",
            ),
            _Edition(
                "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python", ("train",), "test"
            ),
        ),
        label_limits=(20, 100),
        pickled_labels=b"fine_labels",
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
    ),
}


@dataclass(frozen=True)
class Cifar:
    """CIFAR-10 or CIFAR-100 from `root`, the unpacked folder or its parent.

    Some of CIFAR-10's five training batches may be missing; the note of the loaded set then gives the number of images.
    Raises InputError for another number of classes.
    """

    classes: int
    root: Path | str | None = field(default=None, metadata=LOCATION)

    def __post_init__(self) -> None:
        if self.classes not in VARIANTS:
            raise InputError(f"CIFAR with {self.classes} classes; there are CIFAR-10 and CIFAR-100")
        make_root_absolute(self)

    @property
    def name(self) -> str:
        return f"CIFAR-{self.classes}"

    def load(self) -> ImageSet:
        """Read the training files that are present, and the test file.

        Raises InputError for a file that is missing, of a wrong size, altered or with a label out of range.
        """
        variant = VARIANTS[self.classes]
        folder, edition = self._find_edition(variant.editions)
        names = [name for name in edition.train if (folder / name).is_file()]
        per_file = TRAIN_IMAGES // len(edition.train)
        images, labels = zip(*(_read_file(folder / name, per_file, variant) for name in names), strict=True)
        test_images, test_labels = _read_file(folder / edition.test, TEST_IMAGES, variant)
        complete = len(names) == len(edition.train)
        return ImageSet(
            name=self.name,
            train_images=np.concatenate(images),
            train_labels=np.concatenate(labels),
            test_images=np.ascontiguousarray(test_images),
            test_labels=test_labels,
            classes=self.classes,
            mean=variant.mean,
            std=variant.std,
            note=""
            if complete
            else f"{len(names) * per_file:,} of {TRAIN_IMAGES:,} training images ({', '.join(names)})",
            complete=complete,
        )

    def _find_edition(self, editions: tuple[_Edition, ...]) -> tuple[Path, _Edition]:
        """Return the first folder with files of an edition, which must include the test file and a training file."""
        if self.root is None:
            raise InputError(f"{self.name}: no data folder given; {_download_hint(editions[0])}")
        root = Path(self.root)
        for edition in editions:
            for folder in (root, root / edition.folder):
                if any((folder / name).is_file() for name in (*edition.train, edition.test)):
                    self._check_train_and_test(folder, edition)
                    return folder, edition
        if are_downloads_permitted():
            _download_archive(editions[0], root)
            return root / editions[0].folder, editions[0]
        searched = ", ".join(str(path) for path in (root, *(root / edition.folder for edition in editions)))
        raise InputError(f"{self.name} is not in any of {searched}; {_download_hint(editions[0])}")

    def _check_train_and_test(self, folder: Path, edition: _Edition) -> None:
        for names in ((edition.test,), edition.train):
            if not any((folder / name).is_file() for name in names):
                raise InputError(f"{self.name}: no {' or '.join(names)} in {folder}; {_download_hint(edition)}")


def _read_file(path: Path, count: int, variant: _Variant) -> tuple[Pixels, Labels]:
    """Return the images (N, 3, 32, 32) and classes (N,) of one file, which must have `count` of them."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check permissions and disk") from error
    images, labels = (_unpickle if path.name in MD5 else _parse_binary)(path, content, count, variant)
    return images.reshape(count, *SHAPE), labels.astype(np.int64)


def _parse_binary(path: Path, content: bytes, count: int, variant: _Variant) -> tuple[Pixels, Pixels]:
    """Return pixels (N, 3072) and classes (N,) of a file of the binary version."""
    label_bytes = len(variant.label_limits)
    record_bytes = label_bytes + math.prod(SHAPE)
    if len(content) != count * record_bytes:
        raise InputError(
            f"{path} has {len(content):,} bytes, expected are {count * record_bytes:,} ({count:,} records of "
            f"{record_bytes:,}): truncated or another file; unpack {variant.editions[0].archive} again"
        )
    records = np.frombuffer(content, np.uint8).reshape(count, record_bytes)
    _check_labels(path, records, variant)
    return records[:, label_bytes:], records[:, label_bytes - 1]


def _check_labels(path: Path, records: Pixels, variant: _Variant) -> None:
    wrong = records[:, : len(variant.label_limits)] >= np.array(variant.label_limits)
    if wrong.any():
        record, column = np.argwhere(wrong)[0]
        raise InputError(
            f"{path}: record {record} has label {records[record, column]}, allowed is "
            f"0 to {variant.label_limits[column] - 1}: damaged; unpack {variant.editions[0].archive} again"
        )


def _unpickle(path: Path, content: bytes, count: int, variant: _Variant) -> tuple[Pixels, Labels]:
    """Return pixels (N, 3072) and classes (N,) of a file of the Python version, if it has the published checksum."""
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if checksum != MD5[path.name]:
        binary, pickled = (edition.archive for edition in variant.editions)
        raise InputError(
            f"{path} has MD5 {checksum}, expected is {MD5[path.name]}: not the official file, so it is not "
            f"unpickled; unpack {pickled} again or use the binary version, {binary}"
        )
    batch = pickle.loads(content, encoding="bytes")
    return batch[b"data"], np.array(batch[variant.pickled_labels])


def _download_hint(edition: _Edition) -> str:
    return (
        f"download {edition.archive} from the CIFAR page ({ADDRESS}/cifar.html), "
        f"unpack it and give the folder {edition.folder} with --data-dir, or give --data-dir FOLDER --download"
    )


def _download_archive(edition: _Edition, root: Path) -> None:
    """Fetch and unpack an official archive below `root`. Raises InputError if that fails."""
    url = f"{ADDRESS}/{edition.archive}"

    def fetch_and_unpack() -> None:
        from torchvision.datasets.utils import download_and_extract_archive

        root.mkdir(parents=True, exist_ok=True)
        # into a folder of another name first: CIFAR-10 may lack batches, so a part would count as the data set
        with tempfile.TemporaryDirectory(prefix=f".{edition.folder}-", dir=root) as unpacked:
            download_and_extract_archive(url, str(root), unpacked, md5=edition.md5, remove_finished=True)
            (Path(unpacked) / edition.folder).rename(root / edition.folder)

    download(url, root, fetch_and_unpack)
