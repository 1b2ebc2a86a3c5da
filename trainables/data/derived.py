"""Where data that follows from other data is kept: made once, for all processes and studies on a machine."""

from __future__ import annotations

import os
from pathlib import Path


def derived_folder(kind: str) -> Path:
    """The folder for one kind of derived data, below $XDG_CACHE_HOME or ~/.cache; it may be deleted at any time.

    A relative $XDG_CACHE_HOME counts for nothing. Source: XDG Base Directory Specification 0.8, basics.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "kdstudy" / kind
