"""A storage with one study, and the live page served over HTTP on a free port."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from study.ui.app import LivePage
from study.ui.server import bind_loopback
from tests.reports.fake_study import Writer

TOKEN = "a-token-of-the-tests"


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    """The study `fake` of three arms and eight seeds, before it is on disk."""
    return Writer(tmp_path / "runs" / "fake").fill()


@pytest.fixture
def storage(writer: Writer) -> Path:
    return writer.write().parent


@pytest.fixture
def address(storage: Path) -> Iterator[str]:
    """The address of the page, served by uvicorn as the command serves it."""
    listener = bind_loopback(0)
    config = uvicorn.Config(LivePage(str(storage), False).make_app(TOKEN), log_level="error", lifespan="off",
                            timeout_graceful_shutdown=1)  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)
