"""Where a storage lies on this machine: a folder, local or shared, or this node's copy of what lies on S3."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from pyarrow import fs

from study.atomic import atomic_write
from study.errors import InputError
from study.storage.mirror import SCHEME, Mirror

NOTE = ".mirror"
"""In a copy: what it is a copy of."""


def local_path(address: str, kind: str = "storage") -> Path:
    """Where this machine has what lies at a path or a URI: a folder itself, of s3://… a copy, still empty at first.

    Raises StorageError if the storage is not there, InputError for other kinds of storages.
    """
    if "://" not in address:
        return Path(os.path.expanduser(address)).resolve()  # noqa: PTH111 (Path's own refuses ~nobody)
    bucket = address.removeprefix(SCHEME).split("/")[0]
    if not address.startswith(SCHEME) or not bucket:
        raise InputError(f"{address!r}: allowed are a folder, local or shared, and s3://BUCKET/PREFIX")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    uri = SCHEME + "/".join(part for part in address.removeprefix(SCHEME).split("/") if part)
    key = hashlib.sha256(f"{endpoint} {uri}".encode()).hexdigest()[:16]
    mirror = Mirror(_cache() / kind / key, uri, endpoint)
    mirror = replace(mirror, region=_region(mirror, bucket))
    mirror.check_access()
    with atomic_write(mirror.folder / NOTE) as aside:
        aside.write_text(json.dumps(asdict(mirror) | {"folder": ""}), encoding="utf-8")
    return mirror.folder


def mirror_of(folder: Path) -> Mirror:
    """The mirror of a folder that `located` has named."""
    note = folder / NOTE
    said = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    return Mirror(**said | {"folder": folder})


def display_path(path: Path) -> str:
    """A storage, or a study's folder in it, as the user knows it."""
    for above in (path, path.parent):
        if uri := mirror_of(above).uri:
            return uri if above == path else f"{uri}/{path.name}"
    return str(path)


def _region(mirror: Mirror, bucket: str) -> str:
    """Where the bucket is; nodes elsewhere must not look for it near themselves."""
    given = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "")
    if given or mirror.endpoint:
        return given
    with mirror.translate_errors():
        return str(fs.resolve_s3_region(bucket))


def _cache() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "kdstudy"
