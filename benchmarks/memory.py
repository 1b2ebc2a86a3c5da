"""Memory of this process: its page faults, and the allocator's treatment of freed blocks."""

from __future__ import annotations

import ctypes
import resource
import sys


def count_page_faults() -> int:
    """Return this process's number of minor page faults so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def keep_freed_memory() -> None:
    """Set glibc to keep freed memory for large blocks; leave other C libraries as they are."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 2**30)
