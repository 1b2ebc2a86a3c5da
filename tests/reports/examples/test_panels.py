"""Examples in the report: one row per panel, equal colours for equal numbers, damaged files named."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from reports.build import build
from reports.examples.images import LOSSLESS_SIDE, MAX_PAGE_PIXELS, get_label_colour, make_galleries
from reports.examples.panels import PANELS_FILE, Exhibition, NetPanels, Panel, load_exhibitions
from reports.load import load_study
from tests.reports.fake_study import Writer

CLASSES = ("background", "skin", "<b>nose</b>")


def make_entry(name, kind, caption="", scale="", classes=()):
    given = kind != "map"
    return {"name": name, "kind": kind, "caption": caption, "given": given, "scale": scale, "classes": classes}


def panels(level=1.0, side=24, caption="7.0 people"):
    """One example's: an image, its labels, a map."""
    ramp = np.linspace(0, level, side * side, dtype=np.float16).reshape(side, side)
    return [
        (make_entry("input", "image"), noise(side)),
        (make_entry("truth", "labels", classes=CLASSES), labels(side)),
        (make_entry("density", "map", caption, scale="people"), ramp),
    ]


def noise(side):
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def labels(side):
    return (np.arange(side * side, dtype=np.uint8) % 3).reshape(side, side)


def keep(folder, shown, examples=2):
    folder.mkdir(parents=True, exist_ok=True)
    about, arrays = [], {}
    for example in range(examples):
        for position, (entry, values) in enumerate(shown):
            key = f"{example}/{position}"
            about.append({"key": key, "example": example, **entry})
            arrays[key] = values
    np.savez_compressed(folder / PANELS_FILE, about=np.array(json.dumps(about)), **arrays)


@pytest.fixture
def shown(writer: Writer):
    """A study whose teacher and arms keep exhibits: the teacher's maps reach 4, the arms' reach 1, 2 and 3."""
    folder = writer.fill().write()
    study = json.loads((folder / "study.json").read_text())
    study["teacher"]["fingerprint"] = "abc"
    (folder / "study.json").write_text(json.dumps(study))
    keep(folder.parent / "teachers" / "abc", panels(4.0))
    confirmed = load_study(folder).confirmed
    for level, arm in enumerate(writer.arms, 1):
        first = confirmed[(confirmed["arm"] == arm) & (confirmed["number"] == 0)]["trial_id"].item()
        keep(folder / "checkpoints" / first, panels(float(level), caption=f"{arm} <i>"))
    return folder


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_examples_are_in_a_row_with_the_teacher_first_then_arms_in_study_order(shown):
    (gallery,) = make_galleries(load_exhibitions(load_study(shown)))
    assert [example.title for example in gallery.examples] == ["Example 1", "Example 2"]
    lines = dict(gallery.examples[0].rows)
    assert [picture.of for picture in lines["the example"]] == ["input", "truth"]
    assert [one.of for one in lines["density"]] == ["teacher: resnet20", "none", "DKD", "DKD + LP searched"]
    assert [one.caption for one in lines["density"]] == ["7.0 people", "none <i>", "DKD <i>", "DKD + LP searched <i>"]
    assert [name for name, _ in gallery.legend] == list(CLASSES)


def test_legend_has_the_classes_of_all_examples():
    both = [
        Panel(example, "labels", "labels", "", False, "", classes, labels(24))
        for example, classes in enumerate((CLASSES, (*CLASSES, "ignored")))
    ]
    (gallery,) = make_galleries([Exhibition("resnet8", (), (NetPanels("teacher", tuple(both)),), ())])
    assert [name for name, _ in gallery.legend] == [*CLASSES, "ignored"]


def test_equal_numbers_have_equal_colours_in_all_maps_of_a_scale(shown):
    (gallery,) = make_galleries(load_exhibitions(load_study(shown)))
    teacher, weakest, *_ = (opened(one.uri).convert("RGB") for one in dict(gallery.examples[0].rows)["density"])
    teacher, weakest = np.asarray(teacher, dtype=int), np.asarray(weakest, dtype=int)
    side = 24
    # the teacher's map reaches 4 where the weakest reaches 1: its first quarter has all the weakest one's numbers
    for share in (0.2, 0.5, 0.9):
        place, fourth = divmod(int(share * side * side), side), divmod(int(share * side * side / 4), side)
        assert np.abs(weakest[place] - teacher[fourth]).max() <= 3
    assert teacher[-1, -1].sum() > 2 * weakest[-1, -1].sum()


def test_classes_of_a_face_have_distinct_colours():
    colours = np.array([[int(get_label_colour(index)[at : at + 2], 16) for at in (1, 3, 5)] for index in range(19)])
    apart = np.abs(colours[:, None] - colours).sum(axis=2)
    assert apart[~np.eye(19, dtype=bool)].min() > 40


def test_small_images_are_kept_without_loss(shown):
    (gallery,) = make_galleries(load_exhibitions(load_study(shown)))
    picture = dict(gallery.examples[0].rows)["the example"][0]
    np.testing.assert_array_equal(np.asarray(opened(picture.uri)), noise(24))


def test_large_pictures_are_made_smaller_until_the_page_holds_them(shown, writer):
    confirmed = load_study(shown).confirmed
    for trial in confirmed[confirmed["number"] == 0]["trial_id"]:
        keep(shown / "checkpoints" / trial, panels(side=600), examples=4)
    (gallery,) = make_galleries(load_exhibitions(load_study(shown)))
    pictures = [one for example in gallery.examples for _, line in example.rows for one in line]
    sizes = [opened(one.uri).size for one in pictures]
    assert LOSSLESS_SIDE < max(max(size) for size in sizes) < 600
    assert sum(width * height for width, height in sizes) <= MAX_PAGE_PIXELS
    assert build(shown).stat().st_size < 8e6


def test_page_shows_pictures_and_captions_stay_text(shown):
    text = build(shown).read_text(encoding="utf-8")
    images = re.findall(r"<img [^>]*>", text)
    assert len(images) == 2 * (2 + 4)
    assert all('src="data:image/' in image and 'alt="' in image for image in images)
    assert "DKD &lt;i&gt;" in text
    assert "<b>nose</b>" not in text


def test_study_without_exhibits_has_no_such_section(reported):
    assert 'id="examples"' not in (reported / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(b""),
        lambda path: np.savez(path, about=np.array("[{}]")),
        lambda path: np.savez(path, about=np.array([object()], dtype=object), allow_pickle=True),
        lambda path: keep(path.parent, [(panels()[0][0], labels(5))]),
    ],
    ids=["truncated", "empty", "words missing", "pickled", "another shape"],
)
def test_damaged_file_is_named_and_the_rest_is_shown(shown, damage):
    damage(shown.parent / "teachers" / "abc" / PANELS_FILE)
    (gallery,) = make_galleries(load_exhibitions(load_study(shown)))
    assert len(gallery.damaged) == 1
    assert gallery.damaged[0].startswith("teacher: resnet20: abc/exhibits.npz cannot be read")
    assert [one.of for one in dict(gallery.examples[0].rows)["density"]] == ["none", "DKD", "DKD + LP searched"]
