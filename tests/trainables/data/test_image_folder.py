"""Folders of one's own images, good and bad."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from study.errors import InputError
from study.identity import describe
from study.task import Plan
from tests.trainables import small
from tests.trainables.small_images import CLASSES, COUNT, write_images
from tests.trainables.small_sr_faces import assert_refused, picture
from trainables.data.arrays import decoding, lazy_images, memmap
from trainables.data.arrays.duplicates import describe_duplicates, find_duplicates
from trainables.data.arrays.labelled_images import Shares
from trainables.data.image_folder import ImageFolder
from trainables.export.onnx import export_student
from trainables.export.restore import TrainedTrial
from trainables.losses.none import NoDistillation
from trainables.task import prefetch
from trainables.tasks import preflight
from trainables.tasks.classification import examples
from trainables.tasks.classification.examples import MappedImages, ResidentImages
from trainables.tasks.classification.task import Classification
from trainables.training.mixing import Mixed
from trainables.training.views import CropFlip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    write_images(tmp_path / "photos", COUNT)
    return tmp_path / "photos"


@pytest.fixture
def split(tmp_path):
    for number, name in enumerate(("train", "val", "test")):
        write_images(tmp_path / "split" / name, 6 - number, first=10 * number)
    return tmp_path / "split"


def split_of(path: Path, val: float, test: float) -> str:
    return Shares(val, test).choose_split(hashlib.sha256(path.read_bytes()).hexdigest())


# -- folders


def test_classes_are_folders_in_the_order_of_their_names(root):
    images = ImageFolder(root, size=8).load()
    assert images.class_names == CLASSES
    assert images.classes == 3
    assert images.train_images.shape[1:] == (3, 8, 8)
    assert len(images.train_images) + len(images.test_images) == 3 * COUNT


def test_split_follows_from_the_content_alone(root):
    files = sorted(root.rglob("*.png"))
    expected = {name: [path for path in files if split_of(path, 0.2, 0.3) == name] for name in ("train", "val", "test")}
    images = ImageFolder(root, val=0.2, test=0.3, size=8).load()
    assert images.own_validation == len(expected["val"]) > 0
    assert len(images.test_images) == len(expected["test"]) > 0
    for image, path in zip(images.train_images, [*expected["train"], *expected["val"]], strict=True):
        assert np.array_equal(image, decode(path))
    before = images.test_images.copy()
    for path in expected["test"]:
        path.rename(path.with_name(f"renamed {path.name}"))
    renamed = ImageFolder(root, val=0.2, test=0.3, size=8).load()
    assert sorted(image.tobytes() for image in renamed.test_images) == sorted(image.tobytes() for image in before)


def decode(path: Path, size: int = 8) -> np.ndarray:
    """Return the middle square of an image, by other means than the module's."""
    image = Image.open(path).convert("RGB")
    side, (width, height) = min(image.size), image.size
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box)).transpose(2, 0, 1)


def test_splits_of_their_own_are_kept(split):
    images = ImageFolder(split, "train", "val", "test", size=8).load()
    assert (len(images.train_images), images.own_validation, len(images.test_images)) == (33, 15, 12)
    task = dataclasses.replace(small.TASK, data=ImageFolder(split, "train", "val", "test", size=8))
    sizes = {name: len(task.positions(name)) for name in ("train", "val", "train+val", "test")}
    assert sizes == {"train": 18, "val": 15, "train+val": 33, "test": 12}
    assert set(task.positions("train").tolist()).isdisjoint(task.positions("val").tolist())
    first = sorted((split / "val").rglob("*.png"))[0]
    assert np.array_equal(images.train_images[18], decode(first))


def test_task_divides_the_pool_of_data_without_a_validation_split(root):
    task = dataclasses.replace(small.TASK, data=ImageFolder(root, size=8), validation=0.25)
    pool = len(task.positions("train+val"))
    assert len(task.positions("val")) == round(0.25 * pool)
    assert task.loaded.own_validation == 0


