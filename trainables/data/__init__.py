"""Data sets, one a file: each a frozen dataclass with a `name` and a `load()`; arrays/ and synthetic/ serve several."""
