"""Nets from a function of your own that returns an nn.Module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from study.errors import InputError
from trainables.models.backbones.pretrained import IMAGENET_MEAN, IMAGENET_STD
from trainables.models.hooks import Normalisation, tap_features


class Settings(dict[str, Any]):
    """Arguments of a function; hashable, as every field of a net is."""

    def __hash__(self) -> int:  # type: ignore[override]  # its content does not change
        return hash(tuple(self.items()))


@dataclass(frozen=True)
class Net:
    """The net that a function returns: Net(make_net), or Net(make_net, {"width": 8}) with arguments of it.

    The function lies in the space file or in a module, and has a parameter `classes`, and `channels` if it needs them;
    it returns a net from images (B, C, H, W) to logits (B, K), or (B, K, h, w) for segmentation. Arguments may be
    domains, which are then searched.
    Raises InputError for a lambda or an inner function, whose code does not say all that it does, and for arguments
    that it does not have.
    """

    function: Callable[..., nn.Module]
    settings: Mapping[str, Any] = Settings()
    taps: tuple[str, ...] = ()
    """Names of layers whose outputs losses on features compare; the last one is compared."""
    normalisation: Literal["data", "imagenet"] = "data"
    """The inputs that the net expects: normalised by the data's mean and deviation, or ImageNet's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", Settings(self.settings))
        if not inspect.isfunction(self.function) or "<" in self.function.__qualname__:
            raise InputError(
                f"Net({self.function!r}): allowed is a function by its name, def make_net(classes), at the top level "
                "of the space file or of a module"
            )
        known = inspect.signature(self.function).parameters
        if unknown := [name for name in ("classes", *self.settings) if name not in known]:
            raise InputError(
                f"{self.function.__name__}() has no parameter {unknown[0]!r}; it has {', '.join(known) or 'none'}"
            )
        if self.normalisation not in ("data", "imagenet"):
            raise InputError(f"normalisation is {self.normalisation!r}; allowed are 'data' and 'imagenet'")

    @property
    def name(self) -> str:
        """The function's name with its arguments: `make_net`, `make_net-width8`."""
        return "-".join([self.function.__name__, *(f"{name}{value}" for name, value in self.settings.items())])

    @property
    def input_normalisation(self) -> Normalisation | None:
        """Mean and deviation by which the net's inputs are normalised; None for those of the data."""
        return (IMAGENET_MEAN, IMAGENET_STD) if self.normalisation == "imagenet" else None

    def build(self, channels: int = 3, *, classes: int) -> nn.Module:
        """Return the net, whose fresh weights are drawn from torch's default generator, which the caller seeds.

        Raises InputError for anything but a net, and for taps that are no layers.
        """
        given = {"classes": classes, "channels": channels}
        wanted = {name: value for name, value in given.items() if name in inspect.signature(self.function).parameters}
        net = self.function(**wanted, **self.settings)
        if not isinstance(net, nn.Module):
            raise InputError(f"{self.function.__name__}() returns {type(net).__name__}; allowed is an nn.Module")
        if self.taps:
            tap_features(net, self.taps)
        return net
