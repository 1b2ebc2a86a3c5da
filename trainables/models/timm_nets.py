"""Classification nets of timm by their names, with fresh weights, weights that timm publishes, or weights in a file.

timm is an optional package: pip install "kdstudy[timm]".
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from study.errors import InputError
from study.identity import LOCATION
from study.space.domains import is_unresolved
from study.storage.downloads import are_downloads_permitted, download
from trainables.models.hooks import Normalisation, list_names
from trainables.models.package_net import PackageNet, fill_but_head, read_weights

WEIGHTS_FILE = "model.safetensors"
"""The file of timm's weights at Hugging Face."""

ENDPOINT: str | None = None
"""Address of the server; None for the one that huggingface_hub knows."""

NORMALISATIONS = ("data", "imagenet", "weights")

SHA256_DIGITS = 64


@dataclass(frozen=True)
class Timm(PackageNet):
    """A classification net of timm, such as Timm("mobilenetv4_conv_small"); the task sets the number of classes.

    `weights` initialises it: a name of timm's weights, such as "e2400_r224_in1k", which --download fetches from Hugging
    Face and whose SHA-256 is checked, or the path of a file, whose last layer is left out if it has another number of
    classes. A teacher that is ready is Teacher(Timm("resnet18"), weights="teacher.pth").
    Raises InputError if timm is not installed, for a name that it does not have, and for weights that do not exist.
    """

    architecture: str
    weights: str | Path | None = field(default=None, metadata=LOCATION)
    taps: tuple[str, ...] = ()
    """Names of layers whose outputs losses on features compare, such as ("blocks.3",); the last one is compared."""
    normalisation: Literal["data", "imagenet", "weights"] | None = None
    """The inputs that the weights expect: normalised by the data's mean and deviation, ImageNet's, or those that timm
    publishes with its weights. By default the last for weights of timm, else the data's."""
    image_size: int | None = None
    """Height and width of the images, which transformers need to know."""
    origin: str = ""
    """Filled in: the name of the weights, or a digest of their file."""

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if importlib.util.find_spec("timm") is None:
            raise InputError("Timm needs the package timm: pip install 'kdstudy[timm]'")
        self._check_architecture()
        if self.weights is not None:
            self._find_origin()
        if self.normalisation is None:
            object.__setattr__(self, "normalisation", "weights" if self._is_published else "data")
        if self.normalisation not in NORMALISATIONS or (self.normalisation == "weights" and not self._is_published):
            raise InputError(
                f"normalisation is {self.normalisation!r}; allowed are 'data', 'imagenet', and with weights of timm "
                "'weights'"
            )

    def _check_architecture(self) -> None:
        import timm

        if not timm.is_model(self.architecture) or "." in self.architecture:
            close = timm.list_models(f"{self.architecture[:6]}*")
            tag = f"; write {self.architecture.split('.')[0]!r}, weights=…" if "." in self.architecture else ""
            raise InputError(f"timm has no net {self.architecture!r}{tag}; {list_names(close or timm.list_models())}")

    def _find_origin(self) -> None:
        import timm

        known = [name.partition(".")[2] for name in timm.list_pretrained(f"{self.architecture}.*")]
        if self.weights in known:
            object.__setattr__(self, "origin", str(self.weights))
            return
        object.__setattr__(self, "origin", self._resolve_file("timm", known))

    @property
    def _is_published(self) -> bool:
        """True for weights of timm, by their name."""
        return bool(self.origin) and not self.origin.startswith("file ")

    @property
    def name(self) -> str:
        """`resnet18`, or `resnet18-a1_in1k` and `resnet18-pretrained` with weights of timm or a file."""
        suffix = self.origin if self._is_published or not self.origin else "pretrained"
        return f"{self.architecture}-{suffix}" if suffix else str(self.architecture)

    @property
    def input_normalisation(self) -> Normalisation | None:
        if self.normalisation != "weights":
            return super().input_normalisation
        published = self._read_published()
        return tuple(published.mean), tuple(published.std)

    def _make_net(self, classes: int) -> nn.Module:
        import timm
        from safetensors.torch import load_file

        size = {} if self.image_size is None else {"img_size": self.image_size}
        if self.weights is not None and self._is_published:
            # timm adapts its own weights: to the number of classes, and positions to the size of the images
            name = f"{self.architecture}.{self.origin}"
            state = load_file(_find_published(name, self._read_published().hf_hub_id))
            pretrained = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
        else:
            name, pretrained = self.architecture, {}
        try:
            net: nn.Module = timm.create_model(name, num_classes=classes, **size, **pretrained)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            message = " ".join(str(error).split())
            raise InputError(f"{self.name} cannot be built with image_size={self.image_size}: {message}") from None
        if self.weights is not None and not self._is_published:
            fill_but_head(net, read_weights(Path(str(self.weights)), net), _find_head(net), self.name)
        return net

    def _read_published(self) -> Any:
        """Return timm's record of its weights: their place, mean and deviation."""
        from timm.models import get_pretrained_cfg

        return get_pretrained_cfg(f"{self.architecture}.{self.origin}")


def _find_published(name: str, repository: str | None) -> Path:
    """Return the file of timm's weights in Hugging Face's cache, whose SHA-256 is the server's.

    Raises InputError if it is missing and may not be downloaded, has another one, or if none is known.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not repository:
        raise InputError(f"weights {name} are not at Hugging Face: give a file of them, weights='FILE'")
    found: list[str] = []

    def fetch(local_files_only: bool = False) -> None:
        found[:] = [hf_hub_download(repository, WEIGHTS_FILE, endpoint=ENDPOINT, local_files_only=local_files_only)]

    try:
        fetch(local_files_only=True)
    except LocalEntryNotFoundError:
        if not are_downloads_permitted():
            raise InputError(
                f"weights {name} of timm are not in Hugging Face's cache: let --download fetch them, or give a file, "
                "weights='FILE'"
            ) from None
        download(f"{repository}/{WEIGHTS_FILE} of Hugging Face", Path(WEIGHTS_FILE), fetch)
    path = Path(found[0]).resolve()  # its name there is the SHA-256 that the server gave it
    if len(path.name) != SHA256_DIGITS:
        raise InputError(f"weights {name} have no published SHA-256: give a file of them, weights='FILE'")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != path.name:
            raise InputError(f"{path} is not the file that Hugging Face has for {name}: remove it, it is damaged")
    return path


def _find_head(net: Any) -> set[str]:
    """Return the names of the parameters of a net's last layer, which makes the logits."""
    heads = net.get_classifier()
    layers = {id(layer) for layer in (heads if isinstance(heads, tuple) else (heads,))}
    names = [name for name, layer in net.named_modules() if id(layer) in layers]
    return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
