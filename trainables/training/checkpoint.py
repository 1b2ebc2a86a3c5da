"""A trial's training state on disk: tensors and plain values in one file, which is either complete or absent."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch

from study.atomic import atomic_write
from study.task import TrialNote
from trainables.training.tensor_files import UnreadableFileError, load_tensors

FILE_NAME = "state.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` to the folder, replacing the previous state in one step."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_write(folder / FILE_NAME) as temporary:
        # not torch.save to the file: on a full disk it raises "unexpected pos" instead of the system's reason
        temporary.write_bytes(buffer.getbuffer())


def load(folder: Path) -> dict[str, Any] | None:
    """Return the last saved state, its tensors on the CPU, or None if there is none.

    A damaged file counts as none, with a TrialNote for the user: training again costs time and nothing else.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = load_tensors(path)
    except UnreadableFileError as error:
        note = f"checkpoint {path} is damaged ({error}); the trial starts again from its first epoch"
        warnings.warn(note, TrialNote, stacklevel=2)
        return None
    return state
