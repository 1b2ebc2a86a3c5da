"""One dataset a file, each a frozen dataclass with `load()`; splits, density maps and derived.py are shared."""
