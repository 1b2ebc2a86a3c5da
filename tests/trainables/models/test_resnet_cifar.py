from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from study.errors import InputError
from study.identity import describe
from trainables.models.resnet_cifar import DEPTHS, ResNet

# 3 × 32 × 32 in, 100 classes: counts of the nets of the distillation literature (methods-cifar.md).
PUBLISHED = {
    8: (83_892, 12_507_392),
    14: (181_108, 26_663_168),
    20: (278_324, 40_818_944),
    32: (472_756, 69_130_496),
    44: (667_188, 97_442_048),  # not published: between 32 and 56, each block adds as much as the one before
    56: (861_620, 125_753_600),
    110: (1_736_564, 253_155_584),
}


@pytest.mark.parametrize("depth", PUBLISHED)
def test_net_has_the_published_parameters_and_macs(depth):
    net = ResNet(depth).build(channels=3, classes=100).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits = net(torch.zeros(1, 3, 32, 32))
    assert logits.shape == (1, 100)
    assert sum(p.numel() for p in net.parameters()) == PUBLISHED[depth][0]
    assert counter.get_total_flops() / 2 == PUBLISHED[depth][1]


@pytest.mark.parametrize("depth", DEPTHS)
def test_state_has_the_names_of_published_checkpoints(depth):
    # Names of RepDistiller's models/resnet.py, of which mdistiller's are a copy.
    conv, norm = ("weight",), ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    parts = {"conv1": conv, "bn1": norm, "fc": ("weight", "bias")}
    for stage in (1, 2, 3):
        for block in range((depth - 2) // 6):
            prefix = f"layer{stage}.{block}"
            parts |= {f"{prefix}.conv{i}": conv for i in (1, 2)} | {f"{prefix}.bn{i}": norm for i in (1, 2)}
            if stage > 1 and block == 0:
                parts |= {f"{prefix}.downsample.0": conv, f"{prefix}.downsample.1": norm}
    expected = {f"{part}.{name}" for part, names in parts.items() for name in names}
    assert set(ResNet(depth).build(3, 100).state_dict()) == expected


def test_stages_have_the_published_shapes():
    net = ResNet(20).build(3, 100)
    shapes = []
    for name in ("conv1", "layer1", "layer2", "layer3"):
        net.get_submodule(name).register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    net(torch.zeros(2, 3, 32, 32))
    assert shapes == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_pooling_is_average_pooling_over_8_pixels():
    net = ResNet(8).build(3, 10).eval()
    images = torch.randn(4, 3, 32, 32)
    features = []
    net.layer3.register_forward_hook(lambda _, __, out: features.append(out))
    logits = net(images)
    torch.testing.assert_close(logits, net.fc(F.avg_pool2d(features[0], 8).flatten(1)))


def test_block_adds_its_input_before_the_last_relu():
    # With bn2's scale at 0 a block is ReLU of its shortcut.
    block = ResNet(14).build(3, 10).layer1[1].eval()
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x.clone()), F.relu(x))


def test_small_grey_images_are_accepted():
    assert ResNet(8, width=4).build(channels=1, classes=10)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_width_scales_all_stages():
    net = ResNet(8, width=4).build(1, 10)
    channels = [net.get_parameter(f"{n}.weight").shape[0] for n in ("conv1", "layer1.0.conv1", "layer2.0.conv1")]
    assert [*channels, net.fc.in_features] == [4, 4, 8, 16]


def test_convolutions_start_kaiming_normal_over_fan_out():
    torch.manual_seed(0)
    weight = ResNet(110).build(3, 100).get_parameter("layer3.5.conv2.weight")
    deviation = math.sqrt(2 / (64 * 3 * 3))
    assert weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert weight.mean().abs().item() < 0.02 * deviation
    # A uniform of the same deviation would end at 1.73 of it.
    assert weight.abs().max() > 3.5 * deviation
    wide = ResNet(8).build(3, 100).get_parameter("layer2.0.conv1.weight")
    assert wide.std().item() == pytest.approx(math.sqrt(2 / (32 * 3 * 3)), rel=0.05)


def test_same_seed_gives_the_same_weights():
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(ResNet(8).build(3, 10).state_dict())
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])


@pytest.mark.parametrize(
    ("net", "name"), [(ResNet(8), "resnet8"), (ResNet(8, width=4), "resnet8w4"), (ResNet(110), "resnet110")]
)
def test_name_tells_depth_and_unusual_width(net, name):
    assert net.name == name


@pytest.mark.parametrize("depth", [0, 9, 26, 50])
def test_depth_outside_the_family_is_refused_with_the_depths_there_are(depth):
    with pytest.raises(InputError, match="8, 14, 20, 32, 44, 56, 110"):
        ResNet(depth)


def test_width_below_one_is_refused():
    with pytest.raises(InputError, match="width 0"):
        ResNet(8, width=0)


def test_description_tells_nets_apart():
    assert describe(ResNet(8)).items() >= {"is": "ResNet", "depth": 8, "width": 16}.items()
