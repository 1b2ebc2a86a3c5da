"""Locks of Linux and macOS, which Windows lacks: refused in one line, wherever the first of its modules is imported."""

import sys

try:
    import fcntl
except ImportError:
    print("error: kdstudy runs on Linux and macOS; on Windows, install and run it in WSL 2", file=sys.stderr)
    sys.exit(2)

__all__ = ["fcntl"]
