"""Access to the live page: every request needs the token and this machine's name, and pages load nothing else.

Jupyter's scheme: the address that the command prints contains the token; the first visit stores it in a cookie.
"""

from __future__ import annotations

import hashlib
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names by which a browser reaches this machine's loopback, also through a tunnel. Any other name is a rebound one."""

POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; "
    # plotly sets style attributes on its SVG, which a policy can only allow for all styles at once
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer, where it has not set its own."""

NO_TOKEN = "This page needs its token: open the address that `kdstudy ui` printed, with ?token=… at its end.\n"


class AccessControl:
    """ASGI middleware that refuses requests of other hosts, other sites, and without the token."""

    def __init__(self, app: ASGIApp, token: str):
        self._app, self._token = app, token
        # one name for each token: cookies do not distinguish ports, so two pages would share one
        self._cookie = f"kdstudy-{hashlib.sha256(token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refuse_or_admit(Request(scope)) or self._app
        await answer(scope, receive, send_with_headers)

    def _refuse_or_admit(self, request: Request) -> Response | None:
        """Return a refusal, or the redirection of a first visit; None for a request that may pass."""
        host = request.headers.get("host", "")
        if _parse_host_name(f"//{host}") not in LOOPBACK:
            return PlainTextResponse(f"The host must be one of {', '.join(LOOPBACK)}.\n", 403)
        if request.method not in ("GET", "HEAD") and not _is_same_origin(request):
            return PlainTextResponse("Another site may not press this page's buttons.\n", 403)
        if self._is_token(request.query_params.get("token", "")) and request.method == "GET":
            return self._admit(request)
        given = request.cookies.get(self._cookie) or request.headers.get("authorization", "").removeprefix("token ")
        return None if self._is_token(given) else PlainTextResponse(NO_TOKEN, 403)

    def _admit(self, request: Request) -> Response:
        """Return a redirection to the address without the token, which stays out of history and bookmarks."""
        answer = RedirectResponse(request.url.remove_query_params("token"), 303)
        # lax, not strict: a strict cookie is not sent after a redirection if the link stood on another site
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
        return answer

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())


def _is_same_origin(request: Request) -> bool:
    """Return whether a request comes from this page itself, or from no page, as those of scripts."""
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers["host"]


def _parse_host_name(address: str) -> str:
    """Return the host of an address in small letters; empty if it has none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
