"""A storage on S3, and this node's copy of it.

All code works on files. Of what lies at `s3://bucket/prefix` every node has a copy, at one path that is the same on all
of them, and a `Mirror` moves files between the two: `pull` before they are read, `push` after they were written. A file
that was moved either way carries the time of its object: size and time tell what is the same on both sides. Names that
begin with a dot stay where they are. A storage that is a folder, local or NFS, has a mirror that moves nothing.
Left out: where copies lie (study/storage/locations.py), who may write (study/storage/lease.py), what is in the files.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pyarrow import fs

from study.atomic import atomic_write
from study.errors import InputError

SCHEME = "s3://"
CHUNK_BYTES = 8 * 2**20
ANSWER_SECONDS = 5.0
"""Within this a server that is there takes a connection."""
AT_ONCE = 16
"""So many files are fetched side by side: a data set may be many, and each is waited for."""
ATTEMPTS = 20
"""So often a folder is listed anew of which files vanish while they are moved: a driver merges them."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What the system says of a folder that takes no more."""

VERIFIED = ".verified"
"""In a copy: the files that were found to be what they should be."""

CAUSES = {
    ("NO_SUCH_BUCKET",): "there is no such bucket: create it, or name another",
    ("DENIED", "ACCESS_KEY", "SIGNATURE", "TOKEN", "FORBIDDEN", "UNRECOGNIZED_CLIENT", "HTTP status 403"): (
        "access is denied: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a "
        "role that may read and write there"
    ),
    ("NETWORK", "curlCode", "TIMEOUT", "imed out"): "no answer: check the network, and AWS_ENDPOINT_URL if it is set",
}
"""What the words of Arrow's errors mean, and the way out."""


class StorageError(InputError):
    """A storage elsewhere that does not answer, or does not let us."""


class DamagedCopyError(StorageError):
    """A file that is not what it should be, however often it is fetched."""


