"""Drawn faces: what is painted is what the labels and boxes say, and the dataset's own loader reads it back."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from study.errors import InputError
from trainables.data.arrays.cache import compute_checksum, get_cache_folder
from trainables.data.arrays.face_parsing import CLASSES
from trainables.data.celebamask import FIRST_TEST, FIRST_VAL, IMAGES, MAPPING, MASKS, CelebAMaskHQ
from trainables.data.synthetic import faces
from trainables.data.synthetic.face_canvas import Canvas, make_rectangle
from trainables.data.synthetic.face_drawing import AT_64_PIXELS, DrawnFace, Looks, draw_face
from trainables.data.synthetic.faces import BOXES, DrawnFaces
from trainables.models.sr.common import COMPONENTS

DRAWN = DrawnFaces(train=4, val=2, test=3, size=48)
OF_COMPONENTS = (("l_eye", "l_brow"), ("r_eye", "r_brow"), ("nose",), ("mouth", "u_lip", "l_lip"))
"""The classes in each of COMPONENTS."""

PLAIN = Looks(enlarged=1.0, glasses=0, earrings=0, necklace=0)


def drawn(seed: int, size: int = 64, looks: Looks = AT_64_PIXELS) -> DrawnFace:
    return draw_face(np.random.default_rng(seed), size, looks)


def pixels_of(face: DrawnFace, *parts: str) -> np.ndarray:
    return np.isin(face.labels, [CLASSES.index(part) for part in parts])


# -- one face


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(32, 160), enlarged=st.floats(1, 2))
def test_face_is_a_picture_with_a_class_for_each_pixel(seed, size, enlarged):
    face = drawn(seed, size, Looks(enlarged))
    assert face.image.shape == (size, size, 3)
    assert face.labels.shape == (size, size)
    assert face.image.dtype == face.labels.dtype == np.uint8
    assert face.labels.max() < len(CLASSES)
    assert {CLASSES.index(part) for part in ("background", "skin", "nose", "neck")} <= set(np.unique(face.labels))


def test_face_follows_from_its_generator_alone():
    first, again, other = drawn(1), drawn(1), drawn(2)
    for name in ("image", "labels", "boxes"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(48, 256), enlarged=st.sampled_from([1.0, 1.3, 1.7]))
def test_box_surrounds_the_pixels_of_its_component(seed, size, enlarged):
    face = drawn(seed, size, Looks(enlarged))
    for (left, top, right, bottom), parts in zip(face.boxes, OF_COMPONENTS, strict=True):
        assert 0 < left < right < size
        assert 0 < top < bottom < size
        rows, columns = np.nonzero(pixels_of(face, *parts))
        # a polygon also has the pixels that its edge runs through; those are a quarter of a final one
        assert columns.min() + 0.5 >= left - 0.5
        assert rows.min() + 0.5 >= top - 0.5
        assert columns.max() + 0.5 <= right + 0.5
        assert rows.max() + 0.5 <= bottom + 0.5


def test_box_is_no_larger_than_its_component():
    """Where nothing hides a component its pixels reach the box, but for tips narrower than a pixel."""
    for seed in range(30):
        face = drawn(seed, 256, PLAIN)
        rows, columns = np.nonzero(pixels_of(face, "nose"))
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(face.boxes[COMPONENTS.index("nose")] - found).max() <= 2.0


def test_pixel_has_the_class_of_its_middle():
    canvas = Canvas(np.random.default_rng(0), 32)
    canvas.middle, canvas.unit = np.zeros(2), 1.0
    # edges in the last fifth of a pixel and in the first fifth of another, away from their middles
    canvas.paint(make_rectangle(10.8, 5.8, 20.2, 15.2), np.full(3, 255.0), "skin", upright=True)
    rows, columns = np.nonzero(canvas.labels)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (11, 19, 6, 14)


def test_left_is_left_in_the_picture():
    for seed in range(20):
        face = drawn(seed, looks=PLAIN)
        left, right, nose, mouth = ((box[:2] + box[2:]) / 2 for box in face.boxes)
        assert left[0] < nose[0] < right[0]
        assert max(left[1], right[1]) < nose[1] < mouth[1]
        columns = [np.nonzero(pixels_of(face, part))[1].mean() for part in ("l_eye", "r_eye")]
        assert columns[0] < columns[1]


@pytest.mark.parametrize(("looks", "part"), [("glasses", "eye_g"), ("earrings", "ear_r"), ("necklace", "neck_l")])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_probabilities_are_how_often_a_class_is_seen(looks, part, probability):
    seen = [pixels_of(drawn(seed, looks=Looks(1.7, **{looks: probability})), part).any() for seed in range(60)]
    # of 60 faces 30 ± 12 at one half: three standard deviations
    assert np.mean(seen) == pytest.approx(probability, abs=0.2 if probability == 0.5 else 0.05)


def test_every_class_is_learnable_at_64_pixels():
    seen = np.array([np.bincount(drawn(seed).labels.ravel(), minlength=len(CLASSES)) for seed in range(150)])
    assert ((seen > 0).mean(axis=0) > 0.05).all()
    typical = [np.median(column[column > 0]) for column in seen.T]
    assert min(typical) >= 8, "pixels in a face that has the class"


def test_small_parts_are_enlarged():
    sizes = {
        enlarged: np.mean([pixels_of(drawn(seed, looks=Looks(enlarged)), "l_eye", "r_eye").sum() for seed in range(30)])
        for enlarged in (1.0, 1.7)
    }
    assert sizes[1.7] > 1.8 * sizes[1.0]


@pytest.mark.parametrize(
    "wrong", [{"enlarged": 0.9}, {"enlarged": 2.1}, {"glasses": 1.1}, {"earrings": -0.1}, {"necklace": 2}]
)
def test_impossible_looks_are_refused(wrong):
    with pytest.raises(InputError, match="allowed are enlarged from 1 to 2, and probabilities from 0 to 1"):
        Looks(**wrong)


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"test": 0}, {"size": 31}])
def test_impossible_sets_are_refused(wrong):
    with pytest.raises(InputError, match="allowed are 1 image or more per split, 32 pixels or more"):
        DrawnFaces(**wrong)


# -- a set of them, in the layout of the real one


def test_set_is_read_back_as_it_was_drawn():
    loaded = DRAWN.load()
    assert loaded.sizes == (4, 2, 3)
    assert (loaded.note, loaded.complete) == ("", True)
    for split, (part, count) in enumerate(((loaded.train, 4), (loaded.val, 2), (loaded.test, 3))):
        rng = np.random.default_rng([DRAWN.seed, split])
        for position in range(count):
            face = draw_face(rng, DRAWN.size, DRAWN.looks)
            assert np.array_equal(part.labels[position], face.labels)
            error = part.images[position].astype(float) - face.image.transpose(2, 0, 1)
            assert np.abs(error).mean() < 5, "what JPEG takes of the noise"


def test_layout_is_that_of_celebamask_hq():
    folder = DRAWN.ensure_drawn()
    assert sorted(path.name for path in (folder / IMAGES).iterdir()) == [f"{number}.jpg" for number in range(9)]
    header, *rows = (folder / MAPPING).read_text().splitlines()
    assert header.split() == ["idx", "orig_idx", "orig_file"]
    originals = [0, 1, 2, 3, FIRST_VAL, FIRST_VAL + 1, FIRST_TEST, FIRST_TEST + 1, FIRST_TEST + 2]
    assert [row.split() for row in rows] == [
        [str(number), str(original), f"{original + 1:06d}.jpg"] for number, original in enumerate(originals)
    ]
    covered = np.zeros((48, 48), dtype=int)
    for path in (folder / MASKS / "0").glob("00004_*.png"):
        mask = np.array(Image.open(path))
        assert set(np.unique(mask)) == {0, 255}
        covered += mask > 0
    assert covered.max() == 1, "no pixel is of two parts"


def test_boxes_lie_beside_the_images():
    with (DRAWN.ensure_drawn() / BOXES).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["component"] for row in rows] == [*COMPONENTS] * 9
    face = draw_face(np.random.default_rng([DRAWN.seed, 1]), DRAWN.size, DRAWN.looks)  # the first of val
    read = [[float(row[side]) for side in ("left", "top", "right", "bottom")] for row in rows if row["idx"] == "4"]
    assert np.allclose(read, face.boxes, atol=1e-3)


def test_more_faces_than_a_folder_takes_have_two(monkeypatch, tmp_path):
    face = drawn(0, 32)
    for number in (1999, 2000):
        faces.write_face(tmp_path, number, face)
    folders = [path.parent.name for path in sorted(tmp_path.glob(f"{MASKS}/*/*_skin.png"))]
    assert folders == ["0", "1"]


def test_real_loader_finds_drawn_faces_too_small():
    with pytest.raises(InputError, match=r"_\w+\.png has 48 × 48 pixels; allowed is 512 × 512"):
        CelebAMaskHQ(DRAWN.ensure_drawn(), 32).load()


def test_faces_are_drawn_once_and_the_same_everywhere(monkeypatch, tmp_path):
    first = DRAWN.load()
    with monkeypatch.context() as patch:
        patch.setattr(faces, "draw_face", None)
        assert DRAWN.load().fingerprint == first.fingerprint
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert DRAWN.load().fingerprint == first.fingerprint
    assert DrawnFaces(train=4, val=2, test=3, size=48, seed=1).load().fingerprint != first.fingerprint


@pytest.mark.parametrize("damage", ["image", "mask", "mapping", "boxes", "missing", "unfinished", "more"])
def test_drawn_faces_that_are_damaged_are_drawn_again(monkeypatch, tmp_path, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected, folder = DRAWN.load().fingerprint, DRAWN.ensure_drawn()
    image, mask = folder / IMAGES / "2.jpg", folder / MASKS / "0" / "00002_skin.png"
    damaged = {"image": image, "mask": mask, "mapping": folder / MAPPING, "boxes": folder / BOXES}
    if damage in damaged:
        content = damaged[damage].read_bytes()
        damaged[damage].write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    elif damage == "missing":
        mask.unlink()
    elif damage == "unfinished":
        shutil.rmtree(folder / MASKS)
    else:
        shutil.copy(image, image.with_name("9.jpg"))
    before = compute_checksum(folder)
    assert DRAWN.load().fingerprint == expected
    assert compute_checksum(folder) != before
    assert [path for path in get_cache_folder("drawn-faces").iterdir() if path.suffix != ".lock"] == [folder]


def test_faces_that_cannot_be_written_are_an_error_of_the_folder(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"drawn faces cannot be written to .*/file/kdstudy/drawn-faces \(Not a dir"):
        DRAWN.load()
