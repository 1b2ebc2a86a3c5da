"""Tasks, losses, nets, data sets and schedules: `from trainables import …` gives what a space file needs.

__init__.pyi lists the names; each module is imported when its first name is used, so that torch is not loaded for a
study that is only listed or refused.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