def test_folders_may_be_given_without_a_root(split, monkeypatch):
    monkeypatch.chdir(split.parent)
    given = ImageFolder(train="split/train", val="split/val", test=split / "test", size=8)
    assert len(given.load().test_images) == 12
    assert given.load().name == ImageFolder("split", train="train", test="test", size=8).load().name == "split"
    assert ImageFolder(train="split/train", size=8).load().name == "split/train"


def test_images_are_grey_if_asked(root):
    images = ImageFolder(root, size=8, grey=True).load()
    assert images.train_images.shape[1:] == (1, 8, 8)
    assert len(images.mean) == len(images.std) == 1


def test_normalisation_is_of_training_images_alone(split):
    images = ImageFolder(split, "train", "val", "test", size=8).load()
    scaled = images.train_images[:18].astype(np.float64) / 255
    assert images.mean == pytest.approx(scaled.mean(axis=(0, 2, 3)))
    assert images.std == pytest.approx(scaled.std(axis=(0, 2, 3)))


def test_images_are_decoded_once_until_a_file_changes(root, monkeypatch):
    first = ImageFolder(root, size=8).load()
    assert isinstance(first.train_images, np.memmap)
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "open_image", lambda *_, **__: pytest.fail("decoded again"))
        assert ImageFolder(root, size=8).load().fingerprint == first.fingerprint
    picture(root / "ant" / "0.png", 9, 9, seed=999)
    assert ImageFolder(root, size=8).load().fingerprint != first.fingerprint


def test_full_disk_names_the_way_out(root, monkeypatch):
    monkeypatch.setattr(memmap.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 0))
    assert_refused(ImageFolder(root, size=8), "or a smaller size, or decode images when they are needed, cache=False")
    assert len(ImageFolder(root, size=8, cache=False).load().train_images[:2]) == 2


def test_damaged_cache_is_made_again(root, cache):
    first = ImageFolder(root, size=8).load().fingerprint
    (images,) = cache.rglob("images.npy")
    images.write_bytes(images.read_bytes()[:-5])
    assert ImageFolder(root, size=8).load().fingerprint == first


def test_location_is_no_part_of_the_identity(root, tmp_path):
    shutil.copytree(root, tmp_path / "moved")
    one, other = ImageFolder(root, size=8), ImageFolder(tmp_path / "moved", size=8)
    assert describe(one) == describe(other)
    assert one.load().fingerprint == other.load().fingerprint


def test_file_in_two_classes_is_named(root):
    shutil.copy(root / "ant" / "0.png", root / "bee" / "same.png")
    assert (
        "1 image in two classes, such as ant/0.png (ant) and bee/same.png (bee)"
        in ImageFolder(root, size=8).load().note
    )


@pytest.mark.parametrize(
    ("name", "options"), [("other.png", {"compress_level": 0}), ("other.PNG", {"optimize": True}), ("other.jpg", {})]
)
def test_picture_in_two_classes_is_named_however_it_is_stored(root, name, options):
    plain = Image.new("RGB", (16, 16), (40, 90, 200))
    plain.save(root / "ant" / "plain.png")
    plain.save(root / "bee" / name, quality=100, **options)
    with_alpha = plain.convert("RGBA")
    with_alpha.save(root / "bee" / "alpha.png")
    note = ImageFolder(root, size=8).load().note
    if name.endswith("jpg"):  # of other pixels
        assert "1 image in two classes, such as ant/plain.png (ant) and bee/alpha.png (bee)" in note
    else:
        assert "2 images in two classes, such as ant/plain.png (ant) and bee/alpha.png (bee)" in note


def describe_splits(data: ImageFolder) -> str:
    hashes = preflight._load_hashes(dataclasses.replace(small.TASK, data=data))
    return describe_duplicates(find_duplicates(hashes), hashes)


def test_equal_files_share_a_split_and_images_in_two_splits_are_named(split):
    shutil.copy(split / "train" / "ant" / "0.png", split / "test" / "ant" / "same.png")
    found = describe_splits(ImageFolder(split, "train", "val", "test", size=8))
    assert "1 of 13 test images occur in training or validation (test/ant/same.png is train/ant/0.png)" in found


