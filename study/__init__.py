"""The engine: `from study import …` gives what a space file needs.

__init__.pyi lists the names; each module is imported when its first name is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
