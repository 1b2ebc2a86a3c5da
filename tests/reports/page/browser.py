"""A headless Chromium, driven over the DevTools protocol: a page's requests, errors and rendering."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
OPTIONS += ("--disable-sync", "--disable-component-update", "--remote-debugging-port=0", "--remote-allow-origins=*")
TIMEOUT = 90
"""Seconds to wait for any single step; a busy machine is slow."""


@dataclass
class Visit:
    """Requests, errors and results of one visit to a page."""

    requests: list[str] = field(default_factory=list)
    """Requested addresses, the page's own first."""
    errors: list[str] = field(default_factory=list)
    """Messages on the console, errors of scripts, and dialogs."""
    results: list[Any] = field(default_factory=list)
    """The value of each expression."""


class Browser:
    """A running Chromium. Visits know nothing of each other: each has its own cookies, storage and cache."""

    def __init__(self, profile: Path):
        command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._profile = profile

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)

    def visit(self, url: str, expressions: Sequence[str], width: int = 1200, scheme: str = "light") -> Visit:
        """Open a page in a window `width` pixels wide, and evaluate JavaScript expressions in it, in their order."""
        visited = _visit(_wait_for_address(self._profile), url, expressions, width, scheme)
        return asyncio.run(asyncio.wait_for(visited, TIMEOUT))


def visit(url: str, profile: Path, expressions: Sequence[str], width: int = 1200, scheme: str = "light") -> Visit:
    """Visit a page as `Browser.visit` does, in a Chromium of its own."""
    with Browser(profile) as browser:
        return browser.visit(url, expressions, width, scheme)


def _wait_for_address(profile: Path) -> str:
    """Return the address of the browser's socket, once it listens."""
    port_file, end = profile / "DevToolsActivePort", time.monotonic() + TIMEOUT
    while not port_file.is_file() or len(port_file.read_text().split()) < 2:
        assert time.monotonic() < end, "Chromium did not start"
        time.sleep(0.1)
    port, path = port_file.read_text().split()
    return f"ws://127.0.0.1:{port}{path}"


async def _visit(address: str, url: str, expressions: Sequence[str], width: int, scheme: str) -> Visit:
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        context = await _call(socket, "Target.createBrowserContext")
        target = await _call(socket, "Target.createTarget", url="about:blank", **context)
        page = f"{address.partition('/devtools/')[0]}/devtools/page/{target['targetId']}"
        try:
            return await _look_at(session, page, url, expressions, width, scheme)
        finally:
            await _call(socket, "Target.disposeBrowserContext", **context)


async def _call(socket: aiohttp.ClientWebSocketResponse, method: str, **params: Any) -> Any:
    """Return the browser's answer; it sends nothing else on this socket."""
    await socket.send_json({"id": 1, "method": method, "params": params})
    return (await socket.receive_json())["result"]


async def _look_at(
    session: aiohttp.ClientSession, page: str, url: str, expressions: Sequence[str], width: int, scheme: str
) -> Visit:
    seen, numbers = Visit(), itertools.count(1)
    async with session.ws_connect(page, max_msg_size=0) as socket:

        async def ask(method: str, until: str = "", **params: Any) -> Any:
            number = next(numbers)
            await socket.send_json({"id": number, "method": method, "params": params})
            answer, reached = None, not until
            while answer is None or not reached:
                message = await socket.receive_json()
                _note(message, seen)
                answer = message if message.get("id") == number else answer
                reached = reached or message.get("method") == until
            return answer.get("result", answer)

        for domain in ("Page", "Network", "Log", "Runtime"):
            await ask(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await ask("Emulation.setDeviceMetricsOverride", **size)
        await ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await ask("Page.navigate", until="Page.loadEventFired", url=url)
        for expression in expressions:
            result = await ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
            assert "exceptionDetails" not in result, result
            seen.results.append(result["result"].get("value"))
    return seen


def _note(message: dict[str, Any], seen: Visit) -> None:
    method, params = message.get("method"), message.get("params", {})
    if method == "Network.requestWillBeSent":
        seen.requests.append(params["request"]["url"])
    elif method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
        seen.errors.append(f"{method}: {params}")
    elif method == "Page.javascriptDialogOpening":
        seen.errors.append(f"dialog: {params['message']}")
