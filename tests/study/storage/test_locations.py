"""Local paths of storages, and one-line errors soon for a storage that cannot be used."""

from __future__ import annotations

import errno
import fcntl
import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.errors import InputError
from study.records.lock import check_writable
from study.storage.local_copy import try_lock
from study.storage.locations import display_path, local_path, mirror_of
from study.storage.verified_copy import lock_node
from tests.study import s3
from tests.study.s3 import Copy, put


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_copy_on_a_file_system_without_locks_is_one_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for lock in (try_lock(tmp_path), lock_node(tmp_path)):
        with pytest.raises(InputError, match=r"cannot be locked \(.*give XDG_CACHE_HOME a folder"), lock:
            pass


def test_copy_that_another_process_holds_is_not_locked(tmp_path: Path) -> None:
    with try_lock(tmp_path) as first, try_lock(tmp_path) as second:
        assert (first, second) == (True, False)


def test_local_path_of_a_folder_is_the_folder_and_its_mirror_moves_nothing(tmp_path: Path) -> None:
    assert local_path(str(tmp_path / "x" / ".." / "runs")) == tmp_path / "runs"
    mirror = mirror_of(tmp_path)
    put(tmp_path, a="1")
    mirror.push("", delete=True)
    mirror.pull("", delete=True)
    mirror.delete_folder("a")
    assert s3.local_files(tmp_path) == {"a": b"1"}
    assert display_path(tmp_path / "a") == str(tmp_path / "a")


def test_folder_behind_a_link_to_itself_has_a_path_for_the_message_that_refuses_it(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"storage path .*/loop/x cannot be written \(Too many levels"):
        check_writable(local_path(str(tmp_path / "loop" / "x")))


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server that lets nobody in."""

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    do_GET = do_PUT = do_HEAD  # noqa: N815

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("address", "server", "message"),
    [
        ("s3://nowhere/x", "moto", "s3://nowhere/x at http://.*: there is no such bucket: create it"),
        ("s3://bucket/x", "refusing", "s3://bucket/x at http://.*: access is denied: set AWS_ACCESS_KEY_ID"),
        ("s3://bucket/x", "http://127.0.0.1:9", "s3://bucket/x at http://127.0.0.1:9: no answer: check the network"),
        ("gs://bucket/x", "moto", "'gs://bucket/x': allowed are a folder, local or shared, and s3://BUCKET/PREFIX"),
        ("s3://", "moto", "'s3://': allowed are a folder"),
    ],
)
def test_unusable_storage_is_refused_soon_and_in_one_line(
    copy: Copy, refusing: str, monkeypatch: pytest.MonkeyPatch, address: str, server: str, message: str
) -> None:
    if server != "moto":
        monkeypatch.setenv("AWS_ENDPOINT_URL", refusing if server == "refusing" else server)
    began = time.monotonic()
    with pytest.raises(InputError, match=message) as told:
        local_path(address)
    assert "\n" not in str(told.value)
    assert time.monotonic() - began < 15
