"""Image files that arrays are decoded from: their sizes and times of change, headers and pixels."""

from __future__ import annotations

import io
import struct
import unicodedata
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, ImageOps

from study.errors import InputError

GREY = ("1", "L", "LA")
"""Pillow's modes of grey images."""

TURNED = (5, 6, 7, 8)
"""EXIF orientations of images that are shown with width and height exchanged."""

OPAQUE = 255


class SourceFile(NamedTuple):
    """A file with its size and time of change, by which cached arrays are identified."""

    path: str
    size_bytes: int
    changed_ns: int

    @property
    def name(self) -> str:
        return Path(self.path).name


def stat_file(root: Path, file: str) -> SourceFile:
    """Return size and time of change of `file` below `root`. Raises InputError if it does not exist or is no file."""
    _refuse_pipe(root / file)
    try:
        stat = (root / file).stat()
    except OSError as error:
        raise InputError(f"{root / file} cannot be read ({error.strerror}): copy it again, or remove it") from None
    return SourceFile(file, stat.st_size, stat.st_mtime_ns)


def find_spelling(root: Path, file: str) -> str:
    """Return the name below `root` of an existing file whose accents may be composed in another way, or `file`.

    Names that macOS wrote are often decomposed (NFD), those in tables and from keyboards composed (NFC).
    """
    spellings = (file, *(unicodedata.normalize(form, file) for form in ("NFC", "NFD") if not file.isascii()))
    return next((spelling for spelling in spellings if (root / spelling).exists()), file)


def open_image(path: Path | str, header_only: bool = False, content: bytes | None = None) -> Image.Image:
    """Open an image file and decode it, turned as its EXIF orientation says; or its header only.

    With the `content` of the file, `path` only names it.
    Raises InputError if that fails. Changed bytes in the scan of a JPEG, which has no checksum, decode to other pixels
    without an error.
    """
    _refuse_pipe(Path(path))
    try:
        file = Image.open(path if content is None else io.BytesIO(content))
        if not header_only:
            file.load()
            ImageOps.exif_transpose(file, in_place=True)
    # which of these a damaged file raises depends on where the damage is
    except (OSError, ValueError, TypeError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be decoded ({error}): copy it again, or remove it") from None
    return file


def _refuse_pipe(path: Path) -> None:
    """Raise InputError if a path is something else than a file: opening a pipe waits for a writer."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a folder, pipe, socket or device: remove it, or give it another name")


def read_image_header(path: Path) -> tuple[int, int, bool]:
    """Return width and height of an image in pixels, as a viewer shows it, and True if it is grey.

    Raises InputError if it cannot be opened, or does not have one colour for each pixel.
    """
    file = open_image(path, header_only=True)
    check_colours(file, path)
    # not of PNG files, which Pillow would decode for it
    is_turned = file.format != "PNG" and file.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
    width, height = (file.height, file.width) if is_turned else file.size
    return width, height, file.mode in GREY


def measure_shown_image(path: Path) -> tuple[int, int]:
    """Return width and height of an image in pixels, as a viewer shows it.

    A PNG file is decoded, as its orientation may stand behind its pixels. Raises InputError if it cannot be opened.
    """
    if open_image(path, header_only=True).format == "PNG":
        return open_image(path).size
    width, height, _ = read_image_header(path)
    return width, height


def check_colours(file: Image.Image, path: Path | str) -> None:
    """Raise InputError for an image without one colour of 8 bits for each pixel; a palette and opaque alpha are well.

    Pillow would clip 16 bits, and viewers differ in what they show of CMYK and behind transparent pixels.
    """
    is_known = file.mode in (*GREY, "RGB", "P", "RGBA", "PA")
    if is_known and (not file.has_transparency_data or file.convert("RGBA").getchannel("A").getextrema()[0] == OPAQUE):
        return
    transparency = ", with transparency" if is_known else ""
    raise InputError(
        f"{path} is of Pillow's mode {file.mode}{transparency}; allowed are RGB and L (grey), which alone have one "
        "colour for each pixel: save it as RGB"
    )
