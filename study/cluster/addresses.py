"""Addresses of clusters: which forms there are, who answers there, and whether it takes this shell's token.

Asked before Ray is: it waits for minutes where nobody answers or somebody else does, and long where the token is wrong.
"""

from __future__ import annotations

import json
import os
import re
import socket
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from study.errors import InputError

FORMS = (
    "'auto' on a node of the cluster, HOST:PORT of its head from within its network, or, for run, list, show and stop, "
    "http://HOST:PORT of its dashboard from elsewhere"
)

ANSWER_SECONDS = 5.0
ANSWER_BYTES = 10_000
CLUSTER_ID = "/ray.rpc.NodeInfoGcsService/GetClusterId"


def uses_job_api(address: str | None) -> bool:
    """Whether this is a dashboard's address, to which studies are submitted."""
    return address is not None and address.startswith(("http://", "https://"))


def check(address: str, found: bool = False) -> None:
    """Raises InputError for an unknown form, where no Ray answers, and where it refuses our token.

    What 'auto' stands for is Ray's to find; what it has `found` is then checked here.
    """
    if uses_job_api(address):
        check_dashboard(address)
    elif re.fullmatch(r"[^\s/]+:\d{1,5}", address):
        _check_head(address, found)
    elif address != "auto":
        raise InputError(f"address {address!r}: allowed are {FORMS}")


def _check_head(address: str, found: bool) -> None:
    import grpc  # type: ignore[import-untyped]

    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {address!r} ({error}): is it up, and is this its head's port?") from None
    if os.environ.get("RAY_USE_TLS") == "1":
        return
    mode = os.environ.get("RAY_AUTH_MODE")
    key = token() if mode == "token" or (found and mode is None) else ""  # as Ray does
    said = (("authorization", f"Bearer {key}"),) if key else ()
    try:
        with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
            channel.unary_unary(CLUSTER_ID)(b"", timeout=ANSWER_SECONDS, metadata=said)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise InputError(_refused(address, bool(key))) from None
        raise InputError(f"what answers at {address!r} is no Ray head; its port is 6379 by default") from None


def check_dashboard(address: str) -> str:
    """The Ray version of the dashboard at http://HOST:PORT.

    Raises InputError if there is none, or it does not take our token.
    """
    try:
        asks = _got(address, "/api/authentication_mode")["authentication_mode"] == "token"
        key = token() if asks and os.environ.get("RAY_AUTH_MODE") == "token" else ""
        if asks and not key:
            raise InputError(_refused(address, False))
        return str(_got(address, "/api/version", key)["ray_version"])
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise InputError(_refused(address, True)) from None
        what = f"HTTP status {error.code}"
    except (HTTPException, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}"
    except OSError as error:
        raise InputError(
            f"no Ray dashboard at {address} ({getattr(error, 'reason', error)}): is the cluster up, and does "
            "`ray dashboard cluster.yaml` run?"
        ) from None
    raise InputError(f"what answers at {address} is no Ray dashboard ({what}): `ray dashboard cluster.yaml` opens one")


def token() -> str:
    """This shell's token, from where Ray takes it; empty if there is none."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    try:
        return os.environ.get("RAY_AUTH_TOKEN", "").strip() or Path(path).expanduser().read_text().strip()
    except (OSError, ValueError):
        return ""


def _refused(address: str, sent: bool) -> str:
    """What to do where a cluster asks for another token than it was sent."""
    names = [name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)]
    source = names[0] if names else "~/.ray/auth_token"
    if sent:
        return f"the Ray cluster at {address} refuses the token of {source}: it must be the text that its head has"
    if token():
        mode = os.environ.get("RAY_AUTH_MODE", "unset")
        return f"the Ray cluster at {address} asks for a token, and RAY_AUTH_MODE is {mode}: export RAY_AUTH_MODE=token"
    return (
        f"the Ray cluster at {address} asks for a token, and there is none in {source}: copy the head's "
        "~/.ray/auth_token, and export RAY_AUTH_MODE=token"
    )


def _got(address: str, path: str, key: str = "") -> dict[str, Any]:
    request = urllib.request.Request(address.rstrip("/") + path)
    if key:  # not sent on to where an answer may redirect
        request.add_unredirected_header("authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return json.loads(answer.read(ANSWER_BYTES))  # type: ignore[no-any-return]