def test_large_images_that_look_alike_are_named(tmp_path):
    for name in ("train", "test"):
        for label, seed in (("a", 1), ("b", 2)):
            for number in range(2):
                file = tmp_path / "large" / name / label / f"{name}{number}.jpg"
                picture(file, 96, 96, seed=seed + 5 * (name == "test") + 10 * number)
    Image.open(tmp_path / "large/train/a/train0.jpg").save(tmp_path / "large/test/a/again.jpg", quality=80)
    data = ImageFolder(tmp_path / "large", "train", val="test", test="test", size=96)
    assert describe_splits(data) == (
        "1 of 5 validation images look like one in training (test/a/again.jpg is like train/a/train0.jpg); "
        "5 of 5 test images occur in training or validation (test/a/again.jpg is test/a/again.jpg, and 4 more)"
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root), "is not a folder; give the folder of the images with root= or --data-dir"),
        (lambda root: [shutil.rmtree(root / name) for name in CLASSES], r"has no \.jpg, \.jpeg, \.png"),
        (lambda root: [shutil.rmtree(root / name) for name in CLASSES[1:]], "has images of 1 classes"),
        (
            lambda root: (root / "dog").mkdir(),
            r"dog has no \.jpg, \.jpeg, \.png: add images of this class, or remove it",
        ),
        (lambda root: picture(root / "loose.png", 9, 9), "loose.png lies in no class's folder"),
        (lambda root: (root / "ant" / "bad.png").write_bytes(b"no image"), "bad.png cannot be decoded"),
        (lambda root: Image.new("CMYK", (9, 9)).save(root / "ant" / "x.jpg"), "x.jpg is of Pillow's mode CMYK"),
    ],
)
def test_folder_that_cannot_be_used_is_refused(root, spoil, message):
    spoil(root)
    assert_refused(ImageFolder(root, size=8), message)


def test_all_files_that_cannot_be_decoded_are_named_at_once(root):
    for file in ("ant/1.png", "bee/2.png", "cat/3.png"):
        (root / file).write_bytes(b"no image")
    with pytest.raises(InputError) as refused:
        ImageFolder(root, size=8, cache=False).load()
    lines = str(refused.value).split("; ")
    assert {line.partition(" cannot be decoded")[0] for line in lines} == {
        str(root / file) for file in ("ant/1.png", "bee/2.png", "cat/3.png")
    }


def test_folders_of_the_system_are_no_classes(root):
    for name in (".cache", "@eaDir"):
        (root / name).mkdir()
    assert ImageFolder(root, size=8).load().class_names == CLASSES


def test_test_images_among_the_classes_are_refused(split):
    assert_refused(
        ImageFolder(split, test="test", size=8), r"test lies in .*split, whose folders are classes: give training im"
    )


