"""Folders of photographs of faces, good and bad."""

from __future__ import annotations

import os
import shutil
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from study.errors import InputError
from study.identity import describe
from tests.trainables.small_sr_faces import assert_refused, list_cached, picture
from trainables.data.arrays.face_sr import hash_to_fraction
from trainables.data.photo_folder import LANDMARKS, PhotoFolder

FILES = [f"{number}.jpg" for number in range(30)] + ["more/1.PNG", "more/2.jpeg"]
POINTS = (13, 15, 27, 15, 20, 22, 15, 30, 25, 30)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    for number, file in enumerate(FILES):
        picture(tmp_path / "faces" / file, 40 + number % 3, 40 + number % 3, seed=number)
    return tmp_path / "faces"


def folder(root, size: int = 32, val: float = 0.2, test: float = 0.3) -> PhotoFolder:
    return PhotoFolder(root, size, val, test)


def name(file: str) -> str:
    return file.rsplit(".", 1)[0]


def split_of(file: str, val: float = 0.2, test: float = 0.3) -> str:
    share = hash_to_fraction(name(file))
    return "test" if share < test else "val" if share < test + val else "train"


def write_landmarks(root, rows) -> None:
    lines = ["NAME_ID,P1X", *(",".join(map(str, (file, *row))) for file, row in rows.items())]
    (root / LANDMARKS).write_text("\n".join(lines))


# -- what is read


def test_split_follows_from_the_name_alone(root):
    loaded = folder(root).load()
    for split in ("train", "val", "test"):
        files = sorted(file for file in FILES if split_of(file) == split)
        part = getattr(loaded, split)
        assert len(part) == len(files) > 0
        for image, file in zip(part.images, files, strict=True):
            whole = Image.open(root / file).resize((32, 32), Image.Resampling.BICUBIC)
            assert np.array_equal(image, np.asarray(whole).transpose(2, 0, 1))
    assert (loaded.name, loaded.note, loaded.complete) == ("folder faces", "splits by the hash of names", False)
    assert loaded.boxes is None
    assert loaded.train.boxes is None


def test_copies_are_in_the_split_of_their_original(root):
    """Sixty photographs and a copy of each under another name: the names alone would put both in different splits."""
    for file in FILES:
        copy = root / "copies" / f"{name(file).replace('/', '-')}.png"
        copy.parent.mkdir(exist_ok=True)
        Image.open(root / file).save(copy)  # other bytes, the same pixels
    loaded = folder(root).load()
    assert loaded.note.endswith(f", {len(FILES)} exact copies in the split of the original")
    contents = [{image.tobytes() for image in getattr(loaded, split).images} for split in ("train", "val", "test")]
    assert [2 * len(content) for content in contents] == list(loaded.sizes)
    assert len(set.union(*contents)) == sum(map(len, contents))
    by_name = {split_of(f"copies/{name(file).replace('/', '-')}.png") == split_of(file) for file in FILES}
    assert by_name == {True, False}, "so that a split by names alone would fail here"


def test_added_image_moves_no_other(root):
    before = folder(root).load()
    picture(root / "31.jpg", 50, 50, seed=99)
    after = folder(root).load()
    for split in ("train", "val", "test"):
        old, new = ({image.tobytes() for image in getattr(each, split).images} for each in (before, after))
        assert old <= new


@given(val=st.floats(0.05, 0.4), test=st.floats(0.05, 0.4))
def test_shares_are_those_of_many_names(val, test):
    found = [split_of(str(number), val, test) for number in range(2000)]
    # 2,000 draws: four standard deviations are 0.045
    assert abs(found.count("val") / 2000 - val) < 0.045
    assert abs(found.count("test") / 2000 - test) < 0.045


def test_boxes_follow_from_a_table_of_landmarks(root):
    write_landmarks(root, {name(file): POINTS for file in FILES})
    loaded = folder(root, size=40, val=0.2).load()
    sides = [40 + FILES.index(file) % 3 for file in sorted(FILES) if split_of(file) == "test"]
    # by hand, the nose: d = 14, its middle (20, 22 − 0.15·14), its half side 0.35·14
    nose = np.array([15.1, 15.0, 24.9, 24.8])
    assert np.allclose(loaded.test.boxes[:, 2], np.array([nose * 40 / side for side in sides]), atol=1e-4)
    write_landmarks(root, {name(file): (12, *POINTS[1:]) for file in FILES})
    assert folder(root, size=40).load().fingerprint != loaded.fingerprint


