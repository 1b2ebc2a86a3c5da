"""--notify: one message for each way a run ends, and an address that is printed and recorded nowhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from study.cli.notify import check_url, notify_of_end
from study.cli.options import RunOptions
from study.errors import InputError


class Webhook:
    """A webhook on this machine, what it got, and the status that it answers with."""

    def __init__(self) -> None:
        self.status, self.messages = 200, list[dict[str, Any]]()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/secret"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    thread = threading.Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("code", "detail", "text"),
    [
        (0, "KD is better than none.", "kdstudy: lp done: KD is better than none."),
        (1, "", "kdstudy: lp failed"),
        (3, "KD is undecided.", "kdstudy: lp stopped: KD is undecided."),
    ],
)
def test_end_is_posted_with_its_outcome(webhook: Webhook, code: int, detail: str, text: str) -> None:
    with notify_of_end(webhook.url, "lp") as ending:
        ending.exit_code, ending.detail = code, detail
    (message,) = webhook.messages
    assert message["text"] == message["content"] == text
    assert (message["study"], message["exit_code"]) == ("lp", code)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("disk full"), "kdstudy: lp failed: disk full"),
        (KeyboardInterrupt(), "kdstudy: lp interrupted"),
        (ZeroDivisionError(), "kdstudy: lp failed"),
    ],
)
def test_error_is_posted_and_raised(webhook: Webhook, error: BaseException, text: str) -> None:
    with pytest.raises(type(error)), notify_of_end(webhook.url, "lp"):
        raise error
    assert [message["text"] for message in webhook.messages] == [text]


def test_nothing_is_posted_without_an_address() -> None:
    with notify_of_end(None, "lp") as ending:
        ending.exit_code = 0


def test_webhook_that_refuses_or_is_gone_is_one_line_without_its_address(
    webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook.status = 404
    with notify_of_end(webhook.url, "lp"):
        pass
    with notify_of_end("http://127.0.0.1:9/services/secret", "lp"):
        pass
    refused, gone = capsys.readouterr().err.splitlines()
    assert refused == "127.0.0.1 was not notified (404); the study is not affected"
    assert gone.startswith("127.0.0.1 was not notified (")
    assert "secret" not in refused + gone


@pytest.mark.parametrize("url", ["hooks.slack.com/secret", "file:///etc/secret", "https:///secret"])
def test_address_that_is_no_webhooks_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InputError, match=r"give https://HOST/PATH") as refused:
        check_url(url)
    assert "secret" not in str(refused.value)


def test_address_is_in_no_command() -> None:
    options = RunOptions(Path("lp.py"), notify="https://h/secret")
    assert "secret" not in options.to_command()
