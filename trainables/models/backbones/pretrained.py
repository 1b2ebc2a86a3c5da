"""Weights of ImageNet, from the files that torchvision would download. Left out: the download, and any substitute."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from study.errors import InputError


def imagenet_weights(file: str, source: str, folder: Path | str | None = None) -> dict[str, Tensor]:
    """The tensors of `file`, whose name ends in the beginning of its SHA-256; `source` is torchvision's name for it.

    Without a `folder` it must lie where torchvision keeps its weights, below TORCH_HOME.
    Raises InputError if the file is missing or damaged.
    """
    path = Path(folder or Path(torch.hub.get_dir()) / "checkpoints") / file
    if not path.is_file():
        raise InputError(
            f"ImageNet weights {file} are not in {path.parent}: put the file of torchvision's {source} there, "
            "or take the net with imagenet=False"
        )
    with path.open("rb") as opened:
        checksum = hashlib.file_digest(opened, "sha256").hexdigest()
    if not checksum.startswith(path.stem.split("-")[-1]):
        raise InputError(f"{path} has SHA-256 {checksum[:8]}…, not what its name says: damaged; put it there again")
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
