"""Nets of timm: classes, weights of files and of a server on this machine, normalisation and inner features."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save

from study.errors import InputError
from study.identity import describe
from study.storage.downloads import VARIABLE
from tests.trainables import small
from trainables.export.restore import instantiate
from trainables.models import timm_nets
from trainables.models.backbones.pretrained import IMAGENET_MEAN, IMAGENET_STD
from trainables.models.hooks import TappedOutput
from trainables.models.timm_nets import Timm
from trainables.task import without_pretrained
from trainables.training.nets import to_device

timm = pytest.importorskip("timm")

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TAG = "a1_in1k"


def seeded(classes: int = 1000) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=classes)


class Hub:
    """A server of one file under the addresses of Hugging Face, and Hugging Face's cache in a folder of its own."""

    def __init__(self, content: bytes) -> None:
        self.content, self.digest, self.requests = content, hashlib.sha256(content).hexdigest(), list[str]()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.requests.append(self.path)
                self.send_response(200)
                self.send_header("ETag", f'"{hub.digest}"')
                self.send_header("X-Repo-Commit", "c" * 40)
                self.send_header("Content-Length", str(len(hub.content)))
                self.end_headers()

            def do_GET(self) -> None:
                self.do_HEAD()
                self.wfile.write(hub.content)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub = Hub(save({name: tensor.contiguous() for name, tensor in seeded().state_dict().items()}))
    monkeypatch.setattr(timm_nets, "ENDPOINT", f"http://127.0.0.1:{hub.server.server_address[1]}")
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def test_net_is_timms_with_the_tasks_classes():
    net = Timm("resnet18").build(channels=3, classes=7)
    assert net(IMAGES).shape == (2, 7)
    assert list(net.state_dict()) == list(seeded(7).state_dict())
    assert Timm("resnet18").name == "resnet18"
    assert Timm("resnet18").input_normalisation is None


def test_grey_images_are_expanded_and_taps_return_layers_by_name():
    output = Timm("resnet18", taps=("layer1", "layer2.0.conv1")).build(channels=1, classes=4)(IMAGES[:, :1])
    assert isinstance(output, TappedOutput)
    assert output.features["layer1"].shape == (2, 64, 8, 8)
    assert output.features["last"].shape == (2, 128, 4, 4)
    with pytest.raises(InputError, match="takes images of 1 or 3 channels, not 4"):
        Timm("resnet18").build(channels=4, classes=4)


def test_transformer_trains_on_images_of_another_size_in_the_layout_of_training():
    net = to_device(Timm("vit_tiny_patch16_224", image_size=32).build(3, 5), "cpu")
    inputs = IMAGES.contiguous(memory_format=torch.channels_last)
    assert net(inputs).shape == (2, 5)
    net(inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    with pytest.raises(InputError, match=r"resnet18 cannot be built with image_size=32: .*img_size"):
        Timm("resnet18", image_size=32).build(3, 5)


def test_last_layer_of_another_number_of_classes_stays_fresh(tmp_path):
    torch.save(seeded(6).state_dict(), tmp_path / "w.pth")
    loaded = Timm("resnet18", tmp_path / "w.pth").build(3, 6).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in seeded(6).state_dict().items())
    torch.manual_seed(1)
    other = Timm("resnet18", tmp_path / "w.pth")
    fresh = other.build(3, 9).state_dict()
    assert torch.equal(fresh["conv1.weight"], loaded["conv1.weight"])
    assert fresh["fc.weight"].shape == (9, 512)
    assert (other.name, without_pretrained(other).weights) == ("resnet18-pretrained", None)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match=r"weights file .*bad\.pth is of another architecture: it lacks"):
        Timm("resnet18", tmp_path / "bad.pth").build(3, 5)


