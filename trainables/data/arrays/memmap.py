"""Writing of arrays that may be larger than memory, row by row as they are decoded from many files.

cache.py provides the folder and ensures that it is complete or absent.
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

_CHUNK = 64
"""Items decoded between two progress checks; an interrupt waits for at most as many."""

_PROGRESS_SECONDS = 20.0


class Hash(Protocol):
    """A hash object of hashlib."""

    def update(self, data: memoryview, /) -> None: ...


def write_arrays(
    name: str,
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    items: Sequence[Item],
    decode: Callable[[Item], Sequence[Pixels]],
    digest: Hash,
) -> None:
    """Write one uint8 array (N, …) per file name in `shapes`; `decode` returns a row of each for each of N items.

    `digest` is updated with all rows, item by item. Progress is printed under `name`.
    Raises InputError if the disk is full, and any error of `decode`.
    """
    _check_disk(name, folder, sum(math.prod(shape) for shape in shapes.values()))
    progress = _Progress(name, len(items), folder.parent)
    with ExitStack() as stack, ThreadPoolExecutor() as threads:  # Pillow releases the GIL while it decodes
        files = [stack.enter_context((folder / file).open("wb")) for file in shapes]
        for file, shape in zip(files, shapes.values(), strict=True):
            _write_header(file, shape)
        for start in range(0, len(items), _CHUNK):
            for rows in threads.map(decode, items[start : start + _CHUNK]):
                for file, row in zip(files, rows, strict=True):
                    digest.update(row.data)
                    file.write(row.data)
            progress.report(start + _CHUNK)
        for file in files:
            file.flush()
            os.fsync(file.fileno())


class _Progress:
    """Prints a line with the time left every _PROGRESS_SECONDS."""

    def __init__(self, name: str, count: int, folder: Path):
        self._name, self._count, self._folder = name, count, folder
        self._started = self._reported = time.monotonic()

    def report(self, done: int) -> None:
        now = time.monotonic()
        if now - self._reported > _PROGRESS_SECONDS and done < self._count:
            left = (now - self._started) * (self._count / done - 1)
            what = f"{done:,} of {self._count:,} images decoded to {self._folder}, once for all studies"
            print(f"{self._name}: {what}; about {left / 60:.0f} min left", file=sys.stderr)
            self._reported = now


def _check_disk(name: str, folder: Path, bytes_needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if bytes_needed > free:
        raise InputError(
            f"decoded {name} needs {bytes_needed / 1e9:.1f} GB in {folder.parent}, which has {free / 1e9:.1f} GB "
            "free: give a folder with more room in XDG_CACHE_HOME, or a smaller size"
        )


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    # by writes instead of a memory map: on a full disk a write to mapped memory kills the process
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
