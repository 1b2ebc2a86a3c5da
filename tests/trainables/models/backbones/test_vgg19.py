"""VGG-19: layers and weights as torchvision's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from study.errors import InputError
from trainables.models.backbones import vgg19
from trainables.models.backbones.vgg19 import AFTER_RELU, BEFORE_RELU, Vgg19
from trainables.models.sr.dictionary_sr import VggSR
from trainables.tasks.face_sr.perceptual import load_perceptual_vgg


@pytest.mark.parametrize("taps", [BEFORE_RELU, AFTER_RELU])
@torch.no_grad()
def test_taps_are_those_of_torchvisions_layers(taps):
    torch.manual_seed(0)
    theirs = make_layers(cfgs["E"])
    ours = Vgg19(tuple(taps.values()))
    ours.load_state_dict({f"features.{name}": tensor for name, tensor in theirs.state_dict().items()}, strict=True)
    images = torch.rand(1, 3, 32, 32)
    x = (images - torch.tensor(vgg19.IMAGENET_MEAN)[:, None, None]) / torch.tensor(vgg19.IMAGENET_STD)[:, None, None]
    for (name, number), told in zip(taps.items(), ours(images), strict=True):
        assert isinstance(theirs[number], nn.Conv2d if name.startswith("conv") else nn.ReLU)
        stage, place = int(name[4]), int(name[6])
        convolutions = sum(isinstance(layer, nn.Conv2d) for layer in theirs[: number + 1])
        assert convolutions == sum((2, 2, 4, 4)[: stage - 1]) + place
        assert torch.equal(told, theirs[: number + 1](x.clone()))


@pytest.fixture
def checkpoints(tmp_path, monkeypatch) -> Path:
    """torchvision's folder of weights, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    load_perceptual_vgg.cache_clear()
    yield tmp_path / "hub" / "checkpoints"
    load_perceptual_vgg.cache_clear()


@pytest.mark.parametrize("use", [lambda: VggSR().build(8), lambda: load_perceptual_vgg("cpu")])
def test_imagenet_weights_that_are_missing_are_named_with_their_folder(checkpoints, use):
    with pytest.raises(InputError, match=f"vgg19-dcbb9e9d.pth are not in {checkpoints}"):
        use()


def test_imagenet_weights_are_what_vgg_starts_from(checkpoints, monkeypatch, tmp_path):
    checkpoints.mkdir(parents=True)
    state = {f"features.{name}": tensor for name, tensor in make_layers(cfgs["E"]).state_dict().items()}
    torch.save(state | {"classifier.0.bias": torch.zeros(1)}, checkpoints / "aside")
    checksum = hashlib.sha256((checkpoints / "aside").read_bytes()).hexdigest()
    monkeypatch.setattr(vgg19, "IMAGENET_FILE", f"vgg19-{checksum[:8]}.pth")
    (checkpoints / "aside").rename(checkpoints / vgg19.IMAGENET_FILE)
    vgg = load_perceptual_vgg("cpu")
    assert all(torch.equal(tensor, state[name]) for name, tensor in vgg.state_dict().items())
    assert not any(parameter.requires_grad for parameter in vgg.parameters())
    elsewhere = tmp_path / "elsewhere"
    checkpoints.rename(elsewhere)
    again = Vgg19((7,)).load_imagenet(elsewhere)
    assert torch.equal(again.features[5].weight, state["features.5.weight"])
