"""A data set that lies on S3: each node has a copy at one path, fetched once and verified by what the driver has read.

Fetched by the first process of a node that needs it; the others wait for it. A study's own files move by mirror.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from study.atomic import atomic_write
from study.identity import digest
from study.storage.locations import local_path, mirror_of
from study.storage.mirror import DamagedCopyError, Mirror

SEAL = ".whole"


@dataclass(frozen=True)
class RemoteDataset:
    """A copy of a data set, and the SHA-256 of each of its files by name."""

    mirror: Mirror
    sums: Mapping[str, str]

    def fetch(self) -> None:
        """Let this node have the data set as the driver has read it.

        Raises StorageError if the storage does not answer, DamagedCopyError if another data set lies there by now.
        """
        seal, key = self.mirror.folder / SEAL, digest(dict(self.sums))
        if seal.is_file() and seal.read_text() == key:
            return
        self.mirror.pull_verified([""], self._is_as_it_was, sweep=True)
        if missing := sorted(name for name in self.sums if not (self.mirror.folder / name).is_file()):
            raise DamagedCopyError(f"{self.mirror.uri}/{missing[0]} is gone since the study began: put it back")
        with atomic_write(seal) as aside:
            aside.write_text(key)

    def _is_as_it_was(self, path: Path) -> bool:
        return self.sums.get(str(path.relative_to(self.mirror.folder))) == _sha256(path)


def fetch_dataset(address: str | None) -> RemoteDataset | None:
    """The data set at s3://…, with this machine's copy of it; None for one in a folder, and for none.

    Raises StorageError if it cannot be fetched.
    """
    if address is None or "://" not in address:
        return None
    mirror = mirror_of(local_path(address, "data"))
    mirror.pull("", sweep=True)
    files = mirror.list_files("")
    return RemoteDataset(mirror, {str(path.relative_to(mirror.folder)): _sha256(path) for path in files})


def resolve_data_dir(address: str | None) -> Path | None:
    """Where the data set of a --data-dir lies on this machine; of one at s3://… a copy.

    Raises StorageError if it cannot be fetched.
    """
    if data := fetch_dataset(address):
        return data.mirror.folder
    return Path(address) if address else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
