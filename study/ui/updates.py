"""Readings that all visitors share, and the stream of events by which a page learns of what has changed."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

import anyio
from starlette.concurrency import run_in_threadpool

from study.cli.show import MAX_READING_SHARE, WATCH_SECONDS
from study.errors import InputError

FIGURE_SECONDS = 10.0
"""Interval at which figures are sent: they are the largest part, and a curve changes with every epoch."""

HEARTBEAT_SECONDS = 15.0
"""Interval at which a silent stream sends a comment, by which a lost connection is noticed."""


@dataclass(frozen=True)
class PageState:
    """The parts of a page that change: HTML by the id of an element, and figures as Plotly's JSON by their key."""

    parts: Mapping[str, str]
    figures: Mapping[str, str]


class SharedReader:
    """Calls `read` for a page at most once per pause, however many visitors watch it.

    The pause is WATCH_SECONDS, and longer if reading takes much processor time, which it takes from the trials. A page
    whose `sign` has not changed is not read again.
    """

    def __init__(self, read: Callable[[str], PageState], sign: Callable[[str], object]):
        self._read_page, self._sign_page = read, sign
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._due: dict[str, float] = {}
        self._expired: set[str] = set()
        self._kept: dict[str, tuple[object, PageState]] = {}

    async def read(self, name: str) -> PageState:
        """Return the state of a page, read within the last pause."""
        async with self._locks[name]:
            if name not in self._kept or time.monotonic() >= self._due[name]:
                self._expired.discard(name)
                self._kept[name], seconds = await run_in_threadpool(self._read_if_changed, name)
                pause = 0.0 if name in self._expired else max(WATCH_SECONDS, seconds / MAX_READING_SHARE)
                self._due[name] = time.monotonic() + pause
            return self._kept[name][1]

    def expire(self, name: str) -> None:
        """Let the next reading be a new one; one that has begun may be older than what the caller has changed."""
        self._due[name] = 0.0
        self._expired.add(name)

    def _read_if_changed(self, name: str) -> tuple[tuple[object, PageState], float]:
        """Return the page's signature and state, and the processor seconds that they took.

        The time that passed would not do: on a busy machine a reading waits for its turn, and the pause after it would
        show an ended study as running for half a minute.
        """
        began = time.thread_time()
        signature, kept = self._sign_page(name), self._kept.get(name)
        if kept is None or kept[0] != signature:
            kept = signature, self._read_page(name)
        return kept, time.thread_time() - began


async def stream_changes(read: Callable[[], Awaitable[PageState]]) -> AsyncIterator[str]:
    """Yield server-sent events: first the whole state, then whatever parts and figures have changed."""
    parts: dict[str, str] = {}
    figures: dict[str, str] = {}
    figures_at = sent_at = float("-inf")
    while True:
        try:
            state, now = await read(), time.monotonic()
        except InputError:  # the storage cannot be read now: it may come back
            yield ": the storage cannot be read now\n\n"
            await anyio.sleep(WATCH_SECONDS)
            continue
        changed = {name: html for name, html in state.parts.items() if parts.get(name) != html}
        redrawn: dict[str, str] = {}
        if now - figures_at >= FIGURE_SECONDS or set(state.figures) - set(figures):
            redrawn = {name: figure for name, figure in state.figures.items() if figures.get(name) != figure}
            figures_at = now
        if changed or redrawn:
            yield f"data: {json.dumps({'parts': changed, 'figures': redrawn})}\n\n"
        elif now - sent_at >= HEARTBEAT_SECONDS:
            yield ": nothing has changed\n\n"
        if changed or redrawn or now - sent_at >= HEARTBEAT_SECONDS:
            sent_at = now
        parts.update(changed)
        figures.update(redrawn)
        await anyio.sleep(WATCH_SECONDS)
