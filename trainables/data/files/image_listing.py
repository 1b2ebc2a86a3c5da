"""The images below a folder, by the spelling of their suffixes, also behind links; without thumbnails."""

from __future__ import annotations

import os
from pathlib import Path

from study.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png")
ALLOWED = ", ".join(SUFFIXES)
OTHER_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".jfif", ".jpe", ".tif", ".tiff", ".webp")
"""Images that are not read; the note of the loaded set counts them."""

THUMBNAILS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found")
"""Folders in which systems keep small copies and deleted files; like files and folders that begin with a dot."""


class ImageListing:
    """The images below a folder, also behind links to folders, and counts of files that were left out."""

    def __init__(self, root: Path):
        self.files: list[str] = []
        self._root, self._seen = root, set[tuple[int, int]]()
        self._hidden = self._other = self._broken = 0
        folders = [str(root)]
        while folders:  # folders first, then what links lead to: an image has one name, the one without a link
            folders = sorted(link for folder in folders for link in self._add_folder(folder))
        self.files.sort()

    def describe_left_out(self) -> str:
        """Return how many images were left out and why; empty if none were."""
        counts = {
            "hidden files and thumbnails": self._hidden,
            f"images of other types than {ALLOWED}": self._other,
            "links that lead nowhere": self._broken,
        }
        return "".join(f", {count:,} {what} left out" for what, count in counts.items() if count)

    def _add_folder(self, top: str) -> list[str]:
        """List the images of a folder and those in it; return links to further folders."""
        links: list[str] = []
        for folder, inner, names in os.walk(top, onerror=_raise_unreadable):
            status = os.stat(folder)  # noqa: PTH116 - a Path for each of many folders takes longer
            is_new = (status.st_dev, status.st_ino) not in self._seen
            self._seen.add((status.st_dev, status.st_ino))
            paths = [os.path.join(folder, name) for name in inner]  # noqa: PTH118
            links += [path for path in paths if os.path.islink(path)]  # noqa: PTH114
            inner[:] = inner if is_new else []
            for name in names if is_new else ():
                self._add_file(folder, name)
        return links

    def _add_file(self, folder: str, name: str) -> None:
        path = Path(folder, name).relative_to(self._root)
        suffix = path.suffix.lower()
        if any(part.startswith(".") or part in THUMBNAILS for part in path.parts):
            self._hidden += suffix in SUFFIXES
        elif suffix in SUFFIXES:
            self.files.append(path.as_posix())
        else:
            self._other += suffix in OTHER_SUFFIXES
            full = self._root / path
            self._broken += full.is_symlink() and not full.exists()  # such as a folder on a disk that is not mounted


def _raise_unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read ({error.strerror}): check its permissions, or remove it")
