"""Image files that arrays are decoded from: their sizes and times of change, headers and pixels."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from study.errors import InputError


class SourceFile(NamedTuple):
    """A file with its size and time of change, by which cached arrays are identified."""

    path: str
    size_bytes: int
    changed_ns: int

    @property
    def name(self) -> str:
        return Path(self.path).name


def stat_file(root: Path, file: str) -> SourceFile:
    """Return size and time of change of `file` below `root`. Raises InputError if it does not exist."""
    try:
        stat = (root / file).stat()
    except OSError as error:
        raise InputError(f"{root / file} cannot be read ({error.strerror}): copy it again, or remove it") from None
    return SourceFile(file, stat.st_size, stat.st_mtime_ns)


def open_image(path: Path | str, header_only: bool = False) -> Image.Image:
    """Open an image file and decode it, or its header only.

    Raises InputError if that fails. Changed bytes in the scan of a JPEG, which has no checksum, decode to other pixels
    without an error.
    """
    try:
        file = Image.open(path)
        if not header_only:
            file.load()
    # which of these a damaged file raises depends on where the damage is
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be decoded ({error}): copy it again from the archive") from None
    return file


def read_image_header(path: Path) -> tuple[int, int, bool]:
    """Return width and height of an image in pixels, and True if it is grey.

    Raises InputError if it cannot be opened, or is neither RGB nor grey without transparency.
    """
    file = open_image(path, header_only=True)
    if file.mode not in ("RGB", "L") or "transparency" in file.info:
        transparency = ", with transparency" if "transparency" in file.info else ""
        raise InputError(
            f"{path} is of Pillow's mode {file.mode}{transparency}; allowed are RGB and L (grey), which alone have one "
            "colour for each pixel: save it as RGB"
        )
    return file.width, file.height, file.mode == "L"
