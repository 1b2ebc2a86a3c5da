"""One dataset a file, each a frozen dataclass with `load()` and `check()`; splits.py is what they share."""
