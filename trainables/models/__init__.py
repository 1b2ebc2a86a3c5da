"""Model families, one a file: each a frozen dataclass with a `name` and a `build(…)` that returns the net."""