@pytest.mark.parametrize("inner", ["CelebA-HQ-img", "images1024x1024"])
def test_images_are_found_in_the_archives_folder(root, inner):
    shutil.copytree(root, root / inner)
    (root / "mask.png").write_bytes(b"no image of this folder is looked at")
    loaded = folder(root).load()
    assert loaded.name == f"folder {inner}"
    assert len(loaded.images) == len(FILES)


def test_hidden_files_and_other_types_are_counted_in_the_note(root):
    for file in ("._3.jpg", "90.webp", "list.csv"):
        (root / file).write_bytes(b"no picture of its own")
    loaded = folder(root).load()
    assert len(loaded.images) == len(FILES)
    assert loaded.note == (
        "splits by the hash of names, 1 hidden files and thumbnails left out, "
        "1 images of other types than .jpg, .jpeg, .png left out"
    )


NAMES = ["ü", "数 据", "a'b\"c", "%s", "-x", "two\nlines", "[1]", "x" * 240,
         "é".encode("latin-1").decode(errors="surrogateescape")]  # fmt: skip


def test_any_file_name_is_read(root):
    written = 0
    for number, name in enumerate(NAMES):
        try:
            picture(root / f"{name}.jpg", 40, 40, seed=90 + number)
            written += 1
        except OSError:
            continue  # this file system has no such names
    assert written > 6
    for _ in range(2):  # the second time from the cache
        assert len(folder(root).load().images) == len(FILES) + written


def test_pipe_is_refused_instead_of_waited_for(root):
    os.mkfifo(root / "x.png")
    assert_refused(folder(root), r"x\.png is a folder, pipe,")


def test_names_of_landmarks_may_be_composed_in_another_way(root):
    picture(root / unicodedata.normalize("NFD", "zoë.png"), 40, 40, seed=77)
    names = [name(file) for file in FILES]
    write_landmarks(root, dict.fromkeys((*names, "zoë"), POINTS))
    assert sum(folder(root).load().sizes) == len(FILES) + 1


def test_grey_images_are_in_three_channels_and_counted(root):
    file = next(file for file in sorted(FILES) if split_of(file) == "train")
    picture(root / file, 40, 40, mode="L")
    loaded = folder(root).load()
    assert loaded.note == "splits by the hash of names, 1 grey images"
    assert np.array_equal(loaded.images[0][0], loaded.images[0][2])


def test_images_are_decoded_once(root, monkeypatch):
    first = folder(root).load()
    monkeypatch.setattr("trainables.data.arrays.face_sr.open_image", None)
    assert folder(root).load().fingerprint == first.fingerprint
    assert len(list_cached()) == 1


def test_place_is_no_part_of_what_the_data_are(root):
    assert describe(PhotoFolder(root)) == describe(PhotoFolder()) != describe(PhotoFolder(val=0.2))


# -- bad input


@pytest.mark.parametrize("wrong", [{"val": 0.0}, {"test": 0.0}, {"val": 0.5, "test": 0.5}, {"size": 31}])
def test_impossible_sets_are_refused(wrong):
    with pytest.raises(InputError, match="allowed are 32 pixels or more, and shares val and test above 0"):
        PhotoFolder(**wrong)


def test_missing_folder_is_named(root):
    assert_refused(PhotoFolder(), r"photo folder: no data folder given; .*--data-dir")
    assert_refused(folder(root / "nowhere"), r"photo folder: .*/nowhere is not a folder; .*--data-dir")
    (root / "empty").mkdir()
    assert_refused(folder(root / "empty"), r"/empty has no \.jpg, \.jpeg, \.png: give the folder")


def test_folder_of_copies_alone_is_refused_with_their_number(root):
    for file in FILES:
        if file != FILES[0]:
            (root / file).write_bytes((root / FILES[0]).read_bytes())
    assert_refused(folder(root), rf"images, {len(FILES) - 1} exact copies in the split of the original: every split")


