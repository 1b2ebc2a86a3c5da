"""Data sets, one a file: each a frozen dataclass with a `name` and a `load()`; files/ reads images for several of them,
arrays/ and synthetic/ make them.
"""
