"""VGGFace2's files, good and bad; the boxes that follow from its landmarks; drawn faces in its layout."""

from __future__ import annotations

import hashlib
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
    changed,
    dataset,
    image_path,
    kept,
    load,
    picture,
    refused,
    table_path,
    write_table,
)
from trainables.data import vggface2
from trainables.data.arrays import face_sr as sr_arrays
from trainables.data.arrays.cache import get_cache_folder
from trainables.data.arrays.face_sr import hash_to_fraction
from trainables.data.arrays.landmarks import compute_component_boxes
from trainables.data.synthetic import sr_faces as drawn_sr_faces
from trainables.data.synthetic.face_drawing import draw_face
from trainables.data.synthetic.sr_faces import DrawnSrFaces
from trainables.data.vggface2 import BOXES, LANDMARKS, VGGFace2, crop_square

SUBSET = "train faces: 8 of 24 by the hash of their names; test faces: 3 of 4 by the hash of their names"
DRAWN = DrawnSrFaces(train=5, val=2, test=3, size=48)


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


def ranked(names):
    """By SHA-256, which is told here a second time."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def chosen():
    """What six, two and three faces are: the rank of the first of eight people is validation's."""
    (held, *_) = ranked({name[:7] for name in TRAIN})
    train, val = ([name for name in TRAIN if (name[:7] == held) is own] for own in (False, True))
    return ranked(train)[:6], ranked(val)[:2], ranked(TEST)[:3]


# -- what is read


def test_faces_are_the_first_by_the_hash_of_their_names(root):
    loaded = load(root)
    assert loaded.sizes == (6, 2, 3)
    parts = (loaded.train, loaded.val, loaded.test)
    for split, part, names in zip(("train", "train", "test"), parts, chosen(), strict=True):
        assert len(part) == len(names)
        for image, name in zip(part.images, names, strict=True):
            assert np.abs(image - expected(root, split, name)).max() <= 1
    assert np.array_equal(loaded.pool.images, loaded.images[:8])
    assert len({image.tobytes() for image in loaded.images}) == 11, "so that an exchange would show"


def test_hash_is_the_same_on_every_machine():
    # printf n000001/0001_01 | sha256sum: the first 12 digits, by 16^12
    assert hash_to_fraction("n000001/0001_01") == int("f0659e6fd9d7", 16) / 16**12


def test_more_faces_are_the_same_and_others(root):
    few, many = load(root, (2, 1, 1)), load(root, (6, 2, 3))
    for split in ("train", "val", "test"):
        less, more = getattr(few, split).images, getattr(many, split).images
        assert np.array_equal(less, more[: len(less)])


def test_arrays_are_mapped_and_decoded_once(root, monkeypatch):
    first = load(root)
    assert isinstance(first.images, np.memmap)
    assert not first.images.flags.writeable
    monkeypatch.setattr(vggface2, "read_image_header", None)
    monkeypatch.setattr(sr_arrays, "open_image", None)
    again = load(root)
    assert again.fingerprint == first.fingerprint
    assert again.note == first.note == SUBSET
    assert np.array_equal(again.boxes, first.boxes)
    assert len(kept()) == 1


@pytest.mark.parametrize("change", ["image", "landmarks"])
def test_changed_files_are_seen(root, change):
    first = load(root)
    name = chosen()[0][0]
    if change == "image":
        picture(image_path(root, "train", name), WIDTH, HEIGHT, seed=77)
    else:
        changed(root, LANDMARKS, "train", [name], (31, *POINTS[1:]))
    again = load(root)
    assert again.fingerprint != first.fingerprint
    assert (again.images[0] != first.images[0]).any() == (change == "image")
    assert (again.boxes[0] != first.boxes[0]).any() == (change == "landmarks")


def test_image_that_is_gone_since_is_named(root):
    load(root)
    image_path(root, "test", chosen()[2][0]).unlink()
    with pytest.raises(InputError, match=r"n0000.*jpg cannot be decoded \(.*No such file"):
        load(root)


@pytest.mark.parametrize("damage", ["images", "boxes", "about", "not finite"])
def test_kept_arrays_that_are_damaged_are_made_again(root, damage):
    first, (folder,) = load(root), kept()
    expected = first.images.copy()
    if damage == "not finite":
        np.save(folder / "boxes.npy", np.full((11, 4, 4), np.nan, np.float32))
    else:
        (path,) = folder.glob(f"{damage}.*")
        path.write_bytes(path.read_bytes()[:-1])
    again = load(root)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.images, expected)
    assert np.isfinite(again.boxes).all()


def test_fingerprint_is_of_content_not_of_place(root, tmp_path):
    first = load(root)
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy)
    assert load(tmp_path / "copy").fingerprint == first.fingerprint
    changed(root, LANDMARKS, "train", TRAIN, (31, *POINTS[1:]))
    assert load(root).fingerprint != first.fingerprint, "of boxes too"


def test_sizes_are_kept_beside_each_other(root):
    assert load(root, size=32).fingerprint != load(root, size=48).fingerprint
    assert len(kept()) == 2


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


# -- what is left out


