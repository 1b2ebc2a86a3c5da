"""Image files as a viewer shows them, and those that are refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from study.errors import InputError
from tests.trainables.small_sr_faces import picture
from trainables.data.files.source_files import measure_shown_image, open_image, read_image_header

ORIENTATION = 0x0112


def pixels_of(path: Path) -> np.ndarray:
    """The pixels of a file that passes the checks of its header."""
    read_image_header(path)
    return np.asarray(open_image(path).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "CMYK"])
def test_image_of_a_mode_without_one_colour_a_pixel_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("7.png" if mode != "CMYK" else "7.jpg")
    Image.new(mode, (40, 40)).save(path)
    match = rf"/{path.name} is of Pillow's mode {mode}.*; allowed are RGB and L \(grey\), .*save it as RGB"
    with pytest.raises(InputError, match=match):
        read_image_header(path)


def test_colour_that_stands_for_transparency_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "7.png", transparency=(0, 0, 0))
    with pytest.raises(InputError, match=r"/7\.png is of Pillow's mode RGB, with transparency; allowed are RGB"):
        read_image_header(tmp_path / "7.png")


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "L", "RGB", "P with transparency", "RGB with transparency"])
def test_image_with_one_colour_for_each_pixel_is_read_as_a_viewer_shows_it(tmp_path: Path, mode: str) -> None:
    is_grey = mode in ("1", "L", "LA")
    shown = Image.new("L" if is_grey else "RGB", (40, 40), 255 if is_grey else (9, 200, 77))
    options = {"transparency": 0 if mode[0] == "P" else (1, 2, 3)} if "with" in mode else {}
    saved = shown.quantize(4, kmeans=1) if mode[0] == "P" else shown.convert(mode.split()[0])
    if mode.startswith("P with"):
        saved.putpalette([0, 0, 0, 9, 200, 77])
        saved.paste(1, (0, 0, 40, 40))
    saved.save(tmp_path / "7.png", **options)
    assert np.array_equal(pixels_of(tmp_path / "7.png"), np.asarray(shown.convert("RGB")))
    assert read_image_header(tmp_path / "7.png") == (40, 40, is_grey)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_is_turned_as_its_exif_data_say(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = Image.fromarray(np.random.default_rng(5).integers(0, 255, (5, 5, 3), dtype=np.uint8)).resize((44, 40))
    exif, path = Image.Exif(), tmp_path / f"7.{suffix}"
    exif[ORIENTATION] = orientation
    stored.save(path, exif=exif, quality=95)
    shown = ImageOps.exif_transpose(Image.open(path))
    assert np.array_equal(pixels_of(path), np.asarray(shown))
    assert measure_shown_image(path) == shown.size


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*junk", b"no exif"])
def test_damaged_exif_data_turn_nothing(tmp_path: Path, exif: bytes) -> None:
    picture(tmp_path / "7.jpg", 44, 40)
    Image.open(tmp_path / "7.jpg").copy().save(tmp_path / "8.jpg", exif=exif, quality=95)
    assert pixels_of(tmp_path / "8.jpg").shape == (40, 44, 3)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "link"])
def test_corrupt_image_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "7.jpg"
    picture(path, 40, 40)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "text": b"no picture"}.get(damage, b""))
    if damage == "link":
        path.unlink()
        path.symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match=r"/7\.jpg cannot be decoded \(.*\): copy it again"):
        open_image(path)


def test_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x\.png is a folder, pipe,"):
        open_image(tmp_path / "x.png", header_only=True)
