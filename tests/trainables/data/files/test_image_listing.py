"""The images below a folder: their suffixes, links, and files that are left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from study.errors import InputError
from trainables.data.files.image_listing import ImageListing

FILES = ["1.jpg", "2.jpeg", "more/1.PNG"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for file in FILES:
        write(tmp_path / "photos" / file)
    return tmp_path / "photos"


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def assert_listed(root: Path, further: int = 0, left_out: str = "") -> None:
    listing = ImageListing(root)
    assert len(listing.files) == len(FILES) + further
    assert set(FILES) <= set(listing.files)
    assert listing.describe_left_out() == left_out


HIDDEN = ["._3.jpg", ".hidden/1.jpg", "more/.thumbnails/a/2.png", "__MACOSX/._1.jpg", "more/@eaDir/1.jpg/SYNO.jpg",
          ".ipynb_checkpoints/3.jpeg", "#recycle/4.jpg", "__MACOSX/faces/5.PNG"]  # fmt: skip


@pytest.mark.parametrize("file", HIDDEN)
def test_shadow_files_and_thumbnails_are_left_out_and_counted(root: Path, file: str) -> None:
    write(root / file)
    assert_listed(root, left_out=", 1 hidden files and thumbnails left out")


@pytest.mark.parametrize("file", ["LICENSE.txt", "Thumbs.db", ".DS_Store", "desktop.ini", "more/list.csv", "7.jpg.md5"])
def test_files_that_are_no_images_are_left_alone(root: Path, file: str) -> None:
    write(root / file)
    assert_listed(root)


@pytest.mark.parametrize("suffix", ["webp", "bmp", "TIF", "gif", "heic", "jfif"])
def test_images_of_other_types_are_counted(root: Path, suffix: str) -> None:
    write(root / f"90.{suffix}")
    assert_listed(root, left_out=", 1 images of other types than .jpg, .jpeg, .png left out")


@pytest.mark.parametrize("suffix", ["JPG", "Jpg", "JPEG", "jpeg", "PNG", "Png"])
def test_spelling_of_suffixes_does_not_matter(root: Path, suffix: str) -> None:
    write(root / f"90.{suffix}")
    assert_listed(root, further=1)


def test_linked_folders_are_followed(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a" / "90.jpg")
    write(tmp_path / "further" / "91.jpg")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "a" / "on").symlink_to(tmp_path / "further")
    assert_listed(root, further=2)


@pytest.mark.parametrize("target", [".", "more", ".."])
@pytest.mark.parametrize("link", ["again", "more/again"])
def test_links_within_the_folder_repeat_nothing(root: Path, target: str, link: str) -> None:
    (root / link).symlink_to(".." if target == ".." else root / target)
    assert_listed(root)


@pytest.mark.parametrize("target", ["nowhere", "more/links"])
def test_links_that_lead_nowhere_are_counted(root: Path, target: str) -> None:
    (root / "more" / "links").symlink_to("../more/links")
    (root / "photos of the second disk").symlink_to(target)
    assert_listed(root, left_out=", 2 links that lead nowhere left out")


def test_folder_that_is_a_link_is_read(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert_listed(tmp_path / "link")


def test_linked_images_are_read(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere.jpg")
    (root / "90.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    assert_listed(root, further=1)


def test_unreadable_folder_inside_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = os.walk

    def failing(top, onerror):
        onerror(PermissionError(13, "Permission denied", f"{top}/more"))
        return walk(top)

    monkeypatch.setattr("os.walk", failing)
    with pytest.raises(InputError, match=r"/more cannot be read \(Permission denied\)"):
        ImageListing(root)
