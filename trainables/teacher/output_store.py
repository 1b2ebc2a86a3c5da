"""A teacher's outputs, computed once for each (sample, view) that a study will draw, and shared by all its trials.

A store is a folder of shards. A shard holds float16 outputs for one block of samples, is written once and never
changed, and carries its own checksum and whose outputs they are: a teacher that was lost and trained again is another.
A study that draws other views adds shards. Two studies that fill a store at once write the same numbers under the same
names; what both need, and both lack, of different blocks is then there twice, which does no harm. Trials map the shards
into memory, so that all processes of a node share one copy. What is stored is what a live teacher would say at that
view: nothing about the training changes.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from study.atomic import atomic_write
from study.errors import InputError
from trainables.task import Batch, Outputs

SHARD_BYTES = 16 * 2**20
"""What a shard holds at most, unless one sample takes more: small enough that a kill loses minutes, large enough that a
store is few files."""

CODE_BYTES = 8
"""Stored beside each output: which it is."""

NOBODY = ""
"""In place of a teacher that is not there: no shard is its."""


@dataclass(frozen=True)
class Shard:
    """One file: `codes` (P,) int64 ascending, code = sample · views + view, and `outputs` (P, …) float16."""

    path: Path
    codes: Tensor
    outputs: Tensor
    teacher: str | None
    """Whose these are, by the digest of its weights; an earlier version did not say."""


class DamagedShardError(Exception):
    """A shard that cannot be read or is not what its checksum says; in a trial, one that it cannot do without."""


def write_shard(folder: Path, codes: Tensor, outputs: Tensor, teacher: str) -> Path:
    """Store this teacher's outputs of these codes; the file is named by its first code, its last, and all it holds."""
    tensors = {"codes": codes.contiguous(), "outputs": outputs.half().contiguous()}
    contents = hashlib.sha256(f"{teacher} {_sha256(codes)}".encode()).hexdigest()[:16]
    path = folder / f"{int(codes[0]):012d}-{int(codes[-1]):012d}-{contents}.safetensors"
    # one entry: safetensors writes several in any order, and two who store the same shall write the same file
    metadata = {"sha256": f"{_sha256(*tensors.values())} {teacher}"}
    with atomic_write(path) as aside:
        aside.write_bytes(safetensors.torch.save(tensors, metadata=metadata))
    return path


def open_shard(path: Path) -> Shard:
    """Map a shard into memory and verify it.

    Raises DamagedShardError if it is truncated, unreadable, or its checksum does not match.
    """
    try:
        with safe_open(path, framework="pt") as file:
            codes, outputs = file.get_tensor("codes"), file.get_tensor("outputs")
            checksum, _, teacher = (file.metadata() or {}).get("sha256", "").partition(" ")
    except (SafetensorError, OSError, RuntimeError) as error:
        raise DamagedShardError(f"{path}: {str(error).splitlines()[0]}") from None
    if checksum != _sha256(codes, outputs):
        raise DamagedShardError(f"{path}: its content does not match its checksum")
    return Shard(path, codes, outputs, teacher or None)


def sound(path: Path) -> bool:
    """Whether a shard is what its checksum says, whichever teacher told it."""
    try:
        open_shard(path)
    except DamagedShardError:
        return False
    return True


def usable_shards(folder: Path, teacher: str, codes: range | None = None) -> tuple[list[Shard], dict[Path, str]]:
    """The shards that hold this teacher's outputs, and why each of the others cannot be used; nothing is deleted.

    With `codes`, only shards that may hold some of these.
    """
    shards, unusable = [], {}
    for path in sorted(folder.glob("*.safetensors")):
        if codes is not None and not _meet(span(path), codes):
            continue
        try:
            shard = open_shard(path)
        except DamagedShardError as error:
            unusable[path] = f"damaged ({str(error).removeprefix(f'{path}: ')})"
            continue
        if shard.teacher == teacher:
            shards.append(shard)
        else:
            unusable[path] = "of another teacher"
    return shards, unusable


def complaints(unusable: Mapping[Path, str]) -> list[str]:
    """What is amiss with shards, in a line for each reason."""
    by_reason = defaultdict(list)
    for path, why in unusable.items():
        by_reason[why].append(path)
    more = {why: f" and {len(paths) - 1} more" if len(paths) > 1 else "" for why, paths in by_reason.items()}
    return [f"{paths[0]}{more[why]}: {why}" for why, paths in by_reason.items()]


def span(path: Path) -> range:
    """From a shard's first code to its last, by its name."""
    first, *others = path.stem.split("-")
    last = others[0] if len(others) == 2 else first  # an earlier version did not say where one ends
    return range(int(first), int(last) + 1)


def held(shards: Iterable[Shard], samples: range, views: int) -> Tensor:
    """Which views of these samples the shards hold: (samples, views) bool."""
    start, stop = samples.start * views, samples.stop * views
    mask = torch.zeros(stop - start, dtype=torch.bool)
    for shard in shards:
        first, last = torch.searchsorted(shard.codes, torch.tensor([start, stop])).tolist()
        mask[shard.codes[first:last] - start] = True
    return mask.view(len(samples), views)


def blocks(missing: Tensor, bytes_per_output: int) -> list[range]:
    """Ranges of samples whose `missing` pairs (samples, views) make one shard each."""
    ends, full = [0], max(1, SHARD_BYTES // (bytes_per_output + CODE_BYTES))
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


class StoredTeacher:
    """A teacher's outputs from a store, for one split: `samples` (N,) are its positions in the pool.

    `epoch` raises DamagedShardError if it needs a view that a shard held which cannot be used, LookupError if it needs
    one that was never stored.
    """

    def __init__(self, folder: Path, teacher: str, samples: Tensor, pool: int, views: int, device: str):
        # damage to what other studies draw is none of this trial's business
        self._shards, self._unusable = usable_shards(folder, teacher)
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
            raise self._lack(int((shard_of < 0).sum()), len(codes))
        first = self._shards[0].outputs
        gathered = torch.empty((len(codes), *first.shape[1:]), dtype=first.dtype)
        # sorted once, so that each shard is read for its own samples alone, in their order
        counts = shard_of.bincount(minlength=len(self._shards)).tolist()
        for shard, places in zip(self._shards, shard_of.argsort(stable=True).split(counts), strict=True):
            gathered[places] = shard.outputs[row_of[places]]
        outputs = gathered.to(self._device)
        return lambda batch: Outputs(outputs[batch.samples])

    def _lack(self, lacking: int, wanted: int) -> Exception:
        what = f"{lacking} of {wanted} views are not in the teacher's store"
        way_out = "run the command again with --retry-failed: what is missing is computed again"
        if not self._unusable:
            return LookupError(f"{what}: {way_out}")
        return DamagedShardError(f"{what}: {'; '.join(complaints(self._unusable))}: {way_out}")


def _meet(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def _sha256(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
