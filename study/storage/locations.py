"""Local paths of storages: the folder itself, local or shared, or this node's copy of a storage on S3."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

from pyarrow import fs

from study.atomic import atomic_write
from study.errors import InputError
from study.storage.mirror import Mirror
from study.storage.s3 import SCHEME

MIRROR_FILE = ".mirror"
"""File in a copy that holds the URI, endpoint and region of the storage."""


def local_path(address: str, kind: str = "storage") -> Path:
    """Return the local path of a storage: a folder itself, or a copy of s3://…, which may still be empty.

    Raises StorageError if the storage does not exist or does not answer, InputError for other kinds of URI.
    """
    if "://" not in address:
        # Path's own methods raise for unknown users and for links that lead to themselves
        return Path(os.path.realpath(os.path.expanduser(address)))  # noqa: PTH111
    bucket = address.removeprefix(SCHEME).split("/")[0]
    if not address.startswith(SCHEME) or not bucket:
        raise InputError(f"{address!r}: allowed are a folder, local or shared, and s3://BUCKET/PREFIX")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    uri = SCHEME + "/".join(part for part in address.removeprefix(SCHEME).split("/") if part)
    key = hashlib.sha256(f"{endpoint} {uri}".encode()).hexdigest()[:16]
    mirror = Mirror(_cache_folder() / kind / key, uri, endpoint)
    mirror = replace(mirror, region=_find_region(mirror, bucket))
    mirror.check_access()
    with atomic_write(mirror.folder / MIRROR_FILE) as temporary:
        temporary.write_text(json.dumps({"uri": uri, "endpoint": endpoint, "region": mirror.region}), encoding="utf-8")
    return mirror.folder


def mirror_of(folder: Path) -> Mirror:
    """Return the mirror of a folder that `local_path` has returned."""
    file = folder / MIRROR_FILE
    fields = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return Mirror(folder, fields.get("uri", ""), fields.get("endpoint", ""), fields.get("region", ""))


def display_path(path: Path) -> str:
    """Return a storage, or a study's folder in it, as the user addresses it."""
    for storage in (path, path.parent):
        if uri := mirror_of(storage).uri:
            return uri if storage == path else f"{uri}/{path.name}"
    return str(path)


def _find_region(mirror: Mirror, bucket: str) -> str:
    """Return the bucket's region, which nodes in other regions could not guess."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "")
    if region or mirror.endpoint:
        return region
    with mirror.translate_errors():
        return str(fs.resolve_s3_region(bucket))


def _cache_folder() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (given if given.is_absolute() else Path.home() / ".cache") / "kdstudy"
    except RuntimeError:
        raise InputError("this user has no home folder: give one for copies of S3 in XDG_CACHE_HOME") from None
