"""Files of tensors: written in one step, read without unpickling objects.

Checksums and the meaning of the content differ between callers (stored outputs, teachers, checkpoints, caches) and stay
theirs; the formats, and the errors by which damage shows, are here.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from study.atomic import atomic_write


class UnreadableFileError(Exception):
    """A file of tensors that is missing, damaged, or contains more than tensors and plain values."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a .safetensors file, replacing an earlier one in one step."""
    content = safetensors.torch.save({name: t.contiguous().cpu() for name, t in tensors.items()}, metadata)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def load_tensors(path: Path) -> Any:
    """Return the content of a .safetensors file, or of a file by torch.save, on the CPU.

    Raises UnreadableFileError with the reason.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # without torch's own message, which advises to load untrusted files with weights_only=False
        raise UnreadableFileError("UnpicklingError") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise UnreadableFileError((str(error).splitlines() or [type(error).__name__])[0]) from error
