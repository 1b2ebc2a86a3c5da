"""Base of the data sets of your own images for classification, whatever names their classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from trainables.data.arrays.decoding import Decoding
from trainables.data.arrays.labelled_images import LabelledFile, Shares, load_labelled_images
from trainables.data.arrays.splits import ImageSet
from trainables.data.files.image_sources import ImageSource
from trainables.data.folders import make_root_absolute


class OwnImages:
    """The settings that all data sets of one's own images for classification have."""

    root: Path | str | None
    val: str | float | None
    test: str | float
    size: int
    grey: bool
    cache: bool
    threads: int | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root or ".")
        make_root_absolute(self)
        self._shares, self._decoding  # noqa: B018 - their own checks

    @property
    def _shares(self) -> Shares:
        return Shares(*(share if isinstance(share, int | float) else 0.0 for share in (self.val, self.test)))

    @property
    def _decoding(self) -> Decoding:
        return Decoding(self.size, self.grey, self.cache, self.threads)

    @property
    def _name(self) -> str:
        return Path(self.root or ".").name

    def _load_files(
        self, source: ImageSource, files: Sequence[LabelledFile], class_names: Sequence[str], note: str = ""
    ) -> ImageSet:
        return load_labelled_images(self._name, source, files, class_names, self._shares, self._decoding, note)


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Return labels in order: numbers by their value, then words."""
    return sorted(labels, key=lambda label: (False, float(label), "") if label.isdecimal() else (True, 0.0, label))