def test_published_weights_are_fetched_once_where_this_is_permitted(hub, monkeypatch, capsys):
    net = Timm("resnet18", TAG)
    assert (net.name, net.origin) == (f"resnet18-{TAG}", TAG)
    with pytest.raises(InputError, match=f"weights resnet18.{TAG} of timm are not in .* let --download fetch them"):
        net.build(3, 5)
    assert hub.requests == []
    monkeypatch.setenv(VARIABLE, "1")
    loaded = net.build(3, 5).state_dict()
    assert torch.equal(loaded["conv1.weight"], seeded().state_dict()["conv1.weight"])
    assert loaded["fc.weight"].shape == (5, 512)
    assert f"downloading timm/resnet18.{TAG}/model.safetensors of Hugging Face" in capsys.readouterr().out
    before = len(hub.requests)
    assert before
    assert torch.equal(net.build(3, 5).state_dict()["conv1.weight"], loaded["conv1.weight"])
    assert len(hub.requests) == before
    assert net.input_normalisation == (IMAGENET_MEAN, IMAGENET_STD)


def test_inputs_are_normalised_as_timms_weights_expect():
    half = (0.5, 0.5, 0.5)
    published = Timm("vit_tiny_patch16_224", "augreg_in21k_ft_in1k", image_size=32)
    assert published.input_normalisation == (half, half)
    own = Timm("resnet18", normalisation="imagenet")
    assert own.input_normalisation == (IMAGENET_MEAN, IMAGENET_STD)
    assert Timm("vit_tiny_patch16_224", "augreg_in21k_ft_in1k", normalisation="data").input_normalisation is None
    # a task gives the net inputs that are normalised by its data
    net = small.TASK.build(without_pretrained(published)).eval()
    bare = without_pretrained(published).build(channels=1, classes=10).eval()
    bare.load_state_dict(net.state_dict())
    pixels, data = torch.rand(2, 1, 32, 32), small.TASK.loaded
    expected = bare((pixels.expand(-1, 3, -1, -1) - 0.5) / 0.5)
    assert torch.allclose(net((pixels - data.mean[0]) / data.std[0]), expected, atol=1e-5)


def test_file_with_another_checksum_than_the_servers_is_refused(hub, monkeypatch):
    hub.digest = "0" * 64
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(InputError, match=r"is not the file that Hugging Face has for resnet18\.a1_in1k"):
        Timm("resnet18", TAG).build(3, 5)


def test_file_without_a_published_checksum_is_refused(hub, monkeypatch):
    hub.digest = "0" * 40
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(InputError, match=r"weights resnet18\.a1_in1k have no published SHA-256"):
        Timm("resnet18", TAG).build(3, 5)


def test_server_that_does_not_answer_is_named_in_one_line(hub, monkeypatch):
    hub.server.shutdown()
    hub.server.server_close()
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # 23 s between the attempts of huggingface_hub
    with pytest.raises(
        InputError, match=r"timm/resnet18\.a1_in1k/model\.safetensors of Hugging Face cannot be"
    ) as caught:
        Timm("resnet18", TAG).build(3, 5)
    assert "\n" not in str(caught.value)


def test_description_rebuilds_the_settings_without_the_weights_place(tmp_path):
    assert instantiate(describe(Timm("resnet18", taps=("layer1",))), None) == Timm("resnet18", taps=("layer1",))
    published = Timm("resnet18", TAG)
    assert instantiate(describe(published), None) == without_pretrained(published)
    assert without_pretrained(published).input_normalisation == published.input_normalisation


def test_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"Timm needs the package timm: pip install 'kdstudy\[timm\]'"):
        Timm("resnet18")


def test_weights_of_a_file_have_no_published_normalisation(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "own.pth")
    with pytest.raises(InputError, match=r"normalisation is 'weights'; allowed are .* with weights of timm"):
        Timm("resnet18", weights=tmp_path / "own.pth", normalisation="weights")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "resnet1818"}, r"timm has no net 'resnet1818'; it has .*resnet"),
        ({"architecture": "resnet18.a1_in1k"}, r"timm has no net 'resnet18\.a1_in1k'; write 'resnet18', weights="),
        ({"architecture": "resnet18", "weights": "no.pth"}, r"neither a file nor timm's; it has a1_in1k"),
        ({"architecture": "resnet18", "normalisation": "none"}, "normalisation is 'none'"),
        ({"architecture": "resnet18", "normalisation": "weights"}, "normalisation is 'weights'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Timm(**settings)
