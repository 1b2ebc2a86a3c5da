"""The engine: `from study import …` gives what a space file needs.

__init__.pyi lists the names; each module is imported when its first name is used.
"""

import sys
from importlib.util import find_spec

import lazy_loader

if find_spec("fcntl") is None:
    print("error: kdstudy runs on Linux and macOS; on Windows, install and run it in WSL 2", file=sys.stderr)
    sys.exit(2)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
