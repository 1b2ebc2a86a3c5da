"""Arrays decoded from many files, written to a folder row by row: they may be larger than memory.

Where the folder is, and that it is whole or absent, is derived.py's business.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import numpy as np

from study.errors import InputError
from trainables.data.arrays.splits import Pixels

Item = TypeVar("Item")

_TOGETHER = 64
"""So many items are decoded between two looks at the clock: an interrupt waits for no more."""

_TOLD_SECONDS = 20.0


class Hash(Protocol):
    """What hashlib makes."""

    def update(self, data: memoryview, /) -> None: ...


def write_arrays(
    name: str,
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    items: Sequence[Item],
    decode: Callable[[Item], Sequence[Pixels]],
    digest: Hash,
) -> None:
    """Write uint8 arrays (N, …) of these shapes by file, of which `decode` gives one row each for each of N items.

    `digest` sees all rows, those of one item after those of another. Progress is told by `name`.
    Raises InputError if there is no room on the disk, and what `decode` raises.
    """
    _check_disk(name, folder, sum(math.prod(shape) for shape in shapes.values()))
    progress = _Progress(name, len(items), folder.parent)
    with ExitStack() as stack, ThreadPoolExecutor() as threads:  # Pillow decodes without Python's lock
        files = [stack.enter_context((folder / file).open("wb")) for file in shapes]
        for file, shape in zip(files, shapes.values(), strict=True):
            _write_header(file, shape)
        for start in range(0, len(items), _TOGETHER):
            for rows in threads.map(decode, items[start : start + _TOGETHER]):
                for file, row in zip(files, rows, strict=True):
                    digest.update(row.data)
                    file.write(row.data)
            progress.tell(start + _TOGETHER)
        for file in files:
            file.flush()
            os.fsync(file.fileno())


class _Progress:
    """A line now and then on what takes minutes."""

    def __init__(self, name: str, count: int, place: Path):
        self._name, self._count, self._place = name, count, place
        self._started = self._told = time.monotonic()

    def tell(self, done: int) -> None:
        now = time.monotonic()
        if now - self._told > _TOLD_SECONDS and done < self._count:
            left = (now - self._started) * (self._count / done - 1)
            what = f"{done:,} of {self._count:,} images decoded to {self._place}, once for all studies"
            print(f"{self._name}: {what}; about {left / 60:.0f} min left", file=sys.stderr)
            self._told = now


def _check_disk(name: str, folder: Path, bytes_needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if bytes_needed > free:
        raise InputError(
            f"decoded {name} needs {bytes_needed / 1e9:.1f} GB in {folder.parent}, which has {free / 1e9:.1f} GB "
            "free: name a folder with more room in XDG_CACHE_HOME, or give a smaller size"
        )


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    # written, not mapped: on a full disk a write to mapped memory kills the process
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
