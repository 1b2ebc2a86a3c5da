"""Images that are decoded when they are taken, for sets whose decoded copy would be too large for a disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainables.data.arrays.decoding import Decoding
from trainables.data.arrays.splits import Pixels
from trainables.data.files.image_sources import ImageSource

Positions = npt.NDArray[np.int64]

AHEAD = 2
"""Batches that are decoded before they are taken: the next one, and one for threads that are done with it."""


class LazyImages:
    """Images (N, C, S, S) uint8 of which some are taken as from an array, and decoded from their files by threads."""

    dtype = np.dtype(np.uint8)

    def __init__(self, files: Sequence[str], source: ImageSource, decoding: Decoding):
        self._files, self._source, self._decoding = files, source, decoding
        self._threads: ThreadPoolExecutor | None = None
        self._coming: Iterator[Positions] = iter(())
        self._pending = deque[_PendingBatch]()

    def __len__(self) -> int:
        return len(self._files)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self._files), *self._decoding.shape

    def __getitem__(self, chosen: slice | Positions) -> Pixels:
        """Return the images of a slice or at positions (B,): (B, C, S, S). Raises InputError naming a damaged file."""
        positions = np.arange(*chosen.indices(len(self))) if isinstance(chosen, slice) else chosen
        if self._pending and np.array_equal(self._pending[0].positions, positions):
            batch = self._pending.popleft()
            self._begin_next()
            return batch.wait()
        with ThreadPoolExecutor(self._decoding.thread_count) as threads:
            return self._begin(positions, threads).wait()

    def prefetch(self, batches: Iterable[Positions]) -> None:
        """Decode the next batches (B,) to be taken while others are in use, AHEAD of them; drop those of before.

        The threads end with the last batch.
        """
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._threads = ThreadPoolExecutor(self._decoding.thread_count)
        self._coming, self._pending = iter(batches), deque()
        for _ in range(AHEAD):
            self._begin_next()

    def _begin_next(self) -> None:
        assert self._threads is not None
        positions = next(self._coming, None)
        if positions is None:
            self._threads.shutdown(wait=False)  # ends them when they have decoded what is pending
        else:
            self._pending.append(self._begin(positions, self._threads))

    def _begin(self, positions: Positions, threads: ThreadPoolExecutor) -> _PendingBatch:
        images = np.empty((len(positions), *self._decoding.shape), dtype=np.uint8)

        def decode(places: Positions) -> None:
            for place in places:
                file = self._files[positions[place]]
                images[place] = self._decoding.decode(self._source.locate(file), self._source.read(file))

        # neighbours in the order of files go to one thread: those in a parquet file share a row group
        parts = np.array_split(np.argsort(positions), self._decoding.thread_count)
        return _PendingBatch(positions, images, [threads.submit(decode, part) for part in parts])


class _PendingBatch(NamedTuple):
    """A batch that is being decoded."""

    positions: Positions
    images: Pixels
    parts: list[Future[None]]

    def wait(self) -> Pixels:
        for part in self.parts:
            part.result()
        return self.images
