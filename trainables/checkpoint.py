"""A trial's state on disk: tensors and plain values, in one file that is either whole or absent."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from study.atomic import replacing


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` to the folder, replacing what was there in one step."""
    with replacing(folder / "state.pt") as aside:
        torch.save(state, aside)


def load(folder: Path, device: str) -> dict[str, Any] | None:
    """The state last saved, or None if there is none or it is damaged: the trial then starts from its first epoch."""
    path = folder / "state.pt"
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        return None  # training is deterministic: nothing but time is lost
    return state
