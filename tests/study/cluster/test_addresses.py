"""Addresses: their forms, and the messages if nothing, something else or a cluster with a token answers."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from study.cluster import addresses
from study.errors import InputError

KEY = "0123456789abcdef" * 4


@contextmanager
def server(answers: dict[str, str], key: str = "") -> Iterator[int]:
    """An HTTP server that answers as Ray's dashboard does; returns its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers.get("authorization", "")
            public = self.path == "/api/authentication_mode"
            open_to = public or not key or token == f"Bearer {key}"
            known = 200 if self.path in answers else 404
            self.send_response(known if open_to else 403 if token else 401)
            self.end_headers()
            self.wfile.write(answers.get(self.path, "").encode())

        def log_message(self, *_: object) -> None:
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield running.server_address[1]
    finally:
        running.shutdown()
        running.server_close()


def dashboard(mode: str) -> dict[str, str]:
    # as Ray 2.60 answers
    version = {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": "session"}
    return {"/api/authentication_mode": json.dumps({"authentication_mode": mode}), "/api/version": json.dumps(version)}


@pytest.fixture(autouse=True)
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 1.0)


@pytest.mark.parametrize("address", ["nowhere", "ray://127.0.0.1:1", "127.0.0.1", "a b:1", "ftp://127.0.0.1:1", ""])
def test_unknown_form_is_refused_with_the_allowed_ones(address: str) -> None:
    with pytest.raises(InputError, match=r"allowed are 'auto' .* HOST:PORT .* http://HOST:PORT"):
        addresses.check_address(address)


def test_auto_is_left_to_ray() -> None:
    addresses.check_address("auto")


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "http://127.0.0.1:{}"])
def test_port_where_nothing_answers_is_named(form: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(free.getsockname()[1])
        with pytest.raises(InputError, match=rf"no Ray .* at '?{address}'? \(.*Connection refused"):
            addresses.check_address(address)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "http://127.0.0.1:{}"])
def test_silent_port_is_given_up_soon(form: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(InputError, match="no Ray"):
            addresses.check_address(form.format(silent.getsockname()[1]))
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("form", "answers", "message"),
    [
        ("127.0.0.1:{}", {}, "is no Ray head"),
        ("http://127.0.0.1:{}", {}, r"is no Ray dashboard \(HTTP status 404\)"),
        ("http://127.0.0.1:{}", {"/api/authentication_mode": "<html>"}, r"is no Ray dashboard \(JSONDecodeError\)"),
        ("http://127.0.0.1:{}", {"/api/authentication_mode": "[]"}, r"is no Ray dashboard \(TypeError\)"),
    ],
)
def test_something_else_that_answers_is_no_ray(form: str, answers: dict[str, str], message: str) -> None:
    with server(answers) as port, pytest.raises(InputError, match=message):
        addresses.check_address(form.format(port))


def test_dashboard_without_token_returns_its_version() -> None:
    with server(dashboard("disabled")) as port:
        assert addresses.read_dashboard(f"http://127.0.0.1:{port}/") == "2.60.0"
        assert addresses.read_dashboard(f"http://127.0.0.1:{port}", "session_name") == "session"


@pytest.mark.parametrize(
    ("exported", "message"),
    [
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": KEY}, ""),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "another"}, "refuses the token of RAY_AUTH_TOKEN: it must"),
        ({"RAY_AUTH_MODE": "token"}, "there is none in ~/.ray/auth_token: copy .* export RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN": KEY}, "RAY_AUTH_MODE is unset: export RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": KEY}, "RAY_AUTH_MODE is disabled: export"),
    ],
)
def test_dashboard_with_a_token_accepts_the_right_one_alone(
    exported: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    with server(dashboard("token"), KEY) as port:
        if not message:
            addresses.check_address(f"http://127.0.0.1:{port}")
            return
        with pytest.raises(InputError, match=message) as refused:
            addresses.check_address(f"http://127.0.0.1:{port}")
    assert KEY not in str(refused.value)


def test_token_is_read_from_where_ray_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses.read_token() == ""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("kept\n")
    assert addresses.read_token() == "kept"
    (tmp_path / "other").write_text("other")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
    assert addresses.read_token() == "other"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert addresses.read_token() == "given"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
@pytest.mark.parametrize("excepted", ["", "example.org,10.0.0.1"])
def test_proxies_are_not_asked_for_this_machine(
    name: str, host: str, excepted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://user:secret@127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, excepted)
    answers = {
        "/api/authentication_mode": json.dumps({"authentication_mode": "disabled"}),
        "/api/version": json.dumps({"ray_version": "2.60.0"}),
    }
    with server(answers) as port:
        if host == "127.0.0.2":
            addresses.bypass_proxy(f"http://{host}:{port}")
        else:
            assert addresses.read_dashboard(f"http://{host}:{port}") == "2.60.0"
    for variable in ("no_proxy", "NO_PROXY"):
        assert os.environ[variable] == f"{excepted},{host}".lstrip(",")


def test_proxy_that_fails_for_another_machine_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(
        InputError, match=r"through the proxy 127\.0\.0\.1:9, unless no_proxy contains head\.example"
    ) as error:
        addresses.read_dashboard("http://head.example:8265")
    assert "secret" not in str(error.value)
