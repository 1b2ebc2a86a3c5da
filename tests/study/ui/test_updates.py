"""Events of the live page: readings that visitors share, and what a page is sent."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import anyio
import httpx2
import pytest

from study.records.lock import lock_study
from study.ui import updates
from study.ui.updates import PageState, SharedReader, stream_changes
from tests.reports.fake_study import Writer
from tests.study.ui.conftest import TOKEN

HEADERS = {"Authorization": f"token {TOKEN}"}


def test_visitors_share_a_reading_and_unchanged_studies_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "WATCH_SECONDS", 0.0)
    read: list[str] = []
    signs = {"a": 1}

    def read_page(name: str) -> PageState:
        read.append(name)
        time.sleep(0.05)
        return PageState({"part": f"{name} {len(read)}"}, {})

    async def visit_often() -> None:
        reader = SharedReader(read_page, lambda name: signs[name])
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(reader.read, "a")
        assert read == ["a"]
        signs["a"] = 2
        reader.expire("a")
        assert (await reader.read("a")).parts == {"part": "a 2"}

    anyio.run(visit_often)


def test_pause_after_a_reading_follows_its_processor_time_not_its_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "WATCH_SECONDS", 0.0)
    used = [0.0]
    monkeypatch.setattr(time, "thread_time", lambda: used[0])
    readings = Counter[str]()

    def read_page(name: str) -> PageState:
        readings[name] += 1
        time.sleep(0.1)
        used[0] += 100.0 if name == "costly" else 0.0
        return PageState({}, {})

    async def read_twice() -> None:
        reader = SharedReader(read_page, lambda _: object())
        for name in ("waiting", "costly") * 2:
            await reader.read(name)

    anyio.run(read_twice)
    assert readings == {"waiting": 2, "costly": 1}


def test_a_button_pressed_during_a_reading_is_seen_by_the_next() -> None:
    asked: list[str] = []

    def read_page(name: str) -> PageState:
        found = list(asked)
        time.sleep(0.3)
        return PageState({"asked": str(found)}, {})

    async def press() -> None:
        reader = SharedReader(read_page, lambda _: len(asked))
        async with anyio.create_task_group() as group:
            group.start_soon(reader.read, "a")
            await anyio.sleep(0.1)
            asked.append("stop")
            reader.expire("a")
        assert (await reader.read("a")).parts == {"asked": "['stop']"}  # and not after the pause that a reading earns

    anyio.run(press)


def test_stream_sends_all_once_and_then_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "WATCH_SECONDS", 0.0)
    states = iter(
        [
            PageState({"cells": "1", "trials": "x"}, {"history": "f1"}),
            PageState({"cells": "1", "trials": "x"}, {"history": "f1"}),
            PageState({"cells": "2", "trials": "x"}, {"history": "f2"}),
            PageState({"cells": "2", "trials": "x"}, {"history": "f2", "curves": "g"}),
        ]
    )

    async def read() -> PageState:
        return next(states)

    async def collect() -> list[dict[str, dict[str, str]]]:
        events = stream_changes(read)
        return [json.loads((await anext(events)).removeprefix("data: ")) for _ in range(3)]

    first, second, third = anyio.run(collect)
    assert first == {"parts": {"cells": "1", "trials": "x"}, "figures": {"history": "f1"}}
    assert second == {"parts": {"cells": "2"}, "figures": {}}  # figures wait for their interval
    assert third == {"parts": {}, "figures": {"history": "f2", "curves": "g"}}  # but a new one comes at once


def test_server_sends_events_as_the_study_changes(address: str, storage: Path) -> None:
    with httpx2.stream("GET", f"{address}/study/fake/events", headers=HEADERS, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = (json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data:"))
        first = next(lines)
        assert set(first["figures"]) == {"curves-0", "history-2", "search-curves-2"}
        assert "better" in first["parts"]["verdicts"]
        with lock_study(storage / "fake"):
            second = next(lines)
            assert str(os.getpid()) in second["parts"]["state"]
            assert "trials" not in second["parts"]


def test_list_appears_while_it_is_watched(address: str, storage: Path) -> None:
    with httpx2.stream("GET", f"{address}/events", headers=HEADERS, timeout=60) as answer:
        lines = (json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data:"))
        assert "second" not in next(lines)["parts"]["studies"]
        Writer(storage / "second").fill().write()
        assert "second" in next(lines)["parts"]["studies"]
