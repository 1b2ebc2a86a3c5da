"""An S3 server on loopback, for tests of a storage that lies elsewhere."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pyarrow import fs

Copy = Callable[..., Path]
"""This machine's copy of the test's storage; given a name, another machine's."""

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@contextmanager
def server() -> Iterator[str]:
    """The address of a server with one empty bucket."""
    moto = pytest.importorskip("moto.server", reason="no S3 server: pip install 'moto[server]'")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    try:
        connected(f"http://{host}:{port}").create_dir(BUCKET)
        yield f"http://{host}:{port}"
    finally:
        running.stop()


def connected(endpoint: str) -> fs.S3FileSystem:
    """The server as it is, without any of what is tested."""
    return fs.S3FileSystem(
        endpoint_override=endpoint.removeprefix("http://"),
        scheme="http",
        access_key="test",
        secret_key="test",
        region="us-east-1",
        allow_bucket_creation=True,
    )


def environment(endpoint: str, cache: Path) -> dict[str, str]:
    """Of a machine that is to use the server, and keeps its copies in `cache`."""
    return {**os.environ, **KEYS, "AWS_ENDPOINT_URL": endpoint, "XDG_CACHE_HOME": str(cache)}


def objects(endpoint: str, place: str) -> dict[str, bytes]:
    """What lies there, by name below `place`, without the names that begin with a dot."""
    there = connected(endpoint)
    found = there.get_file_info(fs.FileSelector(f"{BUCKET}/{place}", recursive=True, allow_not_found=True))
    names = {info.path: info.path.removeprefix(f"{BUCKET}/{place}/") for info in found if info.is_file}
    read = {}
    for path, name in names.items():
        if "/." not in f"/{name}":
            with suppress(FileNotFoundError):  # merged since it was listed
                read[name] = _read(there, path)
    return read


def _read(there: fs.S3FileSystem, path: str, attempts: int = 5) -> bytes:
    try:
        return bytes(there.open_input_stream(path).read())
    except FileNotFoundError:
        raise
    except OSError:  # the server cuts an answer short whose object is replaced meanwhile
        if attempts == 1:
            raise
        return _read(there, path, attempts - 1)


def land(endpoint: str, place: str, folder: Path) -> None:
    """Write what lies there into a folder, in the place of what is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in objects(endpoint, place).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def put(folder: Path, **files: str) -> None:
    """Write files, named with __ for each /, into a folder."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def local_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a copy, without the names that begin with a dot."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if "/." not in f"/{name}"}


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
