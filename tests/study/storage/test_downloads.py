"""Downloads: only with permission, and verified, from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch

from study.errors import InputError
from study.storage.downloads import VARIABLE, are_downloads_permitted, permit_downloads
from trainables.data import cifar
from trainables.models.backbones import pretrained


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with HTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", folder
        serving.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")


@pytest.fixture
def archive(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A served archive of CIFAR-10's names and sizes, whose checksum is the published one."""
    address, folder = server
    edition = cifar.VARIANTS[10].editions[0]
    path = folder / edition.archive
    with tarfile.open(path, "w:gz", compresslevel=1) as files:
        for name in (*edition.train, edition.test):
            records = np.zeros((10_000, 3073), np.uint8)
            records[:, 0] = np.arange(10_000) % 10
            member = tarfile.TarInfo(f"{edition.folder}/{name}")
            member.size = records.nbytes
            files.addfile(member, io.BytesIO(records.tobytes()))
    known = edition._replace(md5=hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr(cifar, "ADDRESS", address)
    monkeypatch.setitem(
        cifar.VARIANTS, 10, cifar.VARIANTS[10]._replace(editions=(known, *cifar.VARIANTS[10].editions[1:]))
    )
    return path


def test_permission_is_given_to_this_process_and_its_children() -> None:
    assert not are_downloads_permitted()
    permit_downloads()
    assert are_downloads_permitted()


def test_nothing_is_fetched_without_permission(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not in any of .* or give --data-dir FOLDER --download"):
        cifar.Cifar(10, tmp_path / "data").load()
    assert not (tmp_path / "data").exists()


def test_cifar_is_fetched_unpacked_and_read(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    permit_downloads()
    images = cifar.Cifar(10, tmp_path / "data").load()
    assert (len(images.train_images), len(images.test_images), images.complete) == (50_000, 10_000, True)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"cifar-10-batches-bin"}
    assert "downloading http://127.0.0.1" in capsys.readouterr().out
    archive.unlink()  # the second time nothing is fetched
    assert len(cifar.Cifar(10, tmp_path / "data").load().test_images) == 10_000


def test_what_an_interrupted_download_unpacked_does_not_count(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack_a_part(path: str, folder: str, *_: object) -> None:
        with tarfile.open(path) as files:
            members = {Path(member.name).name: member for member in files}
            for name in ("data_batch_1.bin", "test_batch.bin"):  # which is a valid part of CIFAR-10
                files.extract(members[name], folder, filter="data")
        raise KeyboardInterrupt

    permit_downloads()
    data = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr("torchvision.datasets.utils.extract_archive", unpack_a_part)
        with pytest.raises(KeyboardInterrupt):
            cifar.Cifar(10, data).load()
    assert {path.name for path in data.iterdir()} == {archive.name}  # it is verified when it is read
    assert cifar.Cifar(10, data).load().complete
    assert {path.name for path in data.iterdir()} == {"cifar-10-batches-bin"}


def test_another_archive_than_the_published_one_is_refused(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes() + b"more")
    permit_downloads()
    with pytest.raises(InputError, match=r"cannot be downloaded to .*: File not found or corrupted") as caught:
        cifar.Cifar(10, tmp_path / "data").load()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data" / "cifar-10-batches-bin").exists()


def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "ADDRESS", "http://127.0.0.1:9")
    permit_downloads()
    with pytest.raises(InputError, match=r"cifar-100-binary.tar.gz cannot be downloaded to .*; download it by hand"):
        cifar.Cifar(100, tmp_path).load()


@pytest.fixture
def weights(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of a served file of weights, which has the first digits of its SHA-256."""
    address, folder = server
    torch.save({"weight": torch.ones(3)}, folder / "net.pth")
    content = (folder / "net.pth").read_bytes()
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / "net.pth").rename(folder / name)
    monkeypatch.setattr(pretrained, "ADDRESS", address)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return name


def test_weights_are_fetched_and_verified(weights: str, server: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="let --download fetch it"):
        pretrained.load_imagenet_weights(weights, "Net_Weights")
    permit_downloads()
    assert torch.equal(pretrained.load_imagenet_weights(weights, "Net_Weights")["weight"], torch.ones(3))
    kept = tmp_path / "torch" / "hub" / "checkpoints" / weights
    assert kept.is_file()
    kept.unlink()
    served = server[1] / weights
    served.write_bytes(served.read_bytes()[:-1])
    with pytest.raises(InputError, match="invalid hash value"):
        pretrained.load_imagenet_weights(weights, "Net_Weights")
    assert not kept.exists()
