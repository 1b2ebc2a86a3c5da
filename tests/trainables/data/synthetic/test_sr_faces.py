"""Drawn faces in VGGFace2's layout: exact landmarks, drawn once and again if damaged."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from study.errors import InputError
from tests.trainables.small_sr_faces import (
    HEADERS,
    rank_by_hash,
    table_path,
)
from trainables.data.arrays.cache import get_cache_folder
from trainables.data.arrays.landmarks import compute_component_boxes
from trainables.data.synthetic import sr_faces as drawn_sr_faces
from trainables.data.synthetic.face_drawing import draw_face
from trainables.data.synthetic.sr_faces import DrawnSrFaces
from trainables.data.vggface2 import VGGFace2

DRAWN = DrawnSrFaces(train=5, val=2, test=3, size=48)


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
    for image, boxes, name in zip(loaded.test.images, loaded.test.boxes, rank_by_hash(faces), strict=True):
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