def test_class_without_training_images_is_refused(split):
    write_images(split / "train", 2)
    picture(split / "test" / "dog" / "0.png", 9, 9)
    assert_refused(ImageFolder(split, "train", test="test", size=8), "of class 'dog', which .*train does not have")
    assert_refused(
        ImageFolder(split, "train", test=0.999, size=8), "class 'ant' has no training image|training and test"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 4}, "size is 4; allowed is a number of pixels, 8 or more"),
        ({"val": 0.5, "test": 0.5}, "shares of 0.5 for validation and 0.5 for test"),
        ({"train": 256}, "train is 256; .*is now called PhotoFolder"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ImageFolder(**settings)


# -- in classification


def test_mapped_images_give_the_batches_of_resident_ones(root, monkeypatch):
    task = Classification(ImageFolder(root, size=8), small.TASK.teacher, views=CropFlip(1, flip=True))
    resident = {split: task.load_examples(split, "cpu") for split in ("train", "val", "test")}
    monkeypatch.setattr(examples, "RESIDENT_BYTES", 0)
    assert not task.capturable
    for split, one in resident.items():
        mapped = task.load_examples(split, "cpu")
        assert isinstance(one, ResidentImages)
        assert isinstance(mapped, MappedImages)
        samples = task.positions("test")[:3]
        views = samples + 4
        a, b = one.batch(samples, views), mapped.batch(samples, views)
        assert (a.inputs == b.inputs).all()
        assert (a.targets == b.targets).all()


def test_students_train_on_mapped_images(root, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "RESIDENT_BYTES", 0)
    task = Classification(ImageFolder(root, size=8), small.TASK.teacher, small.RECIPE, CropFlip(1, flip=True))
    small.prepared(task, tmp_path)
    (row,) = task.train(small.job(task, tmp_path, tmp_path / "c", epochs=1))
    assert 0 <= row["metrics"]["val/accuracy"] <= 1


def test_rows_are_the_same_whether_images_are_decoded_once_or_at_each_step(root, tmp_path, cache):
    rows = []
    teacher = dataclasses.replace(small.TASK.teacher, epochs=1)
    for data in (ImageFolder(root, size=8), ImageFolder(root, size=8, cache=False, threads=2)):
        shutil.rmtree(cache, ignore_errors=True)
        task = Classification(data, teacher, small.RECIPE, CropFlip(1, flip=True))
        assert task.capturable == data.cache
        storage = tmp_path / str(data.cache)
        steps = small.prepared(task, storage, Plan(((7, "train"),), epochs=1))
        context = small.job(task, storage, storage / "c", phase="confirm", epochs=1)
        results = list(task.train(context))
        inputs = task.check((context.student,), (small.LP,), storage)
        rows.append(([small.metrics(done) for _, done in steps], small.metrics(results), inputs, describe(task)))
        assert bool([*cache.rglob("images.npy")]) == data.cache
    assert rows[0] == rows[1]


def test_mixed_images_are_decoded_ahead_in_the_order_of_their_use(root, monkeypatch):
    views = Mixed(CropFlip(1, flip=True), mixup=0.4, cutmix=1.0)
    cached, lazy = (
        Classification(ImageFolder(root, size=8, cache=cache), small.TASK.teacher, views=views)
        for cache in (True, False)
    )
    samples = torch.arange(8).split(4)
    calls = [(some, views.draw(0, 0, some)) for some in samples]
    expected = [cached.examples("train", "cpu").batch(*call) for call in calls]
    found = lazy.examples("train", "cpu")
    prefetch(found, calls)
    monkeypatch.setattr(lazy_images, "ThreadPoolExecutor", None)  # all batches are those that were announced
    for call, batch in zip(calls, expected, strict=True):
        assert torch.equal(found.batch(*call).inputs, batch.inputs)


def test_export_names_the_classes(root, tmp_path, cache):
    task = Classification(ImageFolder(root, size=8), small.TASK.teacher, small.RECIPE, CropFlip(1, flip=True))
    context = small.job(task, tmp_path, tmp_path / "c", phase="confirm", epochs=1, loss=NoDistillation())
    (row,) = task.train(dataclasses.replace(context, train_on="train+val"))
    config = {"task": describe(task), "student": describe(context.student)}
    config |= {"inputs": {"data": task.loaded.fingerprint}}
    trained = TrainedTrial(config, tmp_path / "c", {"test/accuracy": row["metrics"]["test/accuracy"]})
    shutil.rmtree(cache)
    export_student(trained, root, tmp_path / "out", {})
    assert not [*cache.rglob("images.npy")]  # an export needs few images
    about = {one.key: one.value for one in onnx.load(tmp_path / "out" / "model.onnx").metadata_props}
    assert json.loads(about["classes"]) == list(CLASSES)
    with pytest.raises(InputError, match="is not a folder"):
        export_student(trained, tmp_path / "gone", tmp_path / "out", {})


def test_class_names_are_recorded(root):
    task = dataclasses.replace(small.TASK, data=ImageFolder(root, size=8))
    assert task.data_record() == {"classes": 3, "class_names": list(CLASSES)}
    assert small.TASK.data_record() == {"classes": 10}


def test_splits_are_not_taken_for_classes(tmp_path):
    for split in ("train", "test"):
        write_images(tmp_path / "photos" / split, 2)
    with pytest.raises(InputError, match="named like splits, not classes: test, train; give each"):
        ImageFolder(tmp_path / "photos").load()
