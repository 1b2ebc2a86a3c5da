"""A teacher's outputs, computed once for each (sample, view) that a study will draw, and shared by all its trials.

A store is a folder of shards. A shard contains float16 outputs for one block of samples, is written once and never
changed, and stores a checksum and the teacher's weight digest, so a retrained teacher never reuses old outputs. A study
that draws other views adds shards. Two studies that fill a store at the same time write equal numbers under equal
names; where both lack an output, in different blocks, it is stored twice, which is harmless. Trials map the shards into
memory, so all processes of a node share one copy. A stored output equals a live teacher's at the same view: the
training does not change.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from study.errors import InputError
from trainables.task import Batch, Outputs
from trainables.training.tensor_files import save_tensors

SHARD_BYTES = 16 * 2**20
"""Maximum size of a shard, unless one sample needs more: a kill loses minutes of work, and a store has few files."""

CODE_BYTES = 8
"""Size of the int64 code that is stored with each output."""

NOT_TRAINED = ""
"""The digest of a teacher that does not exist yet: no shard has it."""


@dataclass(frozen=True)
class Shard:
    """One file: `codes` (P,) int64 ascending, code = sample · views + view, and `outputs` (P, …) float16."""

    path: Path
    codes: Tensor
    outputs: Tensor
    teacher: str | None
    """The digest of the teacher's weights; None in a shard of an earlier version, which did not store it."""


class DamagedShardError(Exception):
    """A shard that is unreadable or fails its checksum; in a trial, one that contains outputs the trial needs."""


# -- shards ------------------------------------------------------------------------------------------------------------


def write_shard(folder: Path, codes: Tensor, outputs: Tensor, teacher: str) -> Path:
    """Write codes (P,) int64 and outputs (P, …) as a shard, named by first and last code and a hash of all codes."""
    tensors = {"codes": codes.contiguous(), "outputs": outputs.half().contiguous()}
    codes_hash = hashlib.sha256(f"{teacher} {_hash_tensors(codes)}".encode()).hexdigest()[:16]
    path = folder / f"{int(codes[0]):012d}-{int(codes[-1]):012d}-{codes_hash}.safetensors"
    # one entry of metadata: safetensors writes several in any order, but equal shards must be equal files
    save_tensors(path, tensors, {"sha256": f"{_hash_tensors(*tensors.values())} {teacher}"})
    return path


def open_shard(path: Path) -> Shard:
    """Map a shard into memory and verify its checksum.

    Raises DamagedShardError if it is truncated or unreadable, or fails its checksum.
    """
    try:
        with safe_open(path, framework="pt") as file:
            codes, outputs = file.get_tensor("codes"), file.get_tensor("outputs")
            checksum, _, teacher = (file.metadata() or {}).get("sha256", "").partition(" ")
    except (SafetensorError, OSError, RuntimeError) as error:
        raise DamagedShardError(f"{path}: {str(error).splitlines()[0]}") from None
    if checksum != _hash_tensors(codes, outputs):
        raise DamagedShardError(f"{path}: its content does not match its checksum")
    return Shard(path, codes, outputs, teacher or None)


def is_shard_intact(path: Path) -> bool:
    """Return whether a shard matches its checksum, of whichever teacher it is."""
    try:
        open_shard(path)
    except DamagedShardError:
        return False
    return True


def open_shards(folder: Path, teacher: str, codes: range | None = None) -> tuple[list[Shard], dict[Path, str]]:
    """Return the shards of this teacher, and by path the reason why each other one is unusable; deletes nothing.

    With `codes`, only shards that may contain some of these are opened.
    """
    shards, unusable = [], {}
    for path in sorted(folder.glob("*.safetensors")):
        if codes is not None and not _overlap(code_range(path), codes):
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


def describe_unusable(unusable: Mapping[Path, str]) -> list[str]:
    """Return one line for each reason why shards are unusable."""
    by_reason = defaultdict(list)
    for path, reason in unusable.items():
        by_reason[reason].append(path)
    return [
        f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: {reason}"
        for reason, paths in by_reason.items()
    ]


