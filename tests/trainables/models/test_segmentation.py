"""Nets for segmentation: parameters to the unit, torchvision's own outputs, and weights of ImageNet or none."""

from __future__ import annotations

import hashlib
from math import ceil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large, fcn_resnet101
from torchvision.models.segmentation.fcn import FCN, FCNHead

from study.errors import InputError
from study.identity import describe
from trainables.losses.common.per_pixel import upsample_logits
from trainables.models import segmentation
from trainables.models.segmentation import DeepLabV3MobileNet, FCNResNet, SmallFCN
from trainables.task import count_parameters, without_pretrained

CLASSES = 19
# Golden counts: torchvision's nets at 19 classes without auxiliary heads, small ones by hand from their layers.
EXACT = {
    "resnet101_fcn": (FCNResNet(101), 51_948_115, 8),
    "deeplabv3_mobilenet_v3_large": (DeepLabV3MobileNet(), 11_024_963, 16),
    "resnet34_fcn": (FCNResNet(34), 21_877_203, 32),
    "resnet18_fcn": (FCNResNet(18), 11_769_043, 32),
    "small_fcn-16": (SmallFCN(16), 86_963, 4),
    "small_fcn-8": (SmallFCN(8), 22_115, 4),
    "small_fcn-8-s221": (SmallFCN(8, strides=(2, 2, 1)), 22_195, 8),
    "small_fcn-16-b222": (SmallFCN(16, blocks=(2, 2, 2)), 184_179, 4),
    "small_fcn-24-b222": (SmallFCN(24, blocks=(2, 2, 2)), 412_963, 4),
}
BACKBONES = {
    "resnet18": (FCNResNet(18, imagenet=True), models.ResNet18_Weights.IMAGENET1K_V1),
    "resnet34": (FCNResNet(34, imagenet=True), models.ResNet34_Weights.IMAGENET1K_V1),
    "resnet101": (FCNResNet(101, imagenet=True), models.ResNet101_Weights.IMAGENET1K_V1),
    "mobilenet": (DeepLabV3MobileNet(imagenet=True), models.MobileNet_V3_Large_Weights.IMAGENET1K_V1),
}
every_backbone = pytest.mark.parametrize(("model", "weights"), BACKBONES.values(), ids=BACKBONES)


def file_of(weights) -> str:
    return Path(weights.url).name


@pytest.mark.parametrize("name", EXACT)
def test_nets_have_their_names_strides_and_parameters_to_the_unit(name):
    model, count, stride = EXACT[name]
    net = model.build(CLASSES).eval()
    assert model.name == name
    assert count_parameters(net) == count
    assert model.stride == stride
    with torch.no_grad():
        logits = net(torch.zeros(1, 3, 64, 40))
    assert logits.shape == (1, CLASSES, ceil(64 / stride), ceil(40 / stride))


# -- torchvision's


def torchvisions_fcn(depth):
    resnet = {18: models.resnet18, 34: models.resnet34}[depth](weights=None)
    return FCN(IntermediateLayerGetter(resnet, {"layer4": "out"}), FCNHead(512, CLASSES))


TORCHVISIONS = {
    FCNResNet(101): lambda: fcn_resnet101(weights=None, weights_backbone=None, num_classes=CLASSES),
    DeepLabV3MobileNet(): lambda: deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES
    ),
    FCNResNet(34): lambda: torchvisions_fcn(34),
    FCNResNet(18): lambda: torchvisions_fcn(18),
}


@pytest.mark.parametrize("model", TORCHVISIONS, ids=lambda model: model.name)
@torch.no_grad()
def test_torchvisions_forward_is_ours_upsampled(model):
    torch.manual_seed(0)
    theirs, ours = TORCHVISIONS[model]().eval(), model.build(CLASSES).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 48)
    expected, logits = theirs(images)["out"], ours(images)
    assert torch.equal(F.interpolate(logits, (64, 48), mode="bilinear", align_corners=False), expected)
    torch.testing.assert_close(upsample_logits(logits, (64, 48)), expected)
    assert expected.std() > 0.01


def test_training_drops_activations_out_as_torchvisions_head_does():
    net = SmallFCN(8).build(CLASSES)
    assert [head.p for head in net.modules() if isinstance(head, torch.nn.Dropout)] == [0.1]
    images = torch.randn(2, 3, 16, 16)
    assert not torch.equal(net(images), net(images))


# -- small nets


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 5),
    st.tuples(*[st.integers(1, 2)] * 3),
    st.tuples(*[st.integers(1, 2)] * 3),
    st.integers(2, 70),
    st.integers(2, 70),
)
def test_small_net_of_any_shape_gives_maps_of_its_stride(width, strides, blocks, height, w):
    model = SmallFCN(width, strides, blocks)
    with torch.no_grad():
        logits = model.build(5).eval()(torch.zeros(1, 3, height, w))
    assert logits.shape == (1, 5, ceil(height / model.stride), ceil(w / model.stride))


