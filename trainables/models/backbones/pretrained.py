"""Weights trained on ImageNet, from torchvision's files, which only --download fetches. None is substituted."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from study.errors import InputError
from study.storage.downloads import are_downloads_permitted, download

ADDRESS = "https://download.pytorch.org/models"
"""Folder of torchvision's weights."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1] over ImageNet's images, by which torchvision's nets normalise their inputs."""


def load_imagenet_weights(file: str, source: str, folder: Path | str | None = None) -> dict[str, Tensor]:
    """Load the tensors of `file`, whose name ends in the first digits of its SHA-256.

    `source` is torchvision's name for it. Without a `folder` it is looked for where torchvision keeps its weights,
    below TORCH_HOME.
    Raises InputError if the file is missing or damaged.
    """
    path = Path(folder or Path(torch.hub.get_dir()) / "checkpoints") / file
    if not path.is_file() and are_downloads_permitted():
        url, prefix = f"{ADDRESS}/{file}", path.stem.split("-")[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        download(url, path, lambda: torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False))
    if not path.is_file():
        raise InputError(
            f"ImageNet weights {file} are not in {path.parent}: put the file of torchvision's {source} there, "
            "let --download fetch it, or take the net with imagenet=False"
        )
    with path.open("rb") as opened:
        checksum = hashlib.file_digest(opened, "sha256").hexdigest()
    if not checksum.startswith(path.stem.split("-")[-1]):
        raise InputError(
            f"{path} has SHA-256 {checksum[:8]}…, which is not the one in its name: the file is damaged; copy it again"
        )
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def make_weights_folder_absolute(model: Any) -> None:
    """Resolve `imagenet_folder` of a frozen dataclass: a worker runs in another folder than the command line."""
    if model.imagenet_folder is not None:
        object.__setattr__(model, "imagenet_folder", Path(model.imagenet_folder).expanduser().resolve())