def code_range(path: Path) -> range:
    """Return the range from a shard's first code to its last, read from the file's name."""
    first, *others = path.stem.split("-")
    last = others[0] if len(others) == 2 else first  # names of an earlier version lack the last code
    return range(int(first), int(last) + 1)


# -- filling a store ---------------------------------------------------------------------------------------------------


def mark_stored(shards: Iterable[Shard], samples: range, views: int) -> Tensor:
    """Return which views of these samples the shards contain: (samples, views) bool."""
    start, stop = samples.start * views, samples.stop * views
    mask = torch.zeros(stop - start, dtype=torch.bool)
    for shard in shards:
        first, last = torch.searchsorted(shard.codes, torch.tensor([start, stop])).tolist()
        mask[shard.codes[first:last] - start] = True
    return mask.view(len(samples), views)


def split_into_blocks(missing: Tensor, bytes_per_output: int) -> list[range]:
    """Return ranges of samples whose pairs in `missing` (samples, views) bool form one shard each."""
    ends, capacity = [0], max(1, SHARD_BYTES // (bytes_per_output + CODE_BYTES))
    counts = missing.sum(1).tolist()
    load = 0
    for sample, count in enumerate(counts):
        if load and load + count > capacity:
            ends.append(sample)
            load = 0
        load += count
    ends.append(len(counts))
    blocks = [range(start, stop) for start, stop in pairwise(ends)]
    return [block for block in blocks if any(counts[block.start : block.stop])]


def check_free_space(folder: Path, bytes_needed: int) -> None:
    """Check that the store fits on its disk; raises InputError if it does not."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = os.statvfs(existing).f_bavail * os.statvfs(existing).f_frsize
    if bytes_needed > free:
        raise InputError(
            f"the teacher's outputs need {bytes_needed / 1e9:.2f} GB in {existing}, which has {free / 1e9:.2f} GB "
            "free: give another --storage-path, or train with a live teacher, --teacher-store off"
        )


# -- reading a store ---------------------------------------------------------------------------------------------------


class StoredTeacher:
    """A teacher's outputs from a store, for one split: `samples` (N,) int64 are its positions in the pool."""

    def __init__(self, folder: Path, teacher: str, samples: Tensor, pool: int, views: int, device: str):
        # unusable shards do not matter here: they may contain only views that other studies draw
        self._shards, self._unusable = open_shards(folder, teacher)
        self._samples, self._views, self._device = samples, views, device
        self._shard_of = torch.full((pool * views,), -1, dtype=torch.int16)
        self._row_of = torch.zeros(pool * views, dtype=torch.int32)
        for number, shard in enumerate(self._shards):
            self._shard_of[shard.codes] = number
            self._row_of[shard.codes] = torch.arange(len(shard.codes), dtype=torch.int32)

    def begin_epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        """Gather the outputs of the split's samples at these views (N,) on the device, and return their look-up.

        Raises LookupError for a view that was never stored, DamagedShardError if unusable shards may contain it.
        """
        codes = self._samples * self._views + views.cpu()
        shard_of, row_of = self._shard_of[codes], self._row_of[codes].long()
        if (shard_of < 0).any():
            raise self._missing_views_error(int((shard_of < 0).sum()), len(codes))
        first = self._shards[0].outputs
        gathered = torch.empty((len(codes), *first.shape[1:]), dtype=first.dtype)
        # sorted once, so that each shard is read for its own samples only, in their order
        counts = shard_of.bincount(minlength=len(self._shards)).tolist()
        for shard, positions in zip(self._shards, shard_of.argsort(stable=True).split(counts), strict=True):
            gathered[positions] = shard.outputs[row_of[positions]]
        outputs = gathered.to(self._device)
        return lambda batch: Outputs(outputs[batch.samples])

    def _missing_views_error(self, missing: int, needed: int) -> Exception:
        problem = f"{missing} of {needed} views are not in the teacher's store"
        way_out = "run the command again with --retry-failed, which computes missing outputs again"
        if not self._unusable:
            return LookupError(f"{problem}: {way_out}")
        return DamagedShardError(f"{problem}: {'; '.join(describe_unusable(self._unusable))}: {way_out}")


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def _hash_tensors(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
