"""Classification nets of torchvision by their names, with fresh weights, weights of ImageNet or weights in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torchvision import models as torchvision_models  # type: ignore[import-untyped]
from torchvision.models import get_model, get_model_weights, list_models  # type: ignore[import-untyped]

from study.errors import InputError
from study.identity import LOCATION
from study.space.domains import is_unresolved
from trainables.models.backbones.pretrained import load_imagenet_weights
from trainables.models.package_net import PackageNet, fill_but_head, read_weights

AUXILIARY = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}
"""Arguments of nets that would return further outputs in training."""


@dataclass(frozen=True)
class Torchvision(PackageNet):
    """A classification net of torchvision, such as Torchvision("resnet18"); the task sets the number of classes.

    `weights` initialises it: "IMAGENET1K_V1" or another name of torchvision's, read from the file that torchvision
    would download, or the path of a file, whose last layer is left out if it has another number of classes. A teacher
    that is ready is Teacher(Torchvision("resnet18"), weights="teacher.pth").
    Raises InputError for a name that torchvision does not have, and for weights that do not exist.
    """

    architecture: str
    weights: str | Path | None = field(default=None, metadata=LOCATION)
    taps: tuple[str, ...] = ()
    """Names of layers whose outputs losses on features compare, such as ("layer3",); the last one is compared."""
    normalisation: Literal["data", "imagenet"] | None = None
    """The inputs that the weights expect: normalised by the data's mean and deviation, or ImageNet's. By default
    ImageNet's for weights of torchvision, else the data's."""
    image_size: int | None = None
    """Height and width of the images, which vision transformers need to know."""
    source: str = ""
    """Filled in: the name of the weights, or a digest of their file."""

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if self.architecture not in _list_architectures():
            close = [name for name in _list_architectures() if name[:4] == self.architecture[:4]]
            raise InputError(
                f"torchvision has no classification net {self.architecture!r}; it has "
                f"{', '.join(close or _list_architectures())}"
            )
        if self.normalisation not in (None, "data", "imagenet"):
            raise InputError(f"normalisation is {self.normalisation!r}; allowed are 'data' and 'imagenet'")
        if self._weights_file is not None:
            object.__setattr__(self, "source", str(self.weights))
        elif self.weights is not None:
            known = [one.name for one in get_model_weights(self.architecture)]
            object.__setattr__(self, "source", self._resolve_file("torchvision", known))
        if self.normalisation is None:
            object.__setattr__(self, "normalisation", "imagenet" if self._weights_file is not None else "data")

    @property
    def _weights_file(self) -> Any:
        """Torchvision's entry of the weights; None if they are not one of torchvision's."""
        known = get_model_weights(self.architecture)
        return next((one for one in known if one.name == self.weights), None)

    @property
    def name(self) -> str:
        """`resnet18`, or `resnet18-imagenet1k_v1` and `resnet18-pretrained` with weights of torchvision or a file."""
        origin = "pretrained" if self.source.startswith("file ") else self.source.lower()
        return f"{self.architecture}-{origin}" if origin else str(self.architecture)

    def _make_net(self, classes: int) -> nn.Module:
        size = {} if self.image_size is None else {"image_size": self.image_size}
        try:
            net: nn.Module = get_model(
                self.architecture, weights=None, num_classes=classes, **size, **AUXILIARY.get(self.architecture, {})
            )
        except (TypeError, ValueError, AssertionError) as error:
            raise InputError(f"{self.name} cannot be built with image_size={self.image_size}: {error}") from None
        if self.weights is not None:
            self._load_weights(net)
        return net

    def _load_weights(self, net: nn.Module) -> None:
        """Load the weights into a net, all but the last layer if they have another number of classes."""
        entry = self._weights_file
        if entry is not None:
            state: Mapping[str, Tensor] = load_imagenet_weights(Path(entry.url).name, str(entry))
        else:
            state = read_weights(Path(str(self.weights)), net)
        fill_but_head(net, state, _find_head(net), self.name)


def _list_architectures() -> list[str]:
    names: list[str] = list_models(module=torchvision_models)
    return names


def _find_head(net: nn.Module) -> set[str]:
    """Return the names of the parameters of a net's last linear layer or convolution, which makes the logits."""
    last = [name for name, layer in net.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    return {f"{last}.weight", f"{last}.bias"}
