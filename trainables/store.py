"""A teacher's outputs, computed once for each (sample, view) that a study will draw, and shared by all its trials.

A store is a folder of shards. A shard holds float16 outputs for one block of samples, is written once and never
changed, and carries its own checksum; a study that draws other views adds shards. Two studies that fill a store at once
write the same numbers under the same names. Trials map the shards into memory, so that all processes of a node share
one copy. What is stored is what a live teacher would say at that view: nothing about the training changes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from study.atomic import replacing
from study.errors import InputError
from trainables.task import Batch, Outputs

SHARD_BYTES = 16 * 2**20
"""A shard's size at most: small enough that a kill loses minutes, large enough that a store is few files."""


@dataclass(frozen=True)
class Shard:
    """One file: `codes` (P,) int64 ascending, code = sample · views + view, and `outputs` (P, …) float16."""

    path: Path
    codes: Tensor
    outputs: Tensor


class DamagedShardError(Exception):
    """A shard that cannot be read or is not what its checksum says."""


def write_shard(folder: Path, codes: Tensor, outputs: Tensor) -> Path:
    """Store the outputs of these codes; the file is named by the codes it holds."""
    tensors = {"codes": codes.contiguous(), "outputs": outputs.half().contiguous()}
    path = folder / f"{int(codes[0]):012d}-{_sha256(codes)[:16]}.safetensors"
    with replacing(path) as aside:
        aside.write_bytes(safetensors.torch.save(tensors, metadata={"sha256": _sha256(*tensors.values())}))
    return path


def open_shard(path: Path) -> Shard:
    """Map a shard into memory and verify it.

    Raises DamagedShardError if it is truncated, unreadable, or its checksum does not match.
    """
    try:
        with safe_open(path, framework="pt") as file:
            codes, outputs = file.get_tensor("codes"), file.get_tensor("outputs")
            checksum = (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError, RuntimeError) as error:
        raise DamagedShardError(f"{path}: {str(error).splitlines()[0]}") from None
    if checksum != _sha256(codes, outputs):
        raise DamagedShardError(f"{path}: its content does not match its checksum")
    return Shard(path, codes, outputs)


def sound(path: Path) -> bool:
    """Whether a shard can be used."""
    try:
        open_shard(path)
    except DamagedShardError:
        return False
    return True


def sound_shards(folder: Path, codes: range | None = None) -> tuple[list[Shard], list[str]]:
    """The shards that can be used, and a line on each that could not; those are deleted, to be computed again.

    With `codes`, only shards that begin in that range.
    """
    shards, damaged = [], []
    for path in sorted(folder.glob("*.safetensors")):
        if codes is not None and int(path.name.split("-")[0]) not in codes:
            continue
        try:
            shards.append(open_shard(path))
        except DamagedShardError as error:
            path.unlink(missing_ok=True)
            damaged.append(f"damaged, computed again: {error}")
    return shards, damaged


def held(shards: Iterable[Shard], samples: int, views: int) -> Tensor:
    """Which (sample, view) pairs the shards hold: (samples, views) bool."""
    mask = torch.zeros(samples * views, dtype=torch.bool)
    for shard in shards:
        mask[shard.codes] = True
    return mask.view(samples, views)


def blocks(missing: Tensor, bytes_per_output: int) -> list[range]:
    """Ranges of samples whose `missing` pairs (samples, views) make one shard each."""
    ends, full = [0], max(1, SHARD_BYTES // bytes_per_output)
    counts = missing.sum(1).tolist()
    load = 0
    for sample, count in enumerate(counts):
        if load and load + count > full:
            ends.append(sample)
            load = 0
        load += count
    ends.append(len(counts))
    spans = [range(start, stop) for start, stop in pairwise(ends)]
    return [span for span in spans if any(counts[span.start : span.stop])]


def check_disk(folder: Path, bytes_needed: int) -> None:
    """Raises InputError if the store would not fit on its disk."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    if bytes_needed > free:
        raise InputError(
            f"the teacher's outputs need {bytes_needed / 1e9:.2f} GB in {place}, which has {free / 1e9:.2f} GB free: "
            "give another --storage-path, or train with a live teacher, --teacher-store off"
        )


class Stored:
    """Teacher outputs from a store, for one split: `samples` (N,) are its positions in the pool.

    Raises DamagedShardError if a shard is damaged, LookupError from `epoch` for a view that was never stored.
    """

    def __init__(self, folder: Path, samples: Tensor, pool: int, views: int, device: str):
        self._shards = [open_shard(path) for path in sorted(folder.glob("*.safetensors"))]
        self._samples, self._views, self._device = samples, views, device
        self._shard_of = torch.full((pool * views,), -1, dtype=torch.int16)
        self._row_of = torch.zeros(pool * views, dtype=torch.int32)
        for number, shard in enumerate(self._shards):
            self._shard_of[shard.codes] = number
            self._row_of[shard.codes] = torch.arange(len(shard.codes), dtype=torch.int32)

    def epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        """The outputs of every sample of the split at these views (N,), gathered once and kept on the device."""
        codes = self._samples * self._views + views.cpu()
        shard_of, row_of = self._shard_of[codes], self._row_of[codes].long()
        if (shard_of < 0).any():
            raise LookupError(f"{int((shard_of < 0).sum())} of {len(codes)} views are not in the teacher's store")
        first = self._shards[0].outputs
        gathered = torch.empty((len(codes), *first.shape[1:]), dtype=first.dtype)
        for number in shard_of.unique().tolist():
            here = shard_of == number
            gathered[here] = self._shards[number].outputs[row_of[here]]
        outputs = gathered.to(self._device)
        return lambda batch: Outputs(outputs[batch.samples])


def _sha256(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