def test_small_faces_are_left_out_and_counted(root):
    """24 · 1.3 = 31.2 pixels are too few for 32; 25 · 1.3 = 32.5 are not."""
    small, enough = chosen()[0][:2]
    last = ranked(set(TRAIN) - set(chosen()[1]))[-1]  # not reached, but counted
    boxes = {small: (25, 22, 20, 24), enough: (25, 22, 20, 25), last: (25, 22, 24, 20)}
    write_table(root, BOXES, "train", dict.fromkeys(TRAIN, BOX) | boxes)
    loaded = load(root)
    assert loaded.note.startswith(
        "train faces: 8 of 24 by the hash of their names, 2 with less than 32 pixels left out;"
    )
    crop = (19, 18, 51, 50)  # 35 ± 16, and 34.5 ± 16 rounded to even
    assert np.abs(loaded.train.images[0] - expected(root, "train", enough, crop=crop)).max() <= 1


def test_face_whose_image_is_too_small_for_its_box_is_left_out_and_counted(root):
    picture(image_path(root, "test", chosen()[2][0]), 31, 70)
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
    changed(root, LANDMARKS, "train", chosen()[0][:2], points)
    loaded = load(root)
    assert "8 of 24 by the hash of their names, 2 with landmarks that are no upright face's left out;" in loaded.note
    assert loaded.sizes == (6, 2, 3)


def test_grey_images_are_in_three_channels_and_counted(root):
    name = chosen()[0][0]
    picture(image_path(root, "train", name), WIDTH, HEIGHT, mode="L")
    loaded = load(root)
    assert "8 of 24 by the hash of their names, 1 grey; test" in loaded.note
    assert np.array_equal(loaded.images[0][0], loaded.images[0][2])


# -- bad input


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"test": 0}, {"size": 31}])
def test_impossible_sets_are_refused(wrong):
    with pytest.raises(InputError, match="allowed are 1 face or more per split, 32 pixels or more"):
        VGGFace2(**wrong)


def test_missing_folder_is_named_with_where_it_was_looked_for(root):
    refused(VGGFace2(), r"VGGFace2: no data folder given; .*--data-dir")
    refused(vgg(root / "nowhere"), r"not in any of .*/nowhere, .*/nowhere/VGGFace2; .*--data-dir")
    shutil.rmtree(root / "test")
    refused(vgg(root), r"VGGFace2 \(train/, test/\) is not in any of")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("table", [BOXES, LANDMARKS])
def test_missing_table_is_named_with_where_it_was_looked_for(root, table, split):
    table_path(root, table, split).unlink()
    file = table.format(split)
    refused(vgg(root), rf"neither .*/bb_landmark/{file} nor .*/meta/bb_landmark/{file} exists: add")


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
    refused(vgg(root), rf"loose_landmark_train\.csv: {match}")


@pytest.mark.parametrize("content", ["", HEADERS[BOXES] + "\n", "\n\n"])
def test_table_without_rows_is_named(root, content):
    table_path(root, BOXES, "test").write_text(content)
    refused(vgg(root), r"loose_bb_test\.csv has no rows of a name and 4 numbers")


def test_table_that_is_no_text_is_refused(root):
    table_path(root, BOXES).write_bytes(bytes(range(256)) * 20)
    refused(vgg(root), r"loose_bb_train\.csv")


def test_face_without_landmarks_is_named(root):
    name = chosen()[0][3]
    changed(root, LANDMARKS, "train", [name], None)
    refused(vgg(root), rf"train/{name}\.jpg has no row {name} in .*/loose_landmark_train\.csv: copy the table again")


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
    changed(root, LANDMARKS, split, names, points)
    refused(
        vgg(root),
        rf"loose_landmark_{split}\.csv: n0000\d\d/000\d_01 has {what}, and so for \d+ of \d+ faces: the columns "
        "are in another order; expected are x and y of left eye, right eye, nose",
    )


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing"])
def test_corrupt_image_is_named(root, damage):
    path = image_path(root, "test", chosen()[2][1])
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "text": b"no picture"}.get(damage, b""))
    if damage == "missing":
        path.unlink()
    refused(vgg(root), rf"{path.name} cannot be decoded \(.*\): copy it again")


@pytest.mark.parametrize(("sizes", "split"), [((22, 2, 3), "train"), ((6, 4, 3), "val"), ((6, 2, 5), "test")])
def test_fewer_faces_than_asked_for_are_told(root, sizes, split):
    there = {"train": 21, "val": 3, "test": 4}[split]
    refused(vgg(root, sizes), rf"has {there} faces of 32 pixels or more for {split}, {there + 1} were asked for")


# -- boxes


def test_boxes_follow_from_landmarks(root):
    """By hand, at 52 pixels, where nothing is resized: points less (14, 8)."""
    boxes = load(root, size=52).boxes
    assert boxes.shape == (11, 4, 4)
    assert boxes.dtype == np.float32
    left, right, nose, mouth = np.array([18, 20.0]), np.array([34, 21.0]), np.array([26, 30.0]), np.array([26.5, 38.5])
    d = np.sqrt(16**2 + 1)
    raised = np.array([0, 0.15 * d])
    for box, middle, half in zip(
        boxes[0], (left - raised, right - raised, nose - raised, mouth), (0.45, 0.45, 0.35, 0.6), strict=True
    ):
        assert np.allclose(box, [*(middle - half * d), *(middle + half * d)], atol=1e-5)
    assert np.allclose(load(root, size=32).boxes, boxes * 32 / 52, atol=1e-5)


