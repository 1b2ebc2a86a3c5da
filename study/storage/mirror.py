"""A storage on S3 and this node's local copy of it.

All other code works on files. Every node has a copy of `s3://bucket/prefix` at the same local path, and a `Mirror`
moves files between the two: `pull` before they are read, `push` after they were written. A moved file gets its object's
modification time, so equal size and time mean equal content. Names that begin with a dot are never moved. A storage
that is a folder, local or NFS, has a mirror that moves nothing.
Elsewhere: where copies lie (locations.py), who may write (lease.py), copies that are checked (verified_copy.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import fs

from study.atomic import atomic_write
from study.storage import s3
from study.storage.s3 import SCHEME, StorageError

T = TypeVar("T")

CHUNK_BYTES = 8 * 2**20
DOWNLOAD_THREADS = 16
"""Files fetched in parallel: a data set may have many small ones, each of which costs a round trip."""
MAX_ATTEMPTS = 20
"""Times a transfer is repeated whose objects vanish or are replaced meanwhile, as when a driver merges them."""


@dataclass(frozen=True)
class Mirror:
    """The objects below `uri` and their local copy in `folder`; with an empty URI the folder is the storage itself.

    Paths given to methods are relative to the storage. All methods that contact S3 raise StorageError if it does not
    answer or denies access.
    """

    folder: Path
    uri: str = ""
    endpoint: str = ""
    """URL of a server other than AWS. Like the region it is resolved once, on the driver, and sent to all nodes."""
    region: str = ""

    def pull(self, *paths: str, delete: bool = False, names: Sequence[str] = ()) -> None:
        """Copy files and folders from S3; with `names`, only files of these names.

        With `delete`, also delete local files that are gone on S3.
        """
        if self.uri:
            for path in paths:
                self._retry_while_changing(partial(self._pull, path, delete, names))

    def push(self, *paths: str, delete: bool = False) -> None:
        """Copy files and folders to S3: each path before the next, files in the order in which they were written.

        Files written during a push wait for the next one, so that S3 never has a later path newer than an earlier one.
        With `delete`, also delete objects that are gone locally, after everything else has arrived; only for paths
        that no other machine writes.
        """
        if self.uri:
            self._retry_while_changing(partial(self._push, paths, delete))

    def list_folders(self) -> list[str]:
        """Return the top-level folders on S3."""
        with self.translate_errors():
            found = self._fs.get_file_info(fs.FileSelector(self._key(""), allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def list_object_names(self, folder: str) -> list[str]:
        """Return the names of the objects that lie directly in a folder on S3."""
        with self.translate_errors():
            found = self._fs.get_file_info(fs.FileSelector(self._key(folder), allow_not_found=True))
        return sorted(info.base_name for info in found if info.is_file)

    def check_access(self) -> None:
        """Raise StorageError if the bucket does not exist, denies access or does not answer."""
        with self.translate_errors():
            (bucket,) = self._fs.get_file_info([self._key("").split("/")[0]])
            if bucket.type == fs.FileType.NotFound:
                raise OSError("NO_SUCH_BUCKET")

    def read_text(self, path: str) -> tuple[str, float] | None:
        """Return a short text on S3 and when it was written, in seconds by the server's clock; None if absent."""

        def read() -> tuple[str, float] | None:
            with suppress(FileNotFoundError):
                with self._fs.open_input_stream(self._key(path)) as source:
                    content = source.read()
                (info,) = self._fs.get_file_info([self._key(path)])
                if info.size != len(content):
                    raise s3.ObjectChangedError(path)
                return content.decode(), info.mtime_ns / 1e9 if info.mtime_ns else 0.0
            return None

        return self._retry_while_changing(read)

    def write_text(self, path: str, text: str) -> None:
        """Write a short text to S3, atomically."""
        with self.translate_errors(), self._fs.open_output_stream(self._key(path)) as target:
            target.write(text.encode())

    def delete_object(self, path: str) -> None:
        """Delete one object on S3, if it exists."""
        with self.translate_errors(), suppress(FileNotFoundError):
            self._fs.delete_file(self._key(path))

    def delete_folder(self, path: str, keep: str = "") -> None:
        """Delete a folder on S3, if it exists, with all its objects but the one at `keep` in it."""
        if not self.uri:
            return
        with self.translate_errors(), suppress(FileNotFoundError):
            if not keep:
                self._fs.delete_dir(self._key(path))
                return
            found = self._fs.get_file_info(fs.FileSelector(self._key(path), recursive=True, allow_not_found=True))
            for info in found:
                if info.is_file and info.path != self._key(f"{path}/{keep}"):
                    self._fs.delete_file(info.path)

    def list_files(self, path: str) -> list[Path]:
        """Return the local files at a path that a push would move."""
        root = self.folder / path
        files = sorted(root.rglob("*")) if root.is_dir() else [root]
        return [file for file in files if file.is_file() and not _is_hidden(str(file.relative_to(self.folder)))]

    def _pull(self, path: str, delete: bool, names: Sequence[str]) -> None:
        objects = {
            name: info for name, info in self._list_objects(path).items() if not names or info.base_name in names
        }
        changed = [name for name, info in objects.items() if not _is_same(self.folder / name, info)]
        with ThreadPoolExecutor(DOWNLOAD_THREADS) as threads:
            list(threads.map(lambda name: self._download(objects[name], self.folder / name), changed))
        for file in self.list_files(path) if delete else ():
            if str(file.relative_to(self.folder)) not in objects:
                file.unlink(missing_ok=True)

    def _download(self, info: Any, file: Path) -> None:
        with atomic_write(file) as temporary:
            with self._fs.open_input_stream(info.path) as source, temporary.open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
                size = target.tell()
            (now,) = self._fs.get_file_info([info.path])
            # Arrow asks for the size first, and reads so much of whatever follows
            if (size, now.size, now.mtime_ns) != (info.size, info.size, info.mtime_ns):
                raise s3.ObjectChangedError(info.path)
            os.utime(temporary, ns=(info.mtime_ns, info.mtime_ns))

    def _push(self, paths: Sequence[str], delete: bool) -> None:
        with ExitStack() as stack:
            listed: dict[str, tuple[dict[str, Any], list[Any]]] = {}
            for path in reversed(paths):  # opened in this order: a file of a later path is older than those before
                objects, opened = self._list_objects(path), []
                for file in sorted(self.list_files(path), key=lambda file: file.stat().st_mtime_ns):
                    info = objects.pop(str(file.relative_to(self.folder)), None)
                    if info is None or not _is_same(file, info):
                        opened.append(stack.enter_context(file.open("rb")))
                listed[path] = objects, opened
            for path in paths:
                objects, opened = listed[path]
                for source in opened:
                    self._upload(source)
                for name in sorted(objects, reverse=True) if delete else ():  # newest first, the order of merging
                    self.delete_object(name)

    def _upload(self, source: Any) -> None:
        """Upload an open file: as it was when it was opened, even if its path has been replaced meanwhile."""
        path = Path(source.name)
        key = self._key(str(path.relative_to(self.folder)))
        with self._fs.open_output_stream(key) as target:
            shutil.copyfileobj(source, target, CHUNK_BYTES)
        (info,) = self._fs.get_file_info([key])
        if info.size != os.fstat(source.fileno()).st_size:
            raise OSError(f"{path.name} arrived in part")
        os.utime(source.fileno(), ns=(info.mtime_ns, info.mtime_ns))  # by descriptor, for the same reason

    def _list_objects(self, path: str) -> dict[str, Any]:
        """Return the objects at a path by their names below the storage."""
        found = self._fs.get_file_info(fs.FileSelector(self._key(path), recursive=True, allow_not_found=True))
        if not found:
            found = self._fs.get_file_info([self._key(path)])
        prefix = len(self._key("")) + 1
        return {info.path[prefix:]: info for info in found if info.is_file and not _is_hidden(info.path[prefix:])}

    @property
    def _fs(self) -> Any:
        return s3.connect(self.endpoint, self.region)

    def _key(self, path: str) -> str:
        return f"{self.uri.removeprefix(SCHEME)}/{path}".rstrip("/")

    def translate_errors(self) -> Any:
        return s3.translate_errors(self.uri, self.endpoint, self.folder)

    def _retry_while_changing(self, transfer: Callable[[], T]) -> T:
        for _ in range(MAX_ATTEMPTS):
            with self.translate_errors():
                try:
                    return transfer()
                except (FileNotFoundError, s3.ObjectChangedError):
                    continue
                except OSError as error:
                    if not any(words in str(error) for words in s3.CHANGED):
                        raise
        raise StorageError(f"{self.uri} changes faster than it can be copied: try again when its study does not run")


NO_MIRROR = Mirror(Path())
"""Mirror of a storage that is a folder."""


def _is_same(file: Path, info: Any) -> bool:
    """Return whether a file is the one last moved from or to this object."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (info.size, info.mtime_ns)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)
