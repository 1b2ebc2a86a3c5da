"""CIFAR-10 and CIFAR-100 from the official files: the binary version, or the Python version.

The Python version is pickled, and unpickling runs code: a file of it is read only if its checksum is the one
published. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import math
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from study.errors import InputError
from study.identity import LOCATION
from trainables.data.arrays.splits import ImageSet, Labels, Pixels

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
"""Of the pickled files, as torchvision.datasets.CIFAR10 and CIFAR100 list them."""


class _Edition(NamedTuple):
    """One official download and the files in it."""

    archive: str
    folder: str
    train: tuple[str, ...]
    test: str


class _Variant(NamedTuple):
    """What tells CIFAR-10 from CIFAR-100."""

    editions: tuple[_Edition, ...]
    label_limits: tuple[int, ...]
    """For each label byte before an image, how many values it has; the last one is the class."""
    pickled_labels: bytes
    mean: tuple[float, ...]
    std: tuple[float, ...]


VARIANTS = {
    10: _Variant(
        editions=(
            _Edition(
                "cifar-10-binary.tar.gz",
                "cifar-10-batches-bin",
                tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
                "test_batch.bin",
            ),
            _Edition(
                "cifar-10-python.tar.gz",
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
            _Edition("cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), "test.bin"),
            _Edition("cifar-100-python.tar.gz", "cifar-100-python", ("train",), "test"),
        ),
        label_limits=(20, 100),
        pickled_labels=b"fine_labels",
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
    ),
}


@dataclass(frozen=True)
class Cifar:
    """CIFAR-10 or CIFAR-100 from `root`: the unpacked folder, or the one that it lies in.

    Of CIFAR-10's five training batches some may be missing; the set's note then says how many images it has.
    Raises InputError for another number of classes.
    """

    classes: int
    root: Path | str | None = field(default=None, metadata=LOCATION)

    def __post_init__(self) -> None:
        if self.classes not in VARIANTS:
            raise InputError(f"CIFAR with {self.classes} classes; there are CIFAR-10 and CIFAR-100")
        if self.root is not None:  # absolute: a worker does not run in the folder the command was given in
            object.__setattr__(self, "root", Path(self.root).expanduser().resolve())

    @property
    def name(self) -> str:
        return f"CIFAR-{self.classes}"

    def load(self) -> ImageSet:
        """Read all the files found.

        Raises InputError for a file that is missing, of a wrong size, altered or with a label out of range.
        """
        kind = VARIANTS[self.classes]
        folder, edition = self._located(kind.editions)
        names = [name for name in edition.train if (folder / name).is_file()]
        per_file = TRAIN_IMAGES // len(edition.train)
        images, labels = zip(*(_read_file(folder / name, per_file, kind) for name in names), strict=True)
        test_images, test_labels = _read_file(folder / edition.test, TEST_IMAGES, kind)
        return ImageSet(
            name=self.name,
            train_images=np.concatenate(images),
            train_labels=np.concatenate(labels),
            test_images=np.ascontiguousarray(test_images),
            test_labels=test_labels,
            classes=self.classes,
            mean=kind.mean,
            std=kind.std,
            note=_note_missing(names, edition),
        )

    def check(self) -> ImageSet:
        return self.load()

    def _located(self, editions: tuple[_Edition, ...]) -> tuple[Path, _Edition]:
        """The first folder with files of an edition, if the test file and a training file are among them."""
        if self.root is None:
            raise InputError(f"{self.name}: no data folder given; {_download_hint(editions[0])}")
        root = Path(self.root)
        for edition in editions:
            for folder in (root, root / edition.folder):
                if any((folder / name).is_file() for name in (*edition.train, edition.test)):
                    self._require_both(folder, edition)
                    return folder, edition
        looked = ", ".join(str(path) for path in (root, *(root / edition.folder for edition in editions)))
        raise InputError(f"{self.name} is not in any of {looked}; {_download_hint(editions[0])}")

    def _require_both(self, folder: Path, edition: _Edition) -> None:
        for names in ((edition.test,), edition.train):
            if not any((folder / name).is_file() for name in names):
                raise InputError(f"{self.name}: no {' or '.join(names)} in {folder}; {_download_hint(edition)}")


def _read_file(path: Path, count: int, kind: _Variant) -> tuple[Pixels, Labels]:
    """The `count` images (N, 3, 32, 32) and classes (N,) of one file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check permissions and disk") from error
    images, labels = (_unpickle if path.name in MD5 else _parse_binary)(path, content, count, kind)
    return images.reshape(count, *SHAPE), labels.astype(np.int64)


def _parse_binary(path: Path, content: bytes, count: int, kind: _Variant) -> tuple[Pixels, Pixels]:
    """Pixels (N, 3072) and classes (N,) of a file of the binary version."""
    label_bytes = len(kind.label_limits)
    record_bytes = label_bytes + math.prod(SHAPE)
    if len(content) != count * record_bytes:
        raise InputError(
            f"{path} has {len(content):,} bytes, expected are {count * record_bytes:,} ({count:,} records of "
            f"{record_bytes:,}): truncated or another file; unpack {kind.editions[0].archive} again"
        )
    records = np.frombuffer(content, np.uint8).reshape(count, record_bytes)
    _check_labels(path, records, kind)
    return records[:, label_bytes:], records[:, label_bytes - 1]


def _check_labels(path: Path, records: Pixels, kind: _Variant) -> None:
    wrong = records[:, : len(kind.label_limits)] >= np.array(kind.label_limits)
    if wrong.any():
        record, column = np.argwhere(wrong)[0]
        raise InputError(
            f"{path}: record {record} has label {records[record, column]}, allowed is "
            f"0 to {kind.label_limits[column] - 1}: damaged; unpack {kind.editions[0].archive} again"
        )


def _unpickle(path: Path, content: bytes, count: int, kind: _Variant) -> tuple[Pixels, Labels]:
    """Pixels (N, 3072) and classes (N,) of a file of the Python version, if its checksum is right."""
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if checksum != MD5[path.name]:
        binary, pickled = (edition.archive for edition in kind.editions)
        raise InputError(
            f"{path} has MD5 {checksum}, expected is {MD5[path.name]}: not the official file, so it is not "
            f"unpickled; unpack {pickled} again or use the binary version, {binary}"
        )
    batch = pickle.loads(content, encoding="bytes")
    return batch[b"data"], np.array(batch[kind.pickled_labels])


def _download_hint(edition: _Edition) -> str:
    return (
        f"download {edition.archive} from the CIFAR page (https://www.cs.toronto.edu/~kriz/cifar.html), "
        f"unpack it and give the folder {edition.folder} with --data-dir"
    )


def _note_missing(names: list[str], edition: _Edition) -> str:
    if len(names) == len(edition.train):
        return ""
    found = TRAIN_IMAGES // len(edition.train) * len(names)
    return f"{found:,} of {TRAIN_IMAGES:,} training images ({', '.join(names)})"
