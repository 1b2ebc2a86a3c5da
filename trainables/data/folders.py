"""The folder given by --data-dir, and the data set's own folder in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study.errors import InputError


def make_root_absolute(dataset: Any) -> None:
    """Resolve `root` of a frozen dataclass: a worker runs in another folder than the command line."""
    if dataset.root is not None:
        object.__setattr__(dataset, "root", Path(dataset.root).expanduser().resolve())


def find_folder(
    name: str, root: Path | str | None, below: Sequence[str], contents: Sequence[str], archive: str
) -> Path:
    """Return the first folder among `root` and those `below` it that has all the subfolders `contents`.

    Raises InputError, which names the `archive` to copy there, if there is none or no root was given.
    """
    remedy = f"place the authors' {archive} there by hand and give its folder with --data-dir"
    if root is None:
        raise InputError(f"{name}: no data folder given; {remedy}")
    candidates = [Path(root), *(Path(root) / folder for folder in below)]
    for folder in candidates:
        if all((folder / subfolder).is_dir() for subfolder in contents):
            return folder
    wanted = ", ".join(f"{subfolder}/" for subfolder in contents)
    raise InputError(f"{name} ({wanted}) is not in any of {', '.join(map(str, candidates))}; {remedy}")