@dataclass(frozen=True)
class Mirror:
    """What lies at `uri`, and its copy in the folder `here`; without a URI the folder is all there is."""

    folder: Path
    uri: str = ""
    endpoint: str = ""
    """The server, if it is not AWS's own; it goes with the mirror, and so does the region: nodes need not know them."""
    region: str = ""

    def pull(self, *places: str, sweep: bool = False, only: Sequence[str] = ()) -> None:
        """Let files and folders below the storage be here as they are there; with `only`, files of these names.

        With `sweep`, also remove here what is gone there. Raises StorageError if the storage does not answer.
        """
        if self.uri:
            for place in places:
                self._again_while_it_changes(partial(self._pull, place, sweep, only))

    def push(self, *places: str, sweep: bool = False) -> None:
        """Let files and folders be there as they are here, each place before the next, in the order of writing.

        What is written here meanwhile waits for the next push: of a later place never more is there than of those
        before it. With `sweep`, also remove there what is gone here, once what is here has arrived. Only for places
        that nobody else writes. Raises StorageError if the storage does not answer.
        """
        if self.uri:
            self._again_while_it_changes(partial(self._push, places, sweep))

    def delete_folder(self, place: str) -> None:
        """Remove a folder there, with all that is in it."""
        if self.uri:
            with self.translate_errors(), suppress(FileNotFoundError):
                self._fs.delete_dir(self._key(place))

    def pull_verified(self, places: Sequence[str], sound: Callable[[Path], bool], sweep: bool = False) -> None:
        """Let this node have its copy of what all trials share: of several processes one fetches and verifies it, once.

        Raises DamagedCopyError for a file that is not `sound` even when it is fetched again.
        """
        if not self.uri:
            return
        with self._alone():
            self.pull(*places, sweep=sweep)
            for path in self._unsound(places, sound):
                path.unlink()
                self.pull(str(path.relative_to(self.folder)))
            if damaged := self._unsound(places, sound):
                there = f"{self.uri}/{damaged[0].relative_to(self.folder)}"
                raise DamagedCopyError(f"{there} is damaged: delete it there; what studies need is made again")

    def list_folders(self) -> list[str]:
        """The folders at the top of the storage, without those that a node keeps for itself."""
        with self.translate_errors():
            found = self._fs.get_file_info(fs.FileSelector(self._key(""), allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def check_access(self) -> None:
        """Raises StorageError if there is no such bucket, no access to it, or no answer."""
        with self.translate_errors():
            (bucket,) = self._fs.get_file_info([self._key("").split("/")[0]])
            if bucket.type == fs.FileType.NotFound:
                raise OSError("NO_SUCH_BUCKET")

    def read_text(self, place: str) -> tuple[str, float] | None:
        """A short text that lies there, and when it was put there by the server's clock; None if there is none."""
        with self.translate_errors(), suppress(FileNotFoundError):
            with self._fs.open_input_stream(self._key(place)) as source:
                text = source.read().decode()
            (info,) = self._fs.get_file_info([self._key(place)])
            return text, info.mtime_ns / 1e9 if info.mtime_ns else 0.0
        return None

    def write_text(self, place: str, text: str) -> None:
        """Put a short text there, in one step."""
        with self.translate_errors(), self._fs.open_output_stream(self._key(place)) as target:
            target.write(text.encode())

    def delete_object(self, place: str) -> None:
        """Remove one object there."""
        with self.translate_errors(), suppress(FileNotFoundError):
            self._fs.delete_file(self._key(place))

    def _pull(self, place: str, sweep: bool, only: Sequence[str]) -> None:
        there = {name: info for name, info in self._there(place).items() if not only or Path(name).name in only}
        missing = [(info, self.folder / name) for name, info in there.items() if not _same(self.folder / name, info)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(self._fetch, *zip(*missing, strict=True)) if missing else ())
        for path in self.list_files(place) if sweep else ():
            if str(path.relative_to(self.folder)) not in there:
                path.unlink(missing_ok=True)

    def _fetch(self, info: Any, path: Path) -> None:
        with atomic_write(path) as aside:
            with self._fs.open_input_stream(info.path) as source, aside.open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
            os.utime(aside, ns=(info.mtime_ns, info.mtime_ns))

    def _push(self, places: Sequence[str], sweep: bool) -> None:
        here = {place: self.list_files(place) for place in reversed(places)}
        for place in places:
            there = self._there(place)
            for path in sorted(here[place], key=lambda path: path.stat().st_mtime_ns):
                info = there.pop(str(path.relative_to(self.folder)), None)
                if info is None or not _same(path, info):
                    self._send(path)
            for name in sorted(there, reverse=True) if sweep else ():  # newest first, as rows are merged here
                self.delete_object(name)

    def _send(self, path: Path) -> None:
        key = self._key(str(path.relative_to(self.folder)))
        with path.open("rb") as file:
            with self._fs.open_output_stream(key) as target:
                shutil.copyfileobj(file, target, CHUNK_BYTES)
            (info,) = self._fs.get_file_info([key])
            if info.size != os.fstat(file.fileno()).st_size:
                raise OSError(f"{path.name} arrived in part")
            os.utime(file.fileno(), ns=(info.mtime_ns, info.mtime_ns))  # of what was sent, if it was replaced meanwhile

    def _there(self, place: str) -> dict[str, Any]:
        """The objects at a place, by their names below the storage."""
        found = self._fs.get_file_info(fs.FileSelector(self._key(place), recursive=True, allow_not_found=True))
        if not found:
            found = self._fs.get_file_info([self._key(place)])
        top = len(self._key("")) + 1
        return {info.path[top:]: info for info in found if info.is_file and not _hidden(info.path[top:])}

    def list_files(self, place: str) -> list[Path]:
        """What is here of a place, without what stays."""
        path = self.folder / place
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [path for path in found if path.is_file() and not _hidden(str(path.relative_to(self.folder)))]

    def _unsound(self, places: Sequence[str], sound: Callable[[Path], bool]) -> list[Path]:
        """The files here that are damaged, of those that were not verified before."""
        note = self.folder / VERIFIED
        verified = json.loads(note.read_text()) if note.is_file() else {}
        now = {
            path: [path.stat().st_size, path.stat().st_mtime_ns] for place in places for path in self.list_files(place)
        }
        damaged = [path for path, state in now.items() if verified.get(str(path)) != state and not sound(path)]
        verified |= {str(path): state for path, state in now.items() if path not in damaged}
        with atomic_write(note) as aside:
            aside.write_text(json.dumps(verified))
        return damaged

    @property
    def _fs(self) -> Any:
        return _connected(self.endpoint, self.region)

    def _key(self, place: str) -> str:
        return f"{self.uri.removeprefix(SCHEME)}/{place}".rstrip("/")

    def _again_while_it_changes(self, move: Callable[[], None]) -> None:
        for _ in range(ATTEMPTS):
            with self.translate_errors(), suppress(FileNotFoundError):
                return move()
        raise StorageError(f"{self.uri} changes faster than it can be copied: try again when its study does not run")

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            said = str(error)
            if error.errno in DISK_FULL or (error.errno is not None and error.filename):  # of this machine's copy
                path = error.filename or self.folder
                raise StorageError(f"{path} cannot be written ({error.strerror}): make room there") from None
            known = (cause for words, cause in CAUSES.items() if any(word in said for word in words))
            cause = next(known, said.splitlines()[0])
            raise StorageError(f"{self.uri}{f' at {self.endpoint}' if self.endpoint else ''}: {cause}") from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only process of this node that is in here. The system lifts the lock when a process ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".fetching").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


NO_MIRROR = Mirror(Path())
"""Of a storage that is a folder."""


def _same(path: Path, info: Any) -> bool:
    """Whether a file is what was last moved from or to this object."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (info.size, info.mtime_ns)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


@lru_cache
def _connected(endpoint: str, region: str) -> Any:
    scheme, _, host = endpoint.rpartition("://")
    return fs.S3FileSystem(
        region=region or None,
        endpoint_override=host or None,
        scheme=scheme or "https",
        connect_timeout=ANSWER_SECONDS,
        request_timeout=ANSWER_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )
