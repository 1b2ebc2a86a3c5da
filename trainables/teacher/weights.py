"""Teachers: trained once and stored by content, or read from a file; frozen from then on.

A teacher lies in `<storage>/teachers/<key>/`: weights.safetensors and teacher.json. The key is a hash of everything
that determines the weights (net, recipe, data, split, or the file's bytes), so later studies of any name find it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from study.atomic import atomic_write
from study.errors import InputError
from study.identity import LOCATION, describe, digest
from trainables.task import Batch, ModelSpec, Outputs
from trainables.training.recipe import Recipe
from trainables.training.settings import check_range
from trainables.training.tensor_files import save_tensors
from trainables.training.weights_file import read_net

TEACHERS_FOLDER = "teachers"
WEIGHTS_FILE = "weights.safetensors"
RECORD_FILE = "teacher.json"


@dataclass(frozen=True)
class Teacher:
    """The net that students learn from: trained by `recipe` for `epochs` on the training split, or read from `weights`.

    A teacher that is trained here never sees validation images, since the search scores its students on them. One from
    a file may have, as the field's published ones have: searches then look a little better than confirm runs will.
    Raises InputError for fewer than one epoch.
    """

    model: ModelSpec
    recipe: Recipe = field(default_factory=Recipe)
    epochs: int = 240
    seed: int = 0
    weights: Path | None = field(default=None, metadata=LOCATION)
    """A .safetensors file, or a file by torch.save that contains tensors and plain values; see weights_file.py."""

    def __post_init__(self) -> None:
        if self.weights is not None:  # absolute: a worker does not run in the folder of the command
            object.__setattr__(self, "weights", Path(self.weights).expanduser().resolve())
        check_range("teacher's epochs", self.epochs, low=1)

    def compute_key(self, inputs: Any) -> str:
        """Return the key of the teacher and its scores, given a description of data, split and views."""
        if self.weights is not None:
            return digest("file", describe(self.model), hash_file(self.weights), inputs)
        return digest("trained", describe(self), inputs)


# -- in the storage ----------------------------------------------------------------------------------------------------


def teacher_folder(storage: Path, key: str) -> Path:
    return storage / TEACHERS_FOLDER / key


def read_record(storage: Path, key: str) -> dict[str, Any] | None:
    """Return the teacher.json of a teacher that is ready, or None if it is absent or damaged and must be made again."""
    folder = teacher_folder(storage, key)
    try:
        record: dict[str, Any] = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        return record if record["sha256"] == hash_file(folder / WEIGHTS_FILE) else None
    except (OSError, ValueError, KeyError, InputError):
        return None


def weights_digest(storage: Path, key: str) -> str:
    """Return the digest of a ready teacher's weights, which differs if a teacher of the same key was trained again.

    Raises InputError if there is no teacher of this key, or a damaged one.
    """
    record = read_record(storage, key)
    if record is None:
        raise InputError(
            f"the teacher in {teacher_folder(storage, key)} is damaged or gone: run the command again with "
            "--retry-failed, which makes it again"
        )
    return str(record["sha256"])


def is_teacher_intact(path: Path) -> bool:
    """Return whether a file of a teacher's folder matches teacher.json; True for a file without a checksum there."""
    if path.name not in (RECORD_FILE, WEIGHTS_FILE):
        return True
    return read_record(path.parent.parent.parent, path.parent.name) is not None


def save_teacher(storage: Path, key: str, state: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Store a teacher, unless one of this key is ready: trials may be using it."""
    if read_record(storage, key) is not None:
        return
    folder = teacher_folder(storage, key)
    save_tensors(folder / WEIGHTS_FILE, state)
    with atomic_write(folder / RECORD_FILE) as temporary:
        content = json.dumps({**record, "sha256": hash_file(folder / WEIGHTS_FILE)}, indent=1)
        temporary.write_text(content, encoding="utf-8")


# -- as a net ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LiveTeacher:
    """Teacher outputs computed by the net at every step, predictions rounded to float16 as in a store.

    Features are not rounded: they are for losses of tasks whose teacher outputs are never stored.
    """

    net: nn.Module
    outputs: Callable[[nn.Module, Batch], Outputs]

    def begin_epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        return self._compute_outputs

    @torch.no_grad()
    def _compute_outputs(self, batch: Batch) -> Outputs:
        outputs = self.outputs(self.net, batch)
        return Outputs(outputs.prediction.half(), outputs.features)


def load_weights(net: nn.Module, path: Path) -> nn.Module:
    """Load a weights file into `net`, and return it.

    Raises InputError if the file is unreadable, of another architecture or class count, or not finite.
    """
    return fill_net(net, read_net(path, net.state_dict()), path)


def fill_net(net: nn.Module, state: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Load the state read from a file into `net`, and return it. Raises InputError for numbers that are not finite."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"teacher file {path} contains numbers that are not finite, in {name}: give another file")
    net.load_state_dict(dict(state))
    return net


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 16 hexadecimal digits. Raises InputError if there is no such file."""
    if not path.is_file():
        raise InputError(
            f"teacher file {path} does not exist: give an existing file, or leave weights out to train one"
        )
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
