"""VGGFace2's files, good and bad: which faces are selected, cropped, left out and counted."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from study.errors import InputError
from study.identity import describe
from tests.trainables.small_sr_faces import (
    BOX,
    CROP,
    HEADERS,
    HEIGHT,
    POINTS,
    SIZE,
    TEST,
    TRAIN,
    WIDTH,
    assert_refused,
    change_rows,
    choose_faces,
    dataset,
    image_path,
    load,
    picture,
    rank_by_hash,
    table_path,
    write_table,
)
from trainables.data.vggface2 import BOXES, LANDMARKS, VGGFace2, crop_square


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    return dataset(tmp_path / "VGGFace2")


def vgg(root, sizes=(6, 2, 3), size=SIZE) -> VGGFace2:
    return VGGFace2(root, size, *sizes)


def expected(root, split, name, size=SIZE, crop=CROP):
    """The face as torchvision cuts it out and reduces it."""
    left, top, right, bottom = crop
    whole = torch.from_numpy(np.array(Image.open(image_path(root, split, name)))).permute(2, 0, 1)
    face = whole[:, top:bottom, left:right]
    return TF.resize(face, [size, size], TF.InterpolationMode.BICUBIC, antialias=True).numpy().astype(int)


def test_copy_of_a_training_face_in_validation_is_moved_to_train(root):
    """The same photograph under another person's name, as label errors leave them."""
    train, val, _ = choose_faces()
    shutil.copy(image_path(root, "train", train[2]), image_path(root, "train", val[0]))
    loaded = load(root)
    assert loaded.sizes == (7, 1, 3)
    assert "1 val face is a copy of train faces and moved to train" in loaded.note
    assert np.array_equal(loaded.train.images[6], loaded.train.images[2])
    assert not any(np.array_equal(loaded.val.images[0], image) for image in loaded.train.images)


def test_validation_of_copies_alone_is_refused(root):
    train, val, _ = choose_faces()
    for name in val:
        shutil.copy(image_path(root, "train", train[0]), image_path(root, "train", name))
    assert_refused(vgg(root), "all faces chosen for validation are copies of training faces")


def test_faces_are_the_first_by_the_hash_of_their_names(root):
    loaded = load(root)
    assert loaded.sizes == (6, 2, 3)
    parts = (loaded.train, loaded.val, loaded.test)
    for split, part, names in zip(("train", "train", "test"), parts, choose_faces(), strict=True):
        assert len(part) == len(names)
        for image, name in zip(part.images, names, strict=True):
            assert np.abs(image - expected(root, split, name)).max() <= 1
    assert np.array_equal(loaded.pool.images, loaded.images[:8])
    assert len({image.tobytes() for image in loaded.images}) == 11, "so that an exchange would show"


def test_more_faces_are_the_same_and_others(root):
    few, many = load(root, (2, 1, 1)), load(root, (6, 2, 3))
    for split in ("train", "val", "test"):
        less, more = getattr(few, split).images, getattr(many, split).images
        assert np.array_equal(less, more[: len(less)])


def test_tables_may_lie_below_meta(root, tmp_path):
    assert load(dataset(tmp_path / "other", "meta/bb_landmark")).fingerprint == load(root).fingerprint


def test_tables_are_read_with_spaces_and_without_a_header(root):
    first = load(root)
    for table in HEADERS:
        path = table_path(root, table)
        lines = path.read_text().replace(",", ", ").splitlines()[1:]
        path.write_text("\n".join(f" {line}" for line in lines))
    assert load(root).fingerprint == first.fingerprint


