"""A data set on S3: each node has a copy at one path, fetched once and verified against the driver's checksums.

The first process of a node that needs it fetches it; the others wait. A study's own files move by mirror.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from study.atomic import atomic_write
from study.identity import digest
from study.storage.locations import local_path, mirror_of
from study.storage.mirror import Mirror
from study.storage.verified_copy import DamagedCopyError, pull_verified

COMPLETE_MARKER = ".whole"
"""File in a complete copy that holds the digest of all checksums."""


@dataclass(frozen=True)
class RemoteDataset:
    """The copy of a data set, and the SHA-256 of each file by name as the driver read it."""

    mirror: Mirror
    checksums: Mapping[str, str]

    def fetch(self) -> None:
        """Copy the data set, as the driver read it, to this node.

        Raises StorageError if the storage does not answer, DamagedCopyError if the data set on S3 has changed.
        """
        marker, key = self.mirror.folder / COMPLETE_MARKER, digest(dict(self.checksums))
        if marker.is_file() and marker.read_text() == key:
            return
        pull_verified(self.mirror, [""], self._is_unchanged, delete=True)
        if missing := sorted(name for name in self.checksums if not (self.mirror.folder / name).is_file()):
            raise DamagedCopyError(f"{self.mirror.uri}/{missing[0]} is gone since the study began: put it back")
        with atomic_write(marker) as temporary:
            temporary.write_text(key)

    def _is_unchanged(self, file: Path) -> bool:
        return self.checksums.get(str(file.relative_to(self.mirror.folder))) == _sha256(file)


def fetch_dataset(address: str | None) -> RemoteDataset | None:
    """Copy the data set at s3://… to this machine and return it; None for a folder or no address.

    Raises StorageError if it cannot be fetched.
    """
    if address is None or "://" not in address:
        return None
    mirror = mirror_of(local_path(address, "data"))
    mirror.pull("", delete=True)
    return RemoteDataset(
        mirror, {str(file.relative_to(mirror.folder)): _sha256(file) for file in mirror.list_files("")}
    )


def resolve_data_dir(address: str | None) -> Path | None:
    """Return the local folder of a --data-dir, which for s3://… is a copy.

    Raises StorageError if it cannot be fetched.
    """
    if data := fetch_dataset(address):
        return data.mirror.folder
    return Path(address) if address else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
