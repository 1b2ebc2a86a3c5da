"""CelebAMask-HQ's files, good and bad."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from PIL import Image

from study.errors import InputError
from study.identity import describe
from tests.trainables.small_faces import ORIGINALS, assert_refused, dataset, image_path, labels, load, mask, mask_path
from trainables.data import celebamask
from trainables.data.celebamask import IMAGES, MAPPING, MASKS, CelebAMaskHQ

SUBSET = "2 of 24,183 train images; 2 of 2,993 val images; 2 of 2,824 test images"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    return dataset(tmp_path / "CelebAMask-HQ")


# -- what is read


def test_splits_follow_the_second_column_of_the_mapping(root):
    loaded = load(root)
    assert loaded.sizes == (2, 2, 2)
    numbers = [3, 7, 0, 12, 2000, 2001]
    expected = np.stack([labels(number)[8::16, 8::16] for number in numbers])
    assert np.array_equal(loaded.samples.labels, expected)
    assert np.array_equal(loaded.train.labels, expected[:2])
    assert np.array_equal(loaded.val.labels, expected[2:4])
    assert np.array_equal(loaded.test.labels, expected[4:])
    assert np.array_equal(loaded.pool.labels, expected[:4])
    assert len({each.tobytes() for each in expected}) == 6, "so that an exchange would show"


def test_later_parts_are_painted_over_earlier_ones(root):
    face = load(root, 64).train.labels[0]
    assert np.array_equal(face, labels(3)[4::8, 4::8])
    assert set(np.unique(face)) == {0, 1, 4, 13, 17}
    assert face[100 // 8, 200 // 8] == 13, "hair over skin"
    assert face[396 // 8, 300 // 8] == 17, "neck over skin"


@pytest.mark.parametrize("size", [32, 50, 64])
def test_images_are_reduced_as_torchvision_reduces_them(root, size):
    loaded = load(root, size)
    assert loaded.train.images.shape == (2, 3, size, size)
    whole = torch.from_numpy(np.array(Image.open(image_path(root, 3)))).permute(2, 0, 1)
    expected = TF.resize(whole, [size, size], TF.InterpolationMode.BILINEAR, antialias=True)
    assert np.abs(loaded.train.images[0].astype(int) - expected.numpy()).max() <= 1


def test_grey_image_has_three_equal_channels(root):
    grey = load(root, 64).train.images[1]
    assert np.array_equal(grey[0], grey[2])
    assert np.array_equal(grey[0], np.array(Image.open(image_path(root, 7))))


def test_folder_is_found_from_the_one_that_it_lies_in(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    assert CelebAMaskHQ(".").root == root.parent
    assert load(root.parent).fingerprint == load(root).fingerprint


def test_place_is_no_part_of_what_the_data_are(root):
    assert describe(CelebAMaskHQ(root, 64)) == describe(CelebAMaskHQ(None, 64)) != describe(CelebAMaskHQ(root, 32))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "coloured", "one"])
def test_masks_of_all_modes_say_the_same(root, mode):
    expected, path = load(root).fingerprint, mask_path(root, 3, "skin")
    values = mask("skin", 3)
    if mode == "one":
        image = Image.fromarray(values // 255)
    elif mode == "P":  # what `convert("P")` makes of white is number 225, or 255, by where the image came from
        image = Image.fromarray(values).convert("RGB").convert("P")
        assert set(np.unique(image)) == {0, 225}
    elif mode == "coloured":
        image = Image.fromarray(np.stack([values, 0 * values, 0 * values], axis=2))
    else:
        image = Image.fromarray(values).convert(mode)
    image.save(path)
    assert load(root).fingerprint == expected


def test_mask_without_a_pixel_is_none(root):
    Image.fromarray(np.zeros((512, 512), np.uint8)).save(mask_path(root, 3, "hat"))
    assert np.array_equal(load(root).train.labels[0], labels(3)[8::16, 8::16])


def test_files_that_are_no_part_of_the_set_are_left_alone(root):
    (root / IMAGES / "._3.jpg").write_bytes(b"a Mac's shadow file")
    (root / IMAGES / "Thumbs.db").touch()
    (root / MASKS / "0" / "._00003_skin.png").write_bytes(b"a Mac's shadow file")
    (root / MASKS / "0" / ".DS_Store").touch()
    shutil.copy(mask_path(root, 3, "skin"), mask_path(root, 1234, "skin"))  # of an image that is not there
    (root / MASKS / "14").mkdir()
    loaded = load(root)
    assert loaded.sizes == (2, 2, 2)
    assert loaded.note == SUBSET


# -- how much there is


def test_data_is_complete_with_exactly_the_published_images(root, monkeypatch):
    assert load(root).note == SUBSET
    assert not load(root).complete
    monkeypatch.setattr(celebamask, "SIZES", (2, 3, 2))
    assert load(root).note == "2 of 3 val images"
    assert not load(root).complete
    monkeypatch.setattr(celebamask, "SIZES", (2, 2, 2))
    assert load(root).complete
    assert load(root).note == ""


def test_published_sizes_are_those_of_30000_images():
    # 24,183 / 2,993 / 2,824 of CelebAMask-HQ's own split; their sum is the dataset's
    assert celebamask.SIZES == (24_183, 2_993, 2_824)
    assert sum(celebamask.SIZES) == 30_000


def test_numbers_of_the_borders_are_the_authors():
    # s < 162771 is train and s < 182638 val in the authors' code; CelebA's own lists begin at these files, from 1
    assert (celebamask.FIRST_VAL, celebamask.FIRST_TEST) == (162_771, 182_638)
    assert sorted(ORIGINALS.values())[1:5] == [162_770, 162_771, 182_637, 182_638]


@pytest.mark.parametrize("sizes", [(3, 2, 1), (1, 3, 2), (1, 1, 1)])
def test_whole_set_that_is_split_otherwise_is_refused(root, monkeypatch, sizes):
    monkeypatch.setattr(celebamask, "SIZES", sizes)
    with pytest.raises(
        InputError, match=rf"has 2 train, 2 val, 2 test images by {MAPPING}, the dataset {sizes[0]} train"
    ):
        load(root)


@pytest.mark.parametrize("split", [(3, 7), (0, 12), (2000, 2001)])
def test_empty_split_is_refused(root, split):
    for number in split:
        image_path(root, number).unlink()
    with pytest.raises(InputError, match=r"images: every split needs at least one"):
        load(root)


# -- bad input


@pytest.mark.parametrize("size", [0, 31, 513])
def test_size_beyond_the_masks_is_refused(size):
    with pytest.raises(InputError, match=f"at {size} pixels; allowed is 32 to 512"):
        CelebAMaskHQ(None, size)


def test_missing_folder_is_named_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"no data folder given; .*--data-dir"):
        CelebAMaskHQ().load()
    with pytest.raises(InputError, match=r"not in any of .*/nowhere, .*/nowhere/CelebAMask-HQ; .*--data-dir"):
        load(tmp_path / "nowhere")


def test_empty_folder_of_images_is_named(root):
    shutil.rmtree(root / IMAGES)
    (root / IMAGES).mkdir()
    assert_refused(root, rf"{IMAGES} has no <number>\.jpg")


@pytest.mark.parametrize("part", ["0", "1"])
def test_missing_part_folder_is_named(root, part):
    shutil.rmtree(root / MASKS / part)
    assert_refused(root, rf"{MASKS}/{part} cannot be read \(No such file or directory\): unpack")


def test_missing_mapping_is_named(root):
    (root / MAPPING).unlink()
    assert_refused(root, rf"{MAPPING} cannot be read \(No such file")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "begins with ''; expected is a header `idx orig_idx orig_file`"),
        ("3 162770 162771.jpg\n", "begins with '3 162770 162771.jpg'"),
        ("<html>\n" + "x" * 500, "begins with '<html>'"),
        ("idx orig_idx orig_file\n3 162770 162771.jpg\n7 zero 1.jpg\n", r"line 3, '7 zero 1\.jpg', is malformed"),
        ("idx orig_idx orig_file\n3 162770\n", "line 2, '3 162770', is malformed"),
        ("idx orig_idx orig_file\n3 -5 1.jpg\n", "line 2, .* is malformed"),
        ("idx orig_idx orig_file\n3 ١٢ 1.jpg\n", "line 2, .* is malformed"),
        ("idx orig_idx orig_file\n3 1 2.jpg\n3 200000 200001.jpg\n", "line 3, .* is a second row for its image"),
    ],
)
def test_malformed_mapping_is_named_with_its_line(root, content, match):
    (root / MAPPING).write_text(content)
    assert_refused(root, rf"{MAPPING}.*{match}")


def test_mapping_that_is_no_text_is_refused(root):
    (root / MAPPING).write_bytes(bytes(range(128, 256)) * 20)
    assert_refused(root, rf"{MAPPING} begins with")


def test_image_without_a_row_in_the_mapping_is_named(root):
    shutil.copy(image_path(root, 3), image_path(root, 4))
    assert_refused(root, rf"/4\.jpg has no row in .*{MAPPING}")


def test_image_without_a_mask_is_named(root):
    for path in (root / MASKS / "0").glob("00012_*"):
        path.unlink()
    assert_refused(root, rf"/12\.jpg has no mask in .*{MASKS}/0: add its masks, or remove it")


@pytest.mark.parametrize("part", ["beard", "background", "SKIN", "l_eye_2"])
def test_mask_of_an_unknown_part_is_named(root, part):
    shutil.copy(mask_path(root, 3, "skin"), mask_path(root, 3, part))
    assert_refused(root, rf"00003_{part}\.png is a mask of '{part}'; allowed are skin, nose, .*cloth")


def test_mask_in_another_part_folder_is_named(root):
    mask_path(root, 3, "skin").rename(root / MASKS / "1" / "00003_skin.png")
    assert_refused(root, r"1/00003_skin\.png belongs in folder 0")


def test_folder_that_cannot_be_listed_is_named(root):
    (root / MASKS / "0" / "00003_hat.png").symlink_to(root / "nowhere")
    assert_refused(root, rf"{MASKS}/0 cannot be read \(No such file")


@pytest.mark.parametrize("size", [(64, 64), (512, 511), (1024, 1024)])
def test_mask_of_another_size_is_named(root, size):
    Image.new("L", size).save(mask_path(root, 2001, "skin"))
    assert_refused(root, rf"02001_skin\.png has {size[0]} × {size[1]} pixels; allowed is 512 × 512")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16"])
def test_mask_of_an_ambiguous_mode_is_refused(root, mode):
    Image.new(mode, (512, 512)).save(mask_path(root, 3, "skin"))
    assert_refused(root, rf"00003_skin\.png is of Pillow's mode {mode}; allowed are 1, L, P, RGB")


@pytest.mark.parametrize("palette", [[255] * 3 + [0] * 3, [0] * 6, [9] * 3 + [255] * 3])
def test_palette_in_which_black_is_not_index_0_alone_is_refused(root, palette):
    image = Image.fromarray(mask("skin", 3) // 255)
    image.putpalette(palette)
    image.save(mask_path(root, 3, "skin"))
    assert Image.open(mask_path(root, 3, "skin")).mode == "P"
    assert_refused(root, r"00003_skin\.png has a palette in which black is not index 0 alone")


@pytest.mark.parametrize("size", [(64, 65), (31, 31)])
def test_image_that_is_not_square_or_too_small_is_named(root, size):
    Image.new("RGB", size).save(image_path(root, 3))
    assert_refused(root, rf"/3\.jpg has {size[0]} × {size[1]} pixels; allowed are squares of 32 pixels or more")


@pytest.mark.parametrize("kind", ["image", "mask"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_corrupt_file_is_named(root, kind, damage):
    path = image_path(root, 2001) if kind == "image" else mask_path(root, 2001, "hair")
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "text": b"no picture", "empty": b""}[damage])
    assert_refused(root, rf"{path.name} cannot be decoded \(.*\): copy it again")
