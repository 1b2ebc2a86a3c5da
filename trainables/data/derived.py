"""Where data that follows from other data is kept: made once, for all processes and studies on a machine."""

from __future__ import annotations

import os
from pathlib import Path


def derived_folder(kind: str) -> Path:
    """The folder for one kind of derived data, below $XDG_CACHE_HOME or ~/.cache; it may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdstudy" / kind
