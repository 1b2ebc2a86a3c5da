"""kdstudy ui: serves the live page on this machine's loopback until Ctrl-C."""

from __future__ import annotations

import secrets
import socket

import click

from study.cli.options import HELP
from study.cli.output import exit_on_errors, format_examples
from study.errors import InputError
from study.records.paths import DEFAULT_STORAGE

HOST = "127.0.0.1"
PORT = 8777
"""Unused by Ray, Jupyter, TensorBoard and optuna-dashboard."""

TOKEN_BYTES = 24
"""Bytes of randomness of a token, as Jupyter's."""

CLOSE_SECONDS = 1
"""Time that open pages have to end on Ctrl-C: their streams of events never end by themselves."""


@click.command(
    context_settings=HELP,
    epilog=format_examples("ui", "ui /data/runs --read-only", "ui s3://BUCKET/runs --port 9000"),
)
@click.argument("storage_path", default=DEFAULT_STORAGE)
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes any free one.")
@click.option("--read-only", is_flag=True, help="Without the buttons that stop a study or skip a trial.")
def main(storage_path: str, port: int, read_only: bool) -> None:
    """Show the studies below STORAGE_PATH live in a browser.

    STORAGE_PATH is a folder (default runs) or s3://BUCKET/PREFIX. The page is served on this machine alone, and only to
    those who have the token in the printed address. It only reads, but for its buttons.
    """
    with exit_on_errors():
        listener = bind_loopback(port)
        serve(listener, storage_path, read_only)


def serve(listener: socket.socket, storage_path: str, read_only: bool) -> None:
    """Print the page's address and serve it until Ctrl-C. Raises InputError if there is no such storage."""
    import uvicorn

    from study.cli.list_studies import list_studies
    from study.storage import remote
    from study.ui.app import LivePage

    list_studies(remote.open_storage(storage_path))
    token, port = secrets.token_urlsafe(TOKEN_BYTES), listener.getsockname()[1]
    app = LivePage(storage_path, read_only).make_app(token)
    click.echo(
        f"studies below {storage_path}, until Ctrl-C{', read-only' if read_only else ''}:\n"
        f"  http://{HOST}:{port}/?token={token}\n"
        f"from another machine, first: ssh -L {port}:{HOST}:{port} {socket.gethostname()}"
    )
    # without an access log: it would hold the token
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, proxy_headers=False, server_header=False, lifespan="off", ws="none",
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


def bind_loopback(port: int) -> socket.socket:
    """Return a socket that is bound to a port of loopback. Raises InputError if the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        reason = f"port {port} of {HOST} cannot be used ({error.strerror})"
        raise InputError(f"{reason}: give another with --port, or 0 for any free one") from None
    return listener
