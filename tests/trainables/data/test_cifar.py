"""The official formats, with real CIFAR-10 where it lies beside the repository and with made-up files of real size."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from study.errors import InputError
from study.identity import describe
from trainables.data.cifar import MD5, Cifar

REAL = Path(__file__).parents[4] / "shared" / "data"
needs_real = pytest.mark.skipif(
    not (REAL / "cifar-10-batches-bin").is_dir(), reason="no CIFAR-10 in shared/data beside the repository"
)


def records(count: int, labels: np.ndarray, label_bytes: int = 1, seed: int = 0) -> np.ndarray:
    """`count` records of noise with the given classes; of two label bytes the first is class // 5."""
    made = np.random.default_rng(seed).integers(0, 256, (count, label_bytes + 3072), dtype=np.uint8)
    made[:, label_bytes - 1] = labels
    if label_bytes == 2:
        made[:, 0] = labels // 5
    return made


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """Training batch 2 and the test batch."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for seed, name in enumerate(("data_batch_2.bin", "test_batch.bin")):
        records(10_000, np.arange(10_000) % 10, seed=seed).tofile(folder / name)
    return folder


# -- the binary version


@needs_real
@pytest.mark.parametrize("root", [REAL, REAL / "cifar-10-batches-bin", str(REAL)])
def test_real_cifar10_is_read_from_its_folder_or_the_one_above(root):
    images = Cifar(10, root).load()
    assert images.train_images.shape[1:] == (3, 32, 32)
    assert images.test_images.shape == (10_000, 3, 32, 32)
    assert np.bincount(images.test_labels).tolist() == [1000] * 10
    # The first test images are a cat, a ship, a ship and an airplane.
    assert images.test_labels[:4].tolist() == [3, 8, 8, 0]
    # CIFAR-10's published mean, within what a part of the training images may differ.
    assert images.train_images.mean(axis=(0, 2, 3)) / 255 == pytest.approx(images.mean, abs=0.005)


@needs_real
def test_real_cifar10_with_two_batches_says_so():
    batches = sorted(path.name for path in (REAL / "cifar-10-batches-bin").glob("data_batch_*.bin"))
    if batches != ["data_batch_1.bin", "data_batch_2.bin"]:
        pytest.skip("shared/data holds other batches than 1 and 2")
    images = Cifar(10, REAL).load()
    assert images.train_images.shape == (20_000, 3, 32, 32)
    assert images.note == "20,000 of 50,000 training images (data_batch_1.bin, data_batch_2.bin)"
    # Golden: of the files with MD5 5dd7e06a…, 5ea93a67… and, for test, 803d5f7f….
    assert images.fingerprint == "a9d7109b7eabaf3f"


def test_binary_records_become_images_and_labels(cifar10):
    images = Cifar(10, cifar10).load()
    first = records(10_000, np.arange(10_000) % 10, seed=0)[0, 1:]
    assert np.array_equal(images.train_images[0], first.reshape(3, 32, 32))
    assert images.train_images.dtype == np.uint8
    assert images.train_images.flags.c_contiguous
    assert images.test_images.flags.c_contiguous
    assert images.train_labels.dtype == np.int64
    assert images.train_labels[:12].tolist() == [*range(10), 0, 1]
    assert images.note == "10,000 of 50,000 training images (data_batch_2.bin)"
    assert not images.complete
    assert (images.name, images.classes) == ("CIFAR-10", 10)


def test_all_five_batches_need_no_note(cifar10):
    for number in (1, 3, 4, 5):
        (cifar10 / f"data_batch_{number}.bin").symlink_to(cifar10 / "data_batch_2.bin")
    images = Cifar(10, cifar10).load()
    assert len(images.train_labels) == 50_000
    assert images.note == ""
    assert images.complete


def test_cifar100_takes_the_fine_label(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    records(50_000, np.arange(50_000) % 100, label_bytes=2).tofile(folder / "train.bin")
    records(10_000, np.arange(10_000) % 100, label_bytes=2).tofile(folder / "test.bin")
    images = Cifar(100, tmp_path).load()
    assert images.train_labels[98:102].tolist() == [98, 99, 0, 1]
    assert (len(images.train_labels), len(images.test_labels), images.classes) == (50_000, 10_000, 100)
    assert images.mean == (0.5071, 0.4867, 0.4408)
    assert images.note == ""


# -- what can be wrong with it


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        (["test_batch.bin"], r"no data_batch_1\.bin or data_batch_2\.bin"),
        (["data_batch_2.bin"], r"no test_batch\.bin"),
    ],
)
def test_missing_part_is_named(cifar10, present, missing):
    for file in cifar10.iterdir():
        if file.name not in present:
            file.unlink()
    with pytest.raises(InputError, match=missing) as error:
        Cifar(10, cifar10.parent).load()
    assert str(cifar10) in str(error.value)
    assert "download cifar-10-binary.tar.gz" in str(error.value)
    assert "--data-dir" in str(error.value)


@pytest.mark.parametrize("classes", [10, 100])
def test_missing_data_says_where_it_was_looked_for_and_how_to_get_it(tmp_path, classes):
    root = tmp_path / "absent"
    with pytest.raises(InputError) as error:
        Cifar(classes, root).load()
    message = str(error.value)
    assert "\n" not in message
    for part in (f"CIFAR-{classes}", f"{root},", str(root / f"cifar-{classes}"), f"cifar-{classes}-binary.tar.gz"):
        assert part in message


def test_no_folder_given_says_how_to_give_one():
    with pytest.raises(InputError, match=r"no data folder given.*--data-dir"):
        Cifar(100).load()


@pytest.mark.parametrize("change", [-1, 1, -3073, 3073])
def test_truncated_or_oversized_file_is_named_with_its_bytes(cifar10, change):
    file = cifar10 / "data_batch_2.bin"
    content = file.read_bytes()
    file.write_bytes(content[:change] if change < 0 else content + bytes(change))
    with pytest.raises(InputError) as error:
        Cifar(10, cifar10).load()
    assert f"{file} has {30_730_000 + change:,} bytes, expected are 30,730,000" in str(error.value)


def test_empty_file_is_named_with_its_bytes(cifar10):
    (cifar10 / "test_batch.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"test_batch\.bin has 0 bytes"):
        Cifar(10, cifar10).load()


def test_label_out_of_range_is_named_with_its_record(cifar10):
    wrong = records(10_000, np.arange(10_000) % 10)
    wrong[7, 0] = 10
    wrong.tofile(cifar10 / "data_batch_2.bin")
    with pytest.raises(InputError, match=r"data_batch_2\.bin: record 7 has label 10, allowed is 0 to 9"):
        Cifar(10, cifar10).load()


def test_coarse_label_out_of_range_is_refused(tmp_path):
    wrong = records(50_000, np.arange(50_000) % 100, label_bytes=2)
    wrong[3, 0] = 20
    wrong.tofile(tmp_path / "train.bin")
    records(10_000, np.arange(10_000) % 100, label_bytes=2).tofile(tmp_path / "test.bin")
    with pytest.raises(InputError, match="record 3 has label 20, allowed is 0 to 19"):
        Cifar(100, tmp_path).load()


@pytest.mark.parametrize("classes", [0, 20, 1000])
def test_other_number_of_classes_is_refused(classes):
    with pytest.raises(InputError, match="CIFAR-10 and CIFAR-100"):
        Cifar(classes, ".")


# -- the Python version


def pickled(path: Path, labels: np.ndarray, key: bytes) -> tuple[np.ndarray, str]:
    """Write a file of the Python version; its pixels and its MD5."""
    pixels = records(len(labels), labels, seed=4)[:, 1:]
    path.write_bytes(pickle.dumps({b"data": pixels, key: labels.tolist(), b"coarse_labels": [0] * len(labels)}))
    return pixels, hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("classes", "folder", "train", "test", "count", "key"),
    [
        (10, "cifar-10-batches-py", "data_batch_3", "test_batch", 10_000, b"labels"),
        (100, "cifar-100-python", "train", "test", 50_000, b"fine_labels"),
    ],
)
def test_pickles_with_the_right_checksum_are_read(tmp_path, monkeypatch, classes, folder, train, test, count, key):
    (tmp_path / folder).mkdir()
    labels = np.arange(count) % classes
    pixels, train_md5 = pickled(tmp_path / folder / train, labels, key)
    _, test_md5 = pickled(tmp_path / folder / test, labels[:10_000], key)
    monkeypatch.setitem(MD5, train, train_md5)
    monkeypatch.setitem(MD5, test, test_md5)
    images = Cifar(classes, tmp_path).load()
    assert np.array_equal(images.train_images.reshape(count, -1), pixels)
    assert np.array_equal(images.train_labels, labels)
    assert images.test_labels.dtype == np.int64


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_pickle_with_another_checksum_is_not_unpickled(tmp_path):
    for name in ("train", "test"):
        (tmp_path / name).write_bytes(pickle.dumps({b"data": Bomb()}))
    with pytest.raises(InputError, match=r"train has MD5 [0-9a-f]{32}, expected is 16019d7e3df5f24257cddd939b257f8d"):
        Cifar(100, tmp_path).load()


def test_checksums_are_those_of_torchvision():
    sources = (torchvision.datasets.CIFAR10, torchvision.datasets.CIFAR100)
    published = {name: md5 for source in sources for name, md5 in source.train_list + source.test_list}
    assert published == MD5


def test_both_versions_of_the_same_images_have_one_fingerprint(cifar10, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.mkdir()
    for seed, name in enumerate(("data_batch_2", "test_batch")):
        made = records(10_000, np.arange(10_000) % 10, seed=seed)
        (python / name).write_bytes(pickle.dumps({b"data": made[:, 1:], b"labels": made[:, 0].tolist()}))
        monkeypatch.setitem(MD5, name, hashlib.md5((python / name).read_bytes()).hexdigest())
    assert Cifar(10, python).load().fingerprint == Cifar(10, cifar10).load().fingerprint


# -- identity


def test_folder_is_no_part_of_the_identity():
    assert describe(Cifar(10, "/a")) == describe(Cifar(10, "/b"))
