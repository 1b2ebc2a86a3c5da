"""Teachers: trained once and kept by content, or read from a file; frozen ever after.

A teacher lies in `<storage>/teachers/<key>/`: weights.safetensors and teacher.json. The key is a hash of everything
that decides its weights (net, recipe, data, split, or the file's bytes), so a later study of any name finds it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from study.atomic import atomic_write
from study.errors import InputError
from study.identity import LOCATION, describe, digest
from trainables.task import Batch, ModelSpec, Outputs
from trainables.training.recipe import Recipe
from trainables.training.schedules import check_range


@dataclass(frozen=True)
class Teacher:
    """The net that teaches: trained by `recipe` for `epochs` on the training split, or read from `weights`.

    One that is trained here never sees validation images, since the search scores its students there; one from a file
    may have, as the field's published ones have: then searches look a little better than confirm runs will.
    """

    model: ModelSpec
    recipe: Recipe = field(default_factory=Recipe)
    epochs: int = 240
    seed: int = 0
    weights: Path | None = field(default=None, metadata=LOCATION)
    """A .safetensors file, or a .pth of tensors; the field's {"model": state_dict} form is understood."""

    def __post_init__(self) -> None:
        if self.weights is not None:  # absolute: a worker does not run in the folder the command was given in
            object.__setattr__(self, "weights", Path(self.weights).expanduser().resolve())
        check_range("teacher's epochs", self.epochs, low=1)

    def key(self, inputs: Any) -> str:
        """What identifies the teacher and its scores, given a description of data, split and views."""
        if self.weights is not None:
            return digest("file", describe(self.model), file_digest(self.weights), inputs)
        return digest("trained", describe(self), inputs)


def folder(storage: Path, key: str) -> Path:
    return storage / "teachers" / key


def kept(storage: Path, key: str) -> dict[str, Any] | None:
    """teacher.json of a teacher that is ready; None if there is none, or if it is damaged and must be made again."""
    path, weights = folder(storage, key) / "teacher.json", folder(storage, key) / "weights.safetensors"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record if record["sha256"] == file_digest(weights) else None
    except (OSError, ValueError, KeyError, InputError):
        return None


def identity(storage: Path, key: str) -> str:
    """The digest of a ready teacher's weights: one of the same key, trained again elsewhere, may have others.

    Raises InputError if there is no teacher of this key, or a damaged one.
    """
    record = kept(storage, key)
    if record is None:
        raise InputError(
            f"the teacher in {folder(storage, key)} is damaged or gone: run the command again with --retry-failed: "
            "it is made again"
        )
    return str(record["sha256"])


def sound(path: Path) -> bool:
    """Whether a file of a teacher's folder is what teacher.json says of it; True for one of which it says nothing."""
    if path.name not in ("teacher.json", "weights.safetensors"):
        return True
    return kept(path.parent.parent.parent, path.parent.name) is not None


def keep(storage: Path, key: str, state: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Store a teacher, unless one of this key is there: trials may be using it."""
    if kept(storage, key) is not None:
        return
    weights = folder(storage, key) / "weights.safetensors"
    with atomic_write(weights) as aside:
        aside.write_bytes(safetensors.torch.save({name: tensor.contiguous().cpu() for name, tensor in state.items()}))
    with atomic_write(folder(storage, key) / "teacher.json") as aside:
        aside.write_text(json.dumps({**record, "sha256": file_digest(weights)}, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class LiveTeacher:
    """Teacher outputs from the net itself, rounded to float16 as a store keeps them: both give the same training.

    Features come as they are; only losses of tasks whose teacher is never stored may read them.
    """

    net: nn.Module
    outputs: Callable[[nn.Module, Batch], Outputs]

    def epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        return self._ask

    @torch.no_grad()
    def _ask(self, batch: Batch) -> Outputs:
        told = self.outputs(self.net, batch)
        return Outputs(told.prediction.half(), told.features)


def load_weights(net: nn.Module, path: Path) -> nn.Module:
    """Load a weights file into `net`.

    Raises InputError if the file is missing, unreadable, of another architecture or class count, or not finite.
    """
    state = _read(path)
    expected = net.state_dict()
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has {unknown[0]!r}"
        raise InputError(f"teacher file {path} is of another architecture: it {what}; name the net it was saved from")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise InputError(
                f"teacher file {path} does not fit: {name} is {tuple(state[name].shape)}, "
                f"this net and its class count need {tuple(tensor.shape)}"
            )
        if state[name].is_floating_point() and not torch.isfinite(state[name]).all():
            raise InputError(f"teacher file {path} holds numbers that are not finite, in {name}: it is unusable")
    net.load_state_dict(dict(state))
    return net


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 16 hexadecimal digits."""
    if not path.is_file():
        raise InputError(
            f"teacher file {path} does not exist: give an existing file, or leave weights out to train one"
        )
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, LookupError, pickle.UnpicklingError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        allowed = "allowed are .safetensors and .pth files that hold tensors only"
        raise InputError(f"teacher file {path} cannot be read ({why}): {allowed}") from None
    for wrapper in ("model", "state_dict"):
        state = state.get(wrapper, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(item, Tensor) for item in state.values()):
        raise InputError(f"teacher file {path} holds no state_dict: save one with torch.save(net.state_dict(), …)")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
