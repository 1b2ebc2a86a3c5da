"""Nets of torchvision: classes, weights, normalisation and inner features."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18

from study.errors import InputError
from study.identity import describe
from trainables.export.restore import instantiate
from trainables.models.backbones import pretrained
from trainables.models.backbones.pretrained import IMAGENET_MEAN, IMAGENET_STD
from trainables.models.hooks import TappedOutput, renormalise_inputs, tap_features
from trainables.models.torchvision_nets import Torchvision
from trainables.task import without_pretrained
from trainables.training.nets import to_device
from trainables.training.recipe import AdamW, Recipe
from trainables.training.schedules import Cosine, Warmup

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def seeded(classes: int = 1000) -> torch.nn.Module:
    torch.manual_seed(0)
    return resnet18(num_classes=classes)


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """A file under the name that torchvision's weights of a ResNet-18 have."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    torch.save(seeded().state_dict(), path)
    checked = path.stem.split("-")[-1] + "0" * 56  # the file is not torchvision's, and its checksum another
    monkeypatch.setattr(
        pretrained.hashlib, "file_digest", lambda file, kind: SimpleNamespace(hexdigest=lambda: checked)
    )
    return path


def test_net_is_torchvisions_with_the_tasks_classes():
    net = Torchvision("resnet18").build(channels=3, classes=7)
    assert net(IMAGES).shape == (2, 7)
    assert list(net.state_dict()) == list(resnet18(num_classes=7).state_dict())


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0", "googlenet"])
def test_other_families_are_built_and_return_logits_in_training(architecture):
    net = Torchvision(architecture).build(3, 5).train()
    assert net(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_grey_images_are_expanded_to_three_channels():
    net = Torchvision("resnet18").build(channels=1, classes=4).eval()
    grey = IMAGES[:, :1]
    expected = resnet18(num_classes=4).eval()
    expected.load_state_dict(net.state_dict())
    assert torch.equal(net(grey), expected(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(InputError, match="takes images of 1 or 3 channels, not 4"):
        Torchvision("resnet18").build(channels=4, classes=4)


def test_vision_transformer_trains_with_its_own_recipe():
    vit = Torchvision("vit_b_32", image_size=32)
    net = to_device(vit.build(3, 5), "cpu")  # in channels_last, as in training
    with pytest.raises(InputError, match="cannot be built with image_size=30"):
        Torchvision("vit_b_32", image_size=30).build(3, 5)
    recipe = Recipe(2, Warmup(Cosine(1e-3)), AdamW())
    optimizer = recipe.optimizer.build(net.parameters())
    optimizer.param_groups[0]["lr"] = 1e-3
    before = net(IMAGES)
    assert before.shape == (2, 5)
    before.sum().backward()
    optimizer.step()
    assert not torch.equal(net(IMAGES), before)


# -- weights


def test_weights_of_a_file_are_all_loaded_where_classes_agree(tmp_path):
    net = seeded(classes=6)
    torch.save(
        {"state_dict": {f"module.{name}": tensor for name, tensor in net.state_dict().items()}}, tmp_path / "w.pth"
    )
    loaded = Torchvision("resnet18", tmp_path / "w.pth").build(3, 6)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_last_layer_of_another_number_of_classes_stays_fresh(tmp_path):
    torch.save(seeded(classes=6).state_dict(), tmp_path / "w.pth")
    torch.manual_seed(1)
    loaded = Torchvision("resnet18", tmp_path / "w.pth").build(3, 9).state_dict()
    torch.manual_seed(1)
    fresh = resnet18(num_classes=9).state_dict()
    assert torch.equal(loaded["conv1.weight"], seeded(6).state_dict()["conv1.weight"])
    assert torch.equal(loaded["fc.weight"], fresh["fc.weight"])


def test_weights_of_torchvision_are_read_from_its_file(imagenet, monkeypatch):
    net = Torchvision("resnet18", "IMAGENET1K_V1")
    loaded = net.build(3, 5).state_dict()
    assert torch.equal(loaded["conv1.weight"], seeded().state_dict()["conv1.weight"])
    assert (net.name, net.source) == ("resnet18-imagenet1k_v1", "IMAGENET1K_V1")
    imagenet.unlink()
    with pytest.raises(InputError, match=r"ImageNet weights .* are not in .*ResNet18_Weights\.IMAGENET1K_V1"):
        net.build(3, 5)


def test_identity_is_of_the_weights_and_not_of_their_place(tmp_path):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        torch.save(seeded(6).state_dict(), tmp_path / folder / "w.pth")
    one, other = (Torchvision("resnet18", tmp_path / folder / "w.pth") for folder in ("here", "there"))
    assert describe(one) == describe(other)
    torch.save(seeded(7).state_dict(), tmp_path / "there" / "w.pth")
    assert describe(one) != describe(Torchvision("resnet18", tmp_path / "there" / "w.pth"))
    assert describe(one) != describe(Torchvision("resnet18"))


def test_record_of_a_net_rebuilds_it_without_the_place_of_its_weights(tmp_path):
    torch.save(seeded(6).state_dict(), tmp_path / "w.pth")
    for weights in (tmp_path / "w.pth", "IMAGENET1K_V1", None):
        net = Torchvision("resnet18", weights, taps=("layer1",))
        rebuilt = instantiate(describe(net), None)
        assert rebuilt == without_pretrained(net)
        assert (rebuilt.weights, rebuilt.name, describe(rebuilt)) == (None, net.name, describe(net))


def test_net_without_its_weights_keeps_their_normalisation(tmp_path):
    bare = without_pretrained(Torchvision("resnet18", "IMAGENET1K_V1"))
    assert bare.weights is None
    assert bare.input_normalisation == (IMAGENET_MEAN, IMAGENET_STD)
    torch.save(seeded(6).state_dict(), tmp_path / "w.pth")
    assert Torchvision("resnet18", tmp_path / "w.pth").input_normalisation is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "resnet19"}, r"no classification net 'resnet19'; it has .*resnet18"),
        (
            {"architecture": "resnet18", "weights": "no.pth"},
            r"neither a file nor torchvision's; it has IMAGENET1K_V1",
        ),
        ({"architecture": "resnet18", "normalisation": "none"}, "normalisation is 'none'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Torchvision(**settings)


def test_file_of_another_net_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"weights file .*w\.pth is of another architecture: it lacks"):
        Torchvision("resnet18", tmp_path / "w.pth").build(3, 5)
    wide = {**seeded(5).state_dict(), "conv1.weight": torch.zeros(8, 3, 7, 7)}
    torch.save(wide, tmp_path / "wide.pth")
    with pytest.raises(InputError, match=r"conv1\.weight is \(8, 3, 7, 7\), the net needs \(64, 3, 7, 7\)"):
        Torchvision("resnet18", tmp_path / "wide.pth").build(3, 5)


# -- hooks


def test_inputs_are_normalised_again_as_the_weights_expect():
    net = resnet18(num_classes=3).eval()
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)

    def normalise(values, spread):
        return (pixels - torch.tensor(values)[:, None, None]) / torch.tensor(spread)[:, None, None]

    expected = net(normalise(IMAGENET_MEAN, IMAGENET_STD))
    names = list(net.state_dict())
    renormalise_inputs(net, (mean, std), (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.allclose(net(normalise(mean, std)), expected, atol=1e-5)
    assert list(net.state_dict()) == names


def test_taps_return_the_outputs_of_layers_by_name():
    net = Torchvision("resnet18", taps=("layer1", "layer3.0.conv1")).build(3, 4)
    output = net(IMAGES)
    assert isinstance(output, TappedOutput)
    assert output.prediction.shape == (2, 4)
    assert {name: tuple(tensor.shape) for name, tensor in output.features.items()} == {
        "layer1": (2, 64, 8, 8), "layer3.0.conv1": (2, 256, 2, 2), "last": (2, 256, 2, 2)
    }  # fmt: skip
    assert output.features["last"].requires_grad
    bare = resnet18(num_classes=4)
    bare.load_state_dict(net.state_dict())
    assert torch.allclose(bare.eval()(IMAGES), net.eval()(IMAGES).prediction)


def test_tap_that_is_no_layer_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="tap 'layer9' is no layer of the net; it has conv1, bn1, relu, maxpool"):
        tap_features(resnet18(), ("layer9",))