coordinates = st.floats(0, 100)


@settings(max_examples=100, deadline=None)
@given(points=st.lists(coordinates, min_size=10, max_size=10), size=st.sampled_from([32, 64, 256]))
def test_boxes_lie_in_the_image_and_are_never_empty(points, size):
    boxes = compute_component_boxes([points], [(0, 0, 100, 100)], size)[0]
    assert boxes.min() >= 0
    assert boxes.max() <= size
    assert ((boxes[:, 2:] - boxes[:, :2]) > size / 64).all()


def test_boxes_of_a_profile_are_not_smaller_than_published():
    points = [50, 40, 50.1, 40, 50, 50, 50, 60, 50, 60]
    boxes = compute_component_boxes([points], [(0, 0, 100, 100)], 512)[0]
    # 16 pixels to each side at 512: the least half side of DFDNet's boxes
    assert np.allclose(boxes[:, 2:] - boxes[:, :2], 32, atol=1e-3)


# -- drawn faces


def test_drawn_set_has_the_sizes_asked_for():
    loaded = DRAWN.load()
    assert loaded.sizes == (5, 2, 3)
    assert (loaded.name, loaded.note, loaded.complete) == ("drawn faces", "", True)
    assert loaded.images.shape == (10, 3, 48, 48)


def test_drawn_faces_are_read_back_as_they_were_drawn():
    """Whole pictures, in the order of the hash, each with the boxes of its own components."""
    loaded = DRAWN.load()
    rng = np.random.default_rng([DRAWN.seed, 1])
    faces = {f"n{8 + number:06d}/0001_01": draw_face(rng, 48, DRAWN.looks) for number in range(3)}
    for image, boxes, name in zip(loaded.test.images, loaded.test.boxes, ranked(faces), strict=True):
        face = faces[name]
        assert np.abs(image.astype(float) - face.image.transpose(2, 0, 1)).mean() < 5, "what JPEG takes of the noise"
        assert np.allclose(boxes[:, :2] + boxes[:, 2:], face.boxes[:, :2] + face.boxes[:, 2:], atol=0.01)


def test_boxes_of_drawn_faces_cover_their_components():
    for seed in range(60):
        exact = draw_face(np.random.default_rng(seed), 64, drawn_sr_faces.LOOKS).boxes
        points = drawn_sr_faces.invert_boxes(exact).ravel().tolist()
        found = compute_component_boxes([points], [(0, 0, 64, 64)], 64)[0].astype(float)
        common = np.minimum(found[:, 2:], exact[:, 2:]) - np.maximum(found[:, :2], exact[:, :2])
        covered = common.prod(axis=1) / (exact[:, 2:] - exact[:, :2]).prod(axis=1)
        assert (covered >= [0.99, 0.99, 0.75, 0.99]).all(), "of a long nose bridge and tip are cut"


def test_layout_is_that_of_vggface2():
    folder = DRAWN.ensure_drawn()
    assert sorted(path.name for path in folder.iterdir()) == ["bb_landmark", "sha256", "test", "train"]
    assert (folder / "train/n000001/0001_01.jpg").is_file()
    assert (folder / "test/n000010/0001_01.jpg").is_file()
    for table, header in HEADERS.items():
        first, *rows = table_path(folder, table).read_text().splitlines()
        assert first == header
        assert [row.split(",")[0] for row in rows] == [f"n{person:06d}/0001_01" for person in range(1, 8)]
    assert VGGFace2(folder, 48, 4, 1, 3).load().images.shape == (8, 3, 48, 48), "the dataset's own settings read it"


def test_faces_are_drawn_once_and_the_same_everywhere(monkeypatch, tmp_path):
    first = DRAWN.load()
    with monkeypatch.context() as patch:
        patch.setattr(drawn_sr_faces, "draw_face", None)
        assert DRAWN.load().fingerprint == first.fingerprint
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DRAWN.load().fingerprint == first.fingerprint
    assert DrawnSrFaces(train=5, val=2, test=3, size=48, seed=1).load().fingerprint != first.fingerprint


def test_drawn_faces_that_are_damaged_are_drawn_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, folder = DRAWN.load().fingerprint, DRAWN.ensure_drawn()
    shutil.rmtree(folder / "train" / "n000003")
    assert DRAWN.load().fingerprint == first
    assert (folder / "train" / "n000003").is_dir()
    assert [path for path in get_cache_folder("drawn-sr-faces").iterdir() if path.suffix != ".lock"] == [folder]


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"test": 0}, {"size": 31}])
def test_impossible_drawn_sets_are_refused(wrong):
    with pytest.raises(InputError, match="allowed are 1 image or more per split, 32 pixels or more"):
        DrawnSrFaces(**wrong)
