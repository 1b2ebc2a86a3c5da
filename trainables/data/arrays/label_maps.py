"""Images with a class for each pixel, in memory or memory-mapped, and the names of the classes."""

from __future__ import annotations

from dataclasses import dataclass

from study.errors import InputError
from trainables.data.arrays.splits import OrderedSplits, Pixels
from trainables.models.backbones.pretrained import IMAGENET_MEAN, IMAGENET_STD
from trainables.task import IGNORED


@dataclass(frozen=True)
class ClassTable:
    """The names of the classes 0 … K − 1 of a label map, and what sets some of them apart.

    Raises InputError for fewer classes than 2 or more than 255, a name twice, and a background or an exchanged class
    that is none of them.
    """

    names: tuple[str, ...]
    background: str | None = None
    """The class that the mean F1 leaves out."""
    exchanged: tuple[tuple[str, str], ...] = ()
    """Pairs of classes that trade places in the mirror image, such as ("left eye", "right eye")."""

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) <= IGNORED:
            raise InputError(f"a table of {len(self.names)} classes; allowed are 2 to {IGNORED}")
        if twice := [name for number, name in enumerate(self.names) if name in self.names[:number]]:
            raise InputError(f"class {twice[0]!r} is in the table twice; give each class a name of its own")
        used = (() if self.background is None else (self.background,)) + tuple(
            name for pair in self.exchanged for name in pair
        )
        if unknown := [name for name in used if name not in self.names]:
            raise InputError(f"there is no class {unknown[0]!r}; the table has {', '.join(self.names)}")

    def __len__(self) -> int:
        return len(self.names)

    def mirror(self) -> list[int]:
        """Return the label in the mirror image of each label from 0 to 255."""
        labels = list(range(IGNORED + 1))
        for pair in self.exchanged:
            one, other = (self.names.index(name) for name in pair)
            labels[one], labels[other] = other, one
        return labels


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """Images and the class of each pixel, in memory or memory-mapped."""

    images: Pixels
    """(N, 3, H, W)."""
    labels: Pixels
    """(N, H, W), from 0 to K − 1, or IGNORED."""

    def __len__(self) -> int:
        return len(self.images)

    def slice(self, start: int, stop: int) -> LabelMaps:
        return LabelMaps(self.images[start:stop], self.labels[start:stop])


@dataclass(frozen=True, eq=False)
class LabelMapSet(OrderedSplits[LabelMaps]):
    """Images with label maps in the dataset's own splits."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    """ImageNet's, since nets may start from its weights."""
    std: tuple[float, ...] = IMAGENET_STD
