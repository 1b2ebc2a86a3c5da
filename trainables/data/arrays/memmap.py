"""Writing of arrays that may be larger than memory, row by row as they are decoded from many files.

cache.py provides the folder and ensures that it is complete or absent.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import numpy as np

from study.errors import InputError
from trainables.data.arrays.splits import Pixels

Item = TypeVar("Item")
Row = TypeVar("Row")

_CHUNK = 64
"""Items decoded between two progress checks; an interrupt waits for at most as many."""

_MAX_DAMAGED = 10
"""Files that cannot be decoded that one message names, at most: reading a large set again for each would take days."""

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
    check_disk(name, folder, sum(math.prod(shape) for shape in shapes.values()))
    with ExitStack() as stack:
        files = [stack.enter_context(create_array(folder / file, shape)) for file, shape in shapes.items()]
        for rows in decode_in_order(name, items, decode, f"decoded to {folder.parent}"):
            for file, row in zip(files, rows, strict=True):
                digest.update(row.data)
                file.write(row.data)


def decode_in_order(name: str, items: Sequence[Item], decode: Callable[[Item], Row], done: str) -> Iterator[Row]:
    """Yield `decode` of each item in their order, by several threads; progress is printed as "… images `done`".

    Raises InputError naming all items that cannot be decoded, up to _MAX_DAMAGED.
    """

    def attempt(item: Item) -> Row | InputError:
        try:
            return decode(item)
        except InputError as error:
            return error

    progress, damaged = _Progress(name, len(items), done), list[str]()
    with ThreadPoolExecutor() as threads:  # Pillow releases the GIL while it decodes
        for start in range(0, len(items), _CHUNK):
            for row in threads.map(attempt, items[start : start + _CHUNK]):
                if isinstance(row, InputError):
                    damaged.append(str(row))
                elif not damaged:
                    yield row
            if len(damaged) > _MAX_DAMAGED:
                break
            progress.report(start + _CHUNK)
    if damaged:
        more = ["and more files"] if len(damaged) > _MAX_DAMAGED else []
        raise InputError("\n".join(damaged[:_MAX_DAMAGED] + more))


@contextmanager
def create_array(path: Path, shape: tuple[int, ...], dtype: str = "|u1") -> Iterator[BinaryIO]:
    """Open a file for an array of this shape, to which its rows are then written in their order."""
    # by writes instead of a memory map: on a full disk a write to mapped memory kills the process
    with path.open("wb") as file:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield file
        file.flush()
        os.fsync(file.fileno())


def check_disk(name: str, folder: Path, bytes_needed: int, way_out: str = "") -> None:
    """Raise InputError if decoded images do not fit on the disk of `folder`; the message ends with `way_out`."""
    free = shutil.disk_usage(folder).free
    if bytes_needed > free:
        raise InputError(
            f"decoded {name} needs {bytes_needed / 1e9:.1f} GB in {folder.parent}, which has {free / 1e9:.1f} GB "
            f"free: give a folder with more room in XDG_CACHE_HOME, or a smaller size{way_out}"
        )


class _Progress:
    """Prints a line with the time left every _PROGRESS_SECONDS."""

    def __init__(self, name: str, count: int, done: str):
        self._name, self._count, self._done = name, count, done
        self._started = self._reported = time.monotonic()

    def report(self, done: int) -> None:
        now = time.monotonic()
        if now - self._reported > _PROGRESS_SECONDS and done < self._count:
            left = (now - self._started) * (self._count / done - 1)
            what = f"{done:,} of {self._count:,} images {self._done}, once for all studies"
            print(f"{self._name}: {what}; about {left / 60:.0f} min left", file=sys.stderr)
            self._reported = now
