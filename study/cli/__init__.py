"""The commands of `python -m study`, one module each."""

import sys

try:
    import fcntl  # noqa: F401
except ImportError:
    print("error: kdstudy runs on Linux and macOS; on Windows, install and run it in WSL 2", file=sys.stderr)
    sys.exit(2)
if sys.flags.optimize > 1:
    print("error: Ray does not run without docstrings: unset PYTHONOPTIMIZE, or use -O instead of -OO", file=sys.stderr)
    sys.exit(2)