def test_empty_split_is_refused(root):
    for file in FILES:
        if split_of(file) == "val":
            (root / file).unlink()
    assert_refused(folder(root), r"has \d+ train, 0 val, \d+ test images: every split needs at least one")


@pytest.mark.parametrize("size", [(31, 31), (40, 41), (64, 32)])
def test_image_that_is_too_small_or_not_square_is_named(root, size):
    picture(root / "7.jpg", *size)
    assert_refused(folder(root), rf"/7\.jpg has {size[0]} × {size[1]} pixels; allowed are squares of 32 pixels or more")


def test_image_is_turned_as_its_exif_data_say(root):
    stored = Image.fromarray(np.random.default_rng(5).integers(0, 255, (5, 5, 3), dtype=np.uint8)).resize((40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(root / "7.jpg", exif=exif, quality=95)
    shown = ImageOps.exif_transpose(Image.open(root / "7.jpg")).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.asarray(shown).transpose(2, 0, 1).tobytes() in {image.tobytes() for image in folder(root).load().images}


def test_image_without_one_colour_a_pixel_is_refused(root):
    Image.new("RGBA", (40, 40)).save(root / "7.png")
    assert_refused(folder(root), r"/7\.png is of Pillow's mode RGBA, with transparency; allowed are RGB and L \(grey\)")


def test_image_that_is_turned_has_the_size_that_a_viewer_shows(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (41, 40)).save(root / "7.jpg", exif=exif)
    assert_refused(folder(root), r"/7\.jpg has 40 × 41 pixels")


def test_all_unusable_images_are_counted(root):
    for file in ("7.jpg", "8.jpg", "more/1.PNG"):
        picture(root / file, 31, 31)
    assert_refused(folder(root), r"/7\.jpg has 31 × 31 pixels; .*; 2 more images cannot be used$")


@pytest.mark.parametrize("damage", ["truncated", "link"])
def test_corrupt_image_is_named(root, damage):
    path = root / "7.jpg"
    path.write_bytes(path.read_bytes()[:400])
    if damage == "link":
        path.unlink()
        path.symlink_to(root / "nowhere.jpg")
    assert_refused(folder(root), r"/7\.jpg cannot be (decoded|read) \(.*\): copy it again")


def test_table_as_excel_saves_it_has_its_first_row(root):
    write_landmarks(root, {name(file): POINTS for file in FILES})
    plain, table = folder(root).load(), root / LANDMARKS
    rows = table.read_text().splitlines()[1:]
    table.write_text("\r\n".join(rows), encoding="utf-8-sig")  # which begins with a byte order mark
    assert (folder(root).load().boxes == plain.boxes).all()


def test_image_without_landmarks_is_named(root):
    write_landmarks(root, {name(file): POINTS for file in FILES if file != "7.jpg"})
    assert_refused(
        folder(root),
        r"/7\.jpg has no row 7 \(its name without suffix\) in .*/landmarks\.csv: add it, or remove the image",
    )


@pytest.mark.parametrize(
    ("points", "what"),
    [
        ((27, 15, 13, 15, *POINTS[4:]), "its left eye right of its right eye"),
        ((13, 30, 27, 30, 20, 22, 15, 15, 25, 15), "its eyes below its mouth"),
        ((13, 15, 27, 15, 20, 22, 15, 30, 45, 30), "a landmark outside its image"),
    ],
)
def test_landmarks_that_are_no_upright_faces_are_refused(root, points, what):
    write_landmarks(root, {name(file): POINTS for file in FILES} | {"7": points})
    assert_refused(
        folder(root), rf"landmarks\.csv: 7 has {what}: .*columns are in another order; expected are x and y of left"
    )


@pytest.mark.parametrize("content", ["", "name,x", "7,1,2,3\n8,1", "a,b\n7" + ",1" * 9])
def test_malformed_landmarks_are_named(root, content):
    (root / LANDMARKS).write_text(content)
    assert_refused(
        folder(root), r"landmarks\.csv(: line 2, .* is not a name and 10 numbers| has no rows of a name and 10 numbers)"
    )