def test_folder_is_found_from_the_one_that_it_lies_in(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    assert VGGFace2(".").root == root.parent
    assert load(root.parent).fingerprint == load(root).fingerprint
    assert describe(VGGFace2(root)) == describe(VGGFace2()) != describe(VGGFace2(val=400))


def test_published_figures_are_of_other_faces(root):
    assert not load(root).complete


@settings(max_examples=200, deadline=None)
@given(
    box=st.tuples(*[st.integers(-40, 200)] * 2, *[st.integers(1, 200)] * 2),
    width=st.integers(20, 300),
    height=st.integers(20, 300),
)
def test_square_is_about_the_box_and_in_the_image(box, width, height):
    left, top, right, bottom = crop_square(box, width, height)
    side = right - left
    assert side == bottom - top == min(round(1.3 * max(box[2:])), width, height)
    assert min(left, top) >= 0
    assert right <= width
    assert bottom <= height
    for start, stop, middle, whole in (
        (left, right, box[0] + box[2] / 2, width),
        (top, bottom, box[1] + box[3] / 2, height),
    ):
        centred = abs((start + stop) / 2 - middle) <= 1
        moved_in = (start == 0 and middle - side / 2 < 1) or (stop == whole and middle + side / 2 > whole - 1)
        assert centred or moved_in


def test_small_faces_are_left_out_and_counted(root):
    """24 · 1.3 = 31.2 pixels are too few for 32; 25 · 1.3 = 32.5 are not."""
    small, enough = choose_faces()[0][:2]
    last = rank_by_hash(set(TRAIN) - set(choose_faces()[1]))[-1]  # not reached, but counted
    boxes = {small: (25, 22, 20, 24), enough: (25, 22, 20, 25), last: (25, 22, 24, 20)}
    write_table(root, BOXES, "train", dict.fromkeys(TRAIN, BOX) | boxes)
    loaded = load(root)
    assert loaded.note.startswith(
        "train faces: 8 of 24 by the hash of their names, 2 with less than 32 pixels left out;"
    )
    crop = (19, 18, 51, 50)  # 35 ± 16, and 34.5 ± 16 rounded to even
    assert np.abs(loaded.train.images[0] - expected(root, "train", enough, crop=crop)).max() <= 1


def test_face_whose_image_is_too_small_for_its_box_is_left_out_and_counted(root):
    picture(image_path(root, "test", choose_faces()[2][0]), 31, 70)
    assert load(root).note.endswith(
        "; test faces: 3 of 4 by the hash of their names, 1 with less than 32 pixels left out"
    )


@pytest.mark.parametrize(
    "points",
    [
        (48, 29, 32, 28, *POINTS[4:]),
        (40, 28, 40, 29, *POINTS[4:]),
        (32, 50, 48, 50, *POINTS[4:]),
        (13, *POINTS[1:]),
        (*POINTS[:-1], 61),
    ],
    ids=["mirrored", "one eye", "upside down", "beside the square", "below it"],
)
def test_face_with_landmarks_that_are_no_upright_faces_is_left_out_and_counted(root, points):
    change_rows(root, LANDMARKS, "train", choose_faces()[0][:2], points)
    loaded = load(root)
    assert "8 of 24 by the hash of their names, 2 with landmarks that are no upright face's left out;" in loaded.note
    assert loaded.sizes == (6, 2, 3)


def test_grey_images_are_in_three_channels_and_counted(root):
    name = choose_faces()[0][0]
    picture(image_path(root, "train", name), WIDTH, HEIGHT, mode="L")
    loaded = load(root)
    assert "8 of 24 by the hash of their names, 1 grey; test" in loaded.note
    assert np.array_equal(loaded.images[0][0], loaded.images[0][2])


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"test": 0}, {"size": 31}])
def test_impossible_sets_are_refused(wrong):
    with pytest.raises(InputError, match="allowed are 1 face or more per split, 32 pixels or more"):
        VGGFace2(**wrong)


def test_missing_folder_is_named_with_where_it_was_looked_for(root):
    assert_refused(VGGFace2(), r"VGGFace2: no data folder given; .*--data-dir")
    assert_refused(vgg(root / "nowhere"), r"not in any of .*/nowhere, .*/nowhere/VGGFace2; .*--data-dir")
    shutil.rmtree(root / "test")
    assert_refused(vgg(root), r"VGGFace2 \(train/, test/\) is not in any of")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("table", [BOXES, LANDMARKS])
