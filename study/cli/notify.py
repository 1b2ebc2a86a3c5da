"""--notify: one message to a webhook when a run ends, as Slack, Mattermost and Discord take them."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from study.errors import InputError

VARIABLE = "KDSTUDY_NOTIFY"
"""The environment variable of --notify: a webhook's address is a secret, which command lines and study.json are not."""

SECONDS = 10.0
"""The time that a webhook has to answer: a study that has ended waits no longer for it."""

OUTCOMES = {0: "done", 3: "stopped", 130: "interrupted"}
"""By exit code of the run; all others are failures."""


@dataclass
class Ending:
    """The end of a run."""

    exit_code: int = 1
    detail: str = ""


def check_url(url: str | None) -> None:
    """Raise InputError for an address that cannot be a webhook's; the message does not repeat it, as it is a secret."""
    parts = urllib.parse.urlsplit(url or "https://none")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"--notify (or {VARIABLE}) is no web address: give https://HOST/PATH, a webhook's")


@contextmanager
def notify_of_end(url: str | None, study: str) -> Iterator[Ending]:
    """Post how the body ended: as it set in the Ending, or by an error that it raised."""
    ending = Ending()
    try:
        yield ending
    except InputError as error:
        ending.exit_code, ending.detail = 2, str(error)
        raise
    except KeyboardInterrupt:
        ending.exit_code = 130
        raise
    finally:
        if url:
            _post(url, study, ending)


def _post(url: str, study: str, ending: Ending) -> None:
    """Post `text` (Discord: `content`), `study`, `outcome` and `exit_code` as JSON; print why it failed, if it did."""
    outcome = OUTCOMES.get(ending.exit_code, "failed")
    text = f"kdstudy: {study} {outcome}" + (f": {ending.detail}" if ending.detail else "")
    message = {"text": text, "content": text, "study": study, "outcome": outcome, "exit_code": ending.exit_code}
    headers = {"Content-Type": "application/json", "User-Agent": "kdstudy"}
    try:
        request = urllib.request.Request(url, json.dumps(message).encode(), headers)
        urllib.request.urlopen(request, timeout=SECONDS).close()
    except (OSError, ValueError) as error:  # whose text may have the address
        reason = str(getattr(error, "code", "")) or getattr(error, "strerror", None) or type(error).__name__
        host = urllib.parse.urlsplit(url).hostname
        click.echo(f"{host} was not notified ({reason}); the study is not affected", err=True)
