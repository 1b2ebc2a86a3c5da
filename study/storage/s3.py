"""Connection to S3 and its errors in one line each, with the way out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from pyarrow import fs

from study.errors import InputError

SCHEME = "s3://"

CONNECT_SECONDS = 5.0
"""A server that is up accepts a connection and answers within this time."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Error numbers of a local folder that accepts no more data."""

CAUSES = {
    ("NO_SUCH_BUCKET",): "there is no such bucket: create it, or name another",
    ("DENIED", "ACCESS_KEY", "SIGNATURE", "TOKEN", "FORBIDDEN", "UNRECOGNIZED_CLIENT", "HTTP status 403"): (
        "access is denied: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a "
        "role that may read and write there"
    ),
    ("NETWORK", "curlCode", "TIMEOUT", "imed out"): "no answer: check the network, and AWS_ENDPOINT_URL if it is set",
}
"""Cause and way out by the words in Arrow's error messages."""

CHANGED = ("flush response stream", "InvalidRange", "HTTP status 416")
"""Words in Arrow's errors when an object was replaced by a shorter one after Arrow had asked for its size."""


class StorageError(InputError):
    """A storage on S3 that does not answer or denies access, or a local copy of it that cannot be written."""


class ObjectChangedError(OSError):
    """An object that was replaced while it was read: what was read may be a part of it."""


def make_lock_error(folder: Path, error: OSError) -> StorageError:
    """Return the error for a local copy on a file system without locks."""
    return StorageError(
        f"the local copy {folder} cannot be locked ({error.strerror}): give XDG_CACHE_HOME a folder on another file "
        "system"
    )


@lru_cache
def connect(endpoint: str, region: str) -> Any:
    """Return a pyarrow S3FileSystem; an empty endpoint is AWS's own."""
    scheme, _, host = endpoint.rpartition("://")
    return fs.S3FileSystem(
        region=region or None,
        endpoint_override=host or None,
        scheme=scheme or "https",
        connect_timeout=CONNECT_SECONDS,
        request_timeout=CONNECT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


@contextmanager
def translate_errors(uri: str, endpoint: str, copy: Path) -> Iterator[None]:
    """Raise OSError as a StorageError of one line; `copy` is the local folder. FileNotFoundError passes unchanged."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in DISK_FULL or (error.errno is not None and error.filename):  # of the local copy, not of S3
            path = error.filename or copy
            raise StorageError(f"{path} cannot be written ({error.strerror}): make room there") from None
        message = str(error)
        causes = (cause for words, cause in CAUSES.items() if any(word in message for word in words))
        cause = next(causes, message.splitlines()[0])
        raise StorageError(f"{uri}{f' at {endpoint}' if endpoint else ''}: {cause}") from None
