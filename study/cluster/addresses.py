"""Addresses of Ray clusters: the allowed forms, and a check that a Ray answers there and accepts this shell's token.

Runs before Ray connects: Ray waits for minutes if nothing or something else answers, and long if the token is wrong.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from study.errors import InputError

ADDRESS_FORMS = (
    "'auto' on a node of the cluster, HOST:PORT of its head from within its network, or, for run, list, show and stop, "
    "http://HOST:PORT of its dashboard from elsewhere"
)

ANSWER_SECONDS = 5.0
MAX_ANSWER_BYTES = 10_000

CLUSTER_ID_METHOD = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""A gRPC method of Ray's head that takes an empty message and checks the token; private, tested with Ray 2.54 and 2.60.

Ray has no public call for this: ray.util.state and the job API ask the dashboard, and ray.init retries for minutes.
"""


def uses_job_api(address: str | None) -> bool:
    """Return whether this is the address of a dashboard, to which studies are submitted as jobs."""
    return address is not None and address.startswith(("http://", "https://"))


def check_address(address: str, resolved: bool = False) -> None:
    """Check that a Ray cluster answers at an address.

    'auto' is Ray's to resolve; pass the address it resolves to with `resolved`.
    Raises InputError for an unknown form, if no Ray answers, or if it refuses this shell's token.
    """
    if uses_job_api(address):
        read_dashboard(address)
    elif re.fullmatch(r"[^\s/]+:\d{1,5}", address):
        _check_head(address, resolved)
    elif address != "auto":
        raise InputError(f"address {address!r}: allowed are {ADDRESS_FORMS}")


def _check_head(address: str, resolved: bool) -> None:
    import grpc  # type: ignore[import-untyped]

    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {address!r} ({error}): start it, or give HOST:PORT of its head") from None
    if os.environ.get("RAY_USE_TLS") == "1":
        return
    mode = os.environ.get("RAY_AUTH_MODE")
    token = read_token() if mode == "token" or (resolved and mode is None) else ""  # as Ray does
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    try:
        with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
            channel.unary_unary(CLUSTER_ID_METHOD)(b"", timeout=ANSWER_SECONDS, metadata=metadata)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise InputError(_token_message(address, bool(token))) from None
        raise InputError(f"what answers at {address!r} is no Ray head: give the port of one, by default 6379") from None


def read_dashboard(address: str, field: str = "ray_version") -> str:
    """Return what the dashboard at http://HOST:PORT answers about its version: "ray_version", or "session_name".

    No other start of Ray has the same name of its session.
    Raises InputError if there is no dashboard, or if it refuses this shell's token.
    """
    bypass_proxy(address)
    try:
        needs_token = _get_json(address, "/api/authentication_mode")["authentication_mode"] == "token"
        token = read_token() if needs_token and os.environ.get("RAY_AUTH_MODE") == "token" else ""
        if needs_token and not token:
            raise InputError(_token_message(address, False))
        return str(_get_json(address, "/api/version", token)[field])
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise InputError(_token_message(address, True)) from None
        answer = f"HTTP status {error.code}"
    except (HTTPException, ValueError, KeyError, TypeError) as error:
        answer = type(error).__name__
    except OSError as error:
        raise InputError(
            f"no Ray dashboard at {address} ({getattr(error, 'reason', error)}{_name_proxy(address)}): start the "
            "cluster, and keep `ray dashboard cluster.yaml` running"
        ) from None
    raise InputError(
        f"what answers at {address} is no Ray dashboard ({answer}{_name_proxy(address)}): `ray dashboard cluster.yaml` "
        "opens one"
    )


def bypass_proxy(address: str) -> None:
    """Except an address on this machine from the proxies of this process: they take it for one on their own."""
    host = urllib.parse.urlsplit(address).hostname or ""
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return
    if is_here:
        given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
        for name in ("no_proxy", "NO_PROXY"):
            os.environ[name] = ",".join(dict.fromkeys(filter(None, (*given.split(","), host))))


def _name_proxy(address: str) -> str:
    """Return a clause that names the proxy through which an address is reached; empty without one."""
    parts = urllib.parse.urlsplit(address)
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return f", through the proxy {proxy.rpartition('@')[2]}, unless no_proxy contains {parts.hostname}"


def read_token() -> str:
    """Return this shell's token from where Ray reads it; empty if there is none."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    try:
        return os.environ.get("RAY_AUTH_TOKEN", "").strip() or Path(path).expanduser().read_text().strip()
    except (OSError, ValueError, RuntimeError):  # RuntimeError: this user has no home
        return ""


def _token_message(address: str, sent: bool) -> str:
    """Return what to do if a cluster requires another token than the one it was sent, or any at all."""
    names = [name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)]
    source = names[0] if names else "~/.ray/auth_token"
    if sent:
        return f"the Ray cluster at {address} refuses the token of {source}: it must be the text that its head has"
    if read_token():
        mode = os.environ.get("RAY_AUTH_MODE", "unset")
        return f"the Ray cluster at {address} asks for a token, and RAY_AUTH_MODE is {mode}: export RAY_AUTH_MODE=token"
    return (
        f"the Ray cluster at {address} asks for a token, and there is none in {source}: copy the head's "
        "~/.ray/auth_token, and export RAY_AUTH_MODE=token"
    )


def _get_json(address: str, path: str, token: str = "") -> dict[str, Any]:
    request = urllib.request.Request(address.rstrip("/") + path)
    if token:  # unredirected: never sent to wherever an answer may redirect
        request.add_unredirected_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return json.loads(answer.read(MAX_ANSWER_BYTES))  # type: ignore[no-any-return]