def test_small_net_starts_kaiming_normal_over_fan_out_below_its_head():
    torch.manual_seed(0)
    net = SmallFCN(16).build(CLASSES)
    weight = net.get_parameter("backbone.layer3.0.conv1.weight")
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert net.get_parameter("classifier.0.weight").abs().max() <= (1 / (64 * 9)) ** 0.5, "torchvision's uniform start"


def test_equal_seeds_give_equal_weights():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(SmallFCN(4).build(5).state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FCNResNet(50), "ResNet-50; allowed are 18, 34, 101"),
        (lambda: SmallFCN(0), "width 0"),
        (lambda: SmallFCN(8, strides=(1, 2)), r"strides \(1, 2\)"),
        (lambda: SmallFCN(8, strides=(0, 2, 1)), "strides"),
        (lambda: SmallFCN(8, blocks=(1, 1, 0)), "blocks"),
    ],
)
def test_impossible_nets_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


# -- weights of ImageNet


@pytest.fixture
def checkpoints(tmp_path, monkeypatch) -> Path:
    """torchvision's folder of weights, empty; whoever asks the network fails."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    monkeypatch.setattr(torch.hub, "urlopen", _no_network)
    return tmp_path / "hub" / "checkpoints"


def _no_network(*_, **__):
    pytest.fail("asked the network for weights")


@every_backbone
def test_missing_imagenet_weights_are_named_with_their_folder_and_source(checkpoints, model, weights):
    with pytest.raises(InputError, match=f"{file_of(weights)} are not in {checkpoints}: put the file of .*{weights}"):
        model.build(CLASSES)


@every_backbone
def test_blank_net_needs_no_file_and_asks_no_network(checkpoints, model, weights):
    assert not without_pretrained(model).imagenet
    without_pretrained(model).build(CLASSES)
    assert not checkpoints.exists()


@every_backbone
def test_damaged_imagenet_weights_are_refused(checkpoints, model, weights):
    checkpoints.mkdir(parents=True)
    (checkpoints / file_of(weights)).write_bytes(b"no weights")
    with pytest.raises(InputError, match="not the one in its name"):
        model.build(CLASSES)


def stored(net, folder: Path, stem: str) -> str:
    """The name of a file of the net's weights, which ends in the beginning of its checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), folder / "aside")
    name = f"{stem}-{hashlib.sha256((folder / 'aside').read_bytes()).hexdigest()[:8]}.pth"
    (folder / "aside").rename(folder / name)
    return name


@pytest.mark.parametrize("place", ["torchvision's folder", "a folder that is given"])
def test_imagenet_weights_start_the_resnet(checkpoints, monkeypatch, tmp_path, place):
    theirs = models.resnet18(weights=None)
    given = tmp_path / "given" if place == "a folder that is given" else None
    name = stored(theirs, given or checkpoints, "resnet18")
    monkeypatch.setitem(segmentation.RESNET_FILES, 18, name)
    net = FCNResNet(18, imagenet=True, imagenet_folder=given).build(CLASSES)
    state = theirs.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.backbone.state_dict().items())


def test_imagenet_weights_start_the_mobilenet(checkpoints, monkeypatch):
    theirs = models.mobilenet_v3_large(weights=None)
    monkeypatch.setattr(segmentation, "MOBILENET_FILE", stored(theirs, checkpoints, "mobilenet"))
    net = DeepLabV3MobileNet(imagenet=True).build(CLASSES)
    state = theirs.features.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.backbone.state_dict().items())


def test_weights_of_another_folder_are_not_looked_for_in_torchvisions(checkpoints, monkeypatch, tmp_path):
    monkeypatch.setitem(segmentation.RESNET_FILES, 18, stored(models.resnet18(weights=None), checkpoints, "resnet18"))
    with pytest.raises(InputError, match=f"are not in {tmp_path / 'elsewhere'}"):
        FCNResNet(18, imagenet=True, imagenet_folder=tmp_path / "elsewhere").build(CLASSES)


def test_folder_of_weights_is_absolute_and_no_part_of_what_a_net_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models_of_a_folder = FCNResNet(18, imagenet_folder="weights"), DeepLabV3MobileNet(imagenet_folder="weights")
    for model, plain in zip(models_of_a_folder, (FCNResNet(18), DeepLabV3MobileNet()), strict=True):
        assert model.imagenet_folder == tmp_path / "weights"
        assert describe(model) == describe(plain)
    assert describe(FCNResNet(18)) != describe(FCNResNet(18, imagenet=True))
