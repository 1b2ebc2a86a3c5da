"""The commands of `python -m study`, one module each."""

import sys

if sys.flags.optimize > 1:
    print("error: Ray does not run without docstrings: unset PYTHONOPTIMIZE, or use -O instead of -OO", file=sys.stderr)
    sys.exit(2)