def test_missing_table_is_named_with_where_it_was_looked_for(root, table, split):
    table_path(root, table, split).unlink()
    file = table.format(split)
    assert_refused(vgg(root), rf"neither .*/bb_landmark/{file} nor .*/meta/bb_landmark/{file} exists: add")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("n000001/0001_01,1,2,3", r"line 3, 'n000001/0001_01,1,2,3', is not a name and 10 numbers; copy it again"),
        ("n000001/0001_01" + ",1" * 11, "line 3, .* is not a name and 10 numbers"),
        ("n000001/0001_01" + ",1" * 9 + ",x", "line 3, .* is not a name and 10 numbers"),
        ("n000001/0001_01" + ",1" * 9 + ",nan", "line 3, .* is not a name and 10 numbers"),
        ("n000001/0001_01" + ",1" * 9 + ",1e999", "line 3, .* is not a name and 10 numbers"),
        ("n000001/0001_01" + ",1" * 10 + "\nn000001/0001_01" + ",1" * 10, "line 4, .* is a second row for its image"),
    ],
)
def test_malformed_table_is_named_with_its_line(root, line, match):
    path = table_path(root, LANDMARKS)
    header, first, *_ = path.read_text().splitlines()
    path.write_text("\n".join([header, first.replace("n000001/0001_01", "n000001/0009_01"), line, ""]))
    write_table(root, BOXES, "train", dict.fromkeys([*TRAIN, "n000001/0009_01"], BOX))
    assert_refused(vgg(root), rf"loose_landmark_train\.csv: {match}")


@pytest.mark.parametrize("content", ["", HEADERS[BOXES] + "\n", "\n\n"])
def test_table_without_rows_is_named(root, content):
    table_path(root, BOXES, "test").write_text(content)
    assert_refused(vgg(root), r"loose_bb_test\.csv has no rows of a name and 4 numbers")


def test_table_that_is_no_text_is_refused(root):
    table_path(root, BOXES).write_bytes(bytes(range(256)) * 20)
    assert_refused(vgg(root), r"loose_bb_train\.csv")


def test_face_without_landmarks_is_named(root):
    name = choose_faces()[0][3]
    change_rows(root, LANDMARKS, "train", [name], None)
    assert_refused(
        vgg(root), rf"train/{name}\.jpg has no row {name} in .*/loose_landmark_train\.csv: copy the table again"
    )


@pytest.mark.parametrize(
    ("points", "what"),
    [
        ((*POINTS[2:4], *POINTS[:2], *POINTS[4:]), "its left eye right of its right eye"),
        ((*POINTS[6:], *POINTS[4:6], *POINTS[:4]), "its eyes below its mouth"),
        (tuple(10 * value for value in POINTS), "a landmark outside the square about its box"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_landmarks_in_another_order_are_refused(root, split, points, what):
    names = TRAIN if split == "train" else TEST
    change_rows(root, LANDMARKS, split, names, points)
    assert_refused(
        vgg(root),
        rf"loose_landmark_{split}\.csv: n0000\d\d/000\d_01 has {what}, and so for \d+ of \d+ faces: the columns "
        "are in another order; expected are x and y of left eye, right eye, nose",
    )


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing"])
def test_corrupt_image_is_named(root, damage):
    path = image_path(root, "test", choose_faces()[2][1])
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "text": b"no picture"}.get(damage, b""))
    if damage == "missing":
        path.unlink()
    assert_refused(vgg(root), rf"{path.name} cannot be decoded \(.*\): copy it again")


@pytest.mark.parametrize(("sizes", "split"), [((22, 2, 3), "train"), ((6, 4, 3), "val"), ((6, 2, 5), "test")])
def test_fewer_faces_than_asked_for_are_told(root, sizes, split):
    there = {"train": 21, "val": 3, "test": 4}[split]
    assert_refused(vgg(root, sizes), rf"has {there} faces of 32 pixels or more for {split}, {there + 1} were asked for")
