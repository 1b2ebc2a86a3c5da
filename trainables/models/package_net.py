"""Base of nets that another package builds by name: their inputs, inner features, and weights in a file.

Weights in a file are loaded into all but the last layer where its number of classes differs.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from torch import Tensor, nn

from study.errors import InputError
from trainables.models.backbones.pretrained import IMAGENET_MEAN, IMAGENET_STD
from trainables.models.hooks import Normalisation, expand_grey, list_names, tap_features
from trainables.training.weights_file import read_net


class PackageNet(ABC):
    """The settings of such a net. Subclasses are frozen dataclasses with these fields."""

    architecture: str
    weights: str | Path | None
    taps: tuple[str, ...]
    normalisation: str | None

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def _make_net(self, classes: int) -> nn.Module:
        """Return the net with its weights."""

    @property
    def input_normalisation(self) -> Normalisation | None:
        """Mean and deviation by which the net's inputs are normalised; None for those of the data."""
        return (IMAGENET_MEAN, IMAGENET_STD) if self.normalisation == "imagenet" else None

    def without_weights(self) -> Self:
        """Return the same net with fresh weights, for one whose weights are loaded or do not matter.

        It keeps the normalisation, and so the name, of its weights.
        """
        return replace(self, weights=None)  # type: ignore[type-var]  # subclasses are dataclasses

    def build(self, channels: int, classes: int) -> nn.Module:
        """Return a net: images (B, 1 or 3, H, W) to logits (B, K).

        Fresh weights are drawn from torch's default generator, which the caller seeds.
        Raises InputError for another number of channels, missing or damaged weights, or taps that are no layers.
        """
        if channels not in (1, 3):
            raise InputError(f"{self.name} takes images of 1 or 3 channels, not {channels}")
        net = self._make_net(classes)
        if channels == 1:
            expand_grey(net)
        if self.taps:
            tap_features(net, self.taps)
        return net

    def _resolve_file(self, package: str, known: Sequence[str]) -> str:
        """Make the path of a file of weights absolute; return its identity, whatever its place.

        Raises InputError if there is no such file; `known` are the names of the package's weights.
        """
        path = Path(str(self.weights)).expanduser().resolve()  # a worker runs in another folder
        if not path.is_file():
            raise InputError(
                f"weights {self.weights} of {self.architecture} are neither a file nor {package}'s; {list_names(known)}"
            )
        object.__setattr__(self, "weights", path)
        with path.open("rb") as file:
            return f"file {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def read_weights(path: Path, net: nn.Module) -> Mapping[str, Tensor]:
    """Return the tensors of a file under the names of the net, whatever its number of classes.

    Raises InputError for a file that cannot be read without running its code, and for one of another net.
    """
    try:
        return read_net(path, net.state_dict(), any_shape=True)
    except InputError as error:
        raise InputError(str(error).replace("teacher file", "weights file")) from None


def fill_but_head(net: nn.Module, state: Mapping[str, Tensor], head: Collection[str], name: str) -> None:
    """Load weights into a net, all but those of its `head` that have another number of classes.

    Raises InputError, which calls the net `name`, for another shape of any other.
    """
    expected = net.state_dict()
    kept = {
        key: tensor
        for key, tensor in state.items()
        if key in expected and not (key in head and tensor.shape != expected[key].shape)
    }
    if unfit := [key for key, tensor in kept.items() if tensor.shape != expected[key].shape]:
        raise InputError(
            f"weights of {name} do not fit: {unfit[0]} is {tuple(kept[unfit[0]].shape)}, the net needs "
            f"{tuple(expected[unfit[0]].shape)}"
        )
    net.load_state_dict(kept, strict=False)
