"""A trial's state on disk: tensors and plain values, in one file that is either whole or absent."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from study.atomic import atomic_write
from study.task import TrialNote


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` to the folder, replacing what was there in one step."""
    written = io.BytesIO()
    torch.save(state, written)
    with atomic_write(folder / "state.pt") as aside:
        aside.write_bytes(written.getbuffer())  # of a full disk torch only says "unexpected pos"


def load(folder: Path) -> dict[str, Any] | None:
    """The state last saved, on the CPU, or None if there is none.

    Of a damaged one the user is told, and it counts as none: nothing but time is lost.
    """
    path = folder / "state.pt"
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, pickle.UnpicklingError) as error:
        # torch's own words advise to read what may not be trusted
        note = f"checkpoint {path} is damaged ({type(error).__name__}); the trial starts again from its first epoch"
        warnings.warn(note, TrialNote, stacklevel=2)
        return None
    return state
