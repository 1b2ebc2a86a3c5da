"""The live page's addresses: the list of studies, one study, its events, its report, and its buttons."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import cache, partial
from pathlib import Path
from urllib.parse import quote

from plotly.offline import get_plotlyjs
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from reports.page import render
from study.cli.list_studies import list_studies
from study.errors import InputError
from study.records.parquet_table import RecordsError
from study.records.paths import StudyPaths
from study.storage import remote
from study.storage.locations import display_path
from study.ui import pages
from study.ui.access import AccessControl
from study.ui.reading import read_study, sign_study
from study.ui.updates import PageState, SharedReader, stream_changes

REPORT_POLICY = (
    # a report may come from anyone: sandboxed, it has no cookie of this page and cannot press its buttons
    "sandbox allow-scripts allow-modals allow-popups allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "ui.css": "text/css", "ui.js": "text/javascript"}
"""Files that pages load, with their types; those of the report are found in its own folder."""

load_plotly = cache(get_plotlyjs)


class LivePage:
    """The studies below a storage path: a folder, or s3://BUCKET/PREFIX. With `read_only`, no button works."""

    def __init__(self, address: str, read_only: bool):
        self._address, self._read_only = address, read_only
        self._storage = remote.open_storage(address)
        self._lists = SharedReader(self._read_list, lambda _: object())
        self._studies = SharedReader(self._read_study, self._sign_study)

    def make_app(self, token: str) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/", self.show_list),
            Route("/events", self.send_list_events),
            Route("/assets/{name}", send_asset),
            Route("/study/{study}", self.show_study),
            Route("/study/{study}/events", self.send_study_events),
            Route("/study/{study}/report", self.send_report),
            Route("/study/{study}/figures/{file}", self.send_figure_data),
            Route("/study/{study}/stop", self.stop_study, methods=["POST"]),
            Route("/study/{study}/skip/{trial}", self.skip_trial, methods=["POST"]),
        ]
        access = Middleware(AccessControl, token=token)
        return Starlette(routes=routes, middleware=[access], exception_handlers={InputError: answer_problem})

    async def show_list(self, request: Request) -> Response:
        state = await self._lists.read("")
        return HTMLResponse(pages.render_page("studies.html", state, storage=display_path(self._storage)))

    async def send_list_events(self, request: Request) -> Response:
        return _send_events(stream_changes(partial(self._lists.read, "")))

    async def show_study(self, request: Request) -> Response:
        name = await self._find_name(request)
        state = await self._studies.read(name)
        return HTMLResponse(pages.render_page("study.html", state, name=name))

    async def send_study_events(self, request: Request) -> Response:
        name = await self._find_name(request)
        return _send_events(stream_changes(partial(self._studies.read, name)))

    async def send_report(self, request: Request) -> Response:
        report = StudyPaths(self._storage / await self._find_name(request)).report
        if not report.is_file():
            raise HTTPException(404, "This study has no report yet.\n")
        return FileResponse(report, headers={"Content-Security-Policy": REPORT_POLICY}, media_type="text/html")

    async def send_figure_data(self, request: Request) -> Response:
        """Send the CSV that a figure of the report links to."""
        data = StudyPaths(self._storage / await self._find_name(request)).figures / request.path_params["file"]
        if data.suffix != ".csv" or not data.is_file():
            raise HTTPException(404, "This study's report has no such data.\n")
        return FileResponse(data, filename=data.name, media_type="text/csv")

    async def stop_study(self, request: Request) -> Response:
        return await self._press(request, _send_stop)

    async def skip_trial(self, request: Request) -> Response:
        return await self._press(request, lambda folder: remote.skip_trial(folder, request.path_params["trial"]))

    async def _press(self, request: Request, act: Callable[[Path], object]) -> Response:
        """Return a redirection to the study after a button has acted. Raises HTTPException if it cannot act."""
        name = await self._find_name(request)
        if self._read_only:
            raise HTTPException(403, "This page was started with --read-only.\n")
        try:
            await run_in_threadpool(act, self._storage / name)
        except (InputError, RecordsError) as error:
            raise HTTPException(409, f"{error}\n") from None
        self._studies.expire(name)
        return RedirectResponse(f"/study/{quote(name)}", 303)

    async def _find_name(self, request: Request) -> str:
        """Return the study that an address names. Raises HTTPException if the storage has no such folder."""
        name: str = request.path_params["study"]
        folder = self._storage / name
        is_below = name not in ("", ".", "..") and "\0" not in name and folder.parent == self._storage
        if not is_below or not await run_in_threadpool(_is_study, folder):
            raise HTTPException(404, f"No study {name!r} below {display_path(self._storage)}.\n")
        return name

    # -- readings, made in threads ---------------------------------------------------------------------------------

    def _read_list(self, _: str) -> PageState:
        return pages.render_list(list_studies(remote.open_storage(self._address)))

    def _sign_study(self, name: str) -> object:
        return sign_study(remote.refresh_copy(self._storage / name))

    def _read_study(self, name: str) -> PageState:
        folder = self._storage / name
        if not StudyPaths(folder).study_json.is_file():
            return pages.render_problem(name, "This study is just being started.")
        try:
            return pages.render_study(read_study(folder), not self._read_only)
        except RecordsError as error:
            return pages.render_problem(name, str(error))
        except (KeyError, TypeError, ValueError) as error:  # study.json lacks something, or has it in another form
            return pages.render_problem(name, f"{folder} is damaged: {type(error).__name__}: {error}")


async def answer_problem(request: Request, error: Exception) -> Response:
    """Return why the storage cannot be read now: its folder is gone, or S3 does not answer."""
    return PlainTextResponse(f"{error}\n", 503)


async def send_asset(request: Request) -> Response:
    """Return a script or a style sheet."""
    name = request.path_params["name"]
    if name == "plotly.js":
        return Response(load_plotly(), media_type="text/javascript", headers={"Cache-Control": "max-age=86400"})
    if name not in ASSETS:
        return PlainTextResponse("No such file.\n", 404)
    folder = pages.FOLDER if name.startswith("ui.") else render.FOLDER
    return FileResponse(folder / name, media_type=ASSETS[name])


def _is_study(folder: Path) -> bool:
    """Return whether a folder holds a study or a driver starts one there, which on S3 takes a request."""
    return StudyPaths(folder).study_json.is_file() or bool(remote.find_driver(folder))


def _send_stop(folder: Path) -> None:
    if not remote.stop_study(folder, 0.0):
        raise InputError(f"{folder.name} does not run: there is nothing to stop")


def _send_events(events: AsyncIterator[str]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream")
