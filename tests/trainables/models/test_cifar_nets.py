"""The nets of the field's CIFAR-100 tables: parameters, names of published checkpoints, taps, and their parts."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from study.errors import InputError
from study.identity import describe
from trainables.models.cifar_layers import GlobalMean
from trainables.models.hooks import TappedOutput
from trainables.models.mobilenet_cifar import MobileNetV2
from trainables.models.resnet50_cifar import ResNet50
from trainables.models.resnet_cifar import ResNet
from trainables.models.shufflenet_cifar import ShuffleNetV1, ShuffleNetV2
from trainables.models.vgg_cifar import VGG
from trainables.models.wide_resnet_cifar import WideResNet
from trainables.task import count_parameters
from trainables.teacher.weights import load_weights

# 3 input channels, 100 classes: counts of the field's public implementations
NETS = {
    "resnet8x4": (ResNet(8, 64, stem=32), 1_233_540, ("layer1", "layer2", "layer3"), (64, 128, 256)),
    "resnet32x4": (ResNet(32, 64, stem=32), 7_433_860, ("layer1", "layer2", "layer3"), (64, 128, 256)),
    "wrn_16_2": (WideResNet(16, 2), 703_284, ("block1", "block2", "block3"), (32, 64, 128)),
    "wrn_40_1": (WideResNet(40, 1), 569_780, ("block1", "block2", "block3"), (16, 32, 64)),
    "wrn_40_2": (WideResNet(40, 2), 2_255_156, ("block1", "block2", "block3"), (32, 64, 128)),
    "vgg8": (VGG(8), 3_965_028, ("block1", "block2", "block3", "block4"), (128, 256, 512, 512)),
    "vgg13": (VGG(13), 9_462_180, ("block1", "block2", "block3", "block4"), (128, 256, 512, 512)),
    "mobilenetv2": (MobileNetV2(), 812_836, ("blocks.1", "blocks.2", "blocks.4", "blocks.6"), (12, 16, 48, 160)),
    "shufflenetv1": (ShuffleNetV1(), 949_258, ("layer1", "layer2", "layer3"), (240, 480, 960)),
    "shufflenetv2": (ShuffleNetV2(), 1_355_528, ("layer1", "layer2", "layer3"), (116, 232, 464)),
    "resnet50": (ResNet50(), 23_705_252, ("layer1", "layer2", "layer3", "layer4"), (256, 512, 1024, 2048)),
}
every_net = pytest.mark.parametrize("name", NETS)
small_nets = pytest.mark.parametrize("name", [name for name in NETS if name not in ("resnet50", "vgg13", "resnet32x4")])
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def built(name: str, channels: int = 3, classes: int = 100) -> torch.nn.Module:
    torch.manual_seed(0)
    return NETS[name][0].build(channels, classes)


@every_net
def test_net_has_the_published_name_and_parameters(name):
    assert NETS[name][0].name == name
    with torch.device("meta"):
        assert count_parameters(NETS[name][0].build(3, 100)) == NETS[name][1]


# -- the names of published checkpoints: those of RepDistiller's models, of which mdistiller's are a copy


def norms(*names: str) -> set[str]:
    return {f"{name}.{part}" for name in names for part in NORM}


def convs(*names: str, bias: bool = False) -> set[str]:
    return {f"{name}.{part}" for name in names for part in (("weight", "bias") if bias else ("weight",))}


def names_of_wrn(blocks: int, widened: tuple[int, ...]) -> set[str]:
    """`widened`: stages whose first block changes the number of channels."""
    names = convs("conv1") | norms("bn1") | convs("fc", bias=True)
    for stage in (1, 2, 3):
        for block in range(blocks):
            prefix = f"block{stage}.layer.{block}"
            names |= convs(f"{prefix}.conv1", f"{prefix}.conv2") | norms(f"{prefix}.bn1", f"{prefix}.bn2")
        names |= convs(f"block{stage}.layer.0.convShortcut") if stage in widened else set()
    return names


def names_of_vgg(*convolutions: int) -> set[str]:
    names = convs("classifier", bias=True)
    for block, count in enumerate(convolutions):
        for number in range(count):
            names |= convs(f"block{block}.{3 * number}", bias=True) | norms(f"block{block}.{3 * number + 1}")
    return names


def names_of_mobilenet() -> set[str]:
    names = convs("conv1.0", "conv2.0") | norms("conv1.1", "conv2.1") | convs("classifier.0", bias=True)
    for stage, blocks in enumerate((1, 2, 3, 4, 3, 3, 1)):
        for prefix in (f"blocks.{stage}.{block}.conv" for block in range(blocks)):
            names |= convs(*(f"{prefix}.{n}" for n in (0, 3, 6))) | norms(*(f"{prefix}.{n}" for n in (1, 4, 7)))
    return names


def names_of_shufflenet(last: bool, first_block: int, other_blocks: int) -> set[str]:
    """`first_block`, `other_blocks`: convolutions in the first block of a stage and in the others."""
    outer = ("1", "2") if last else ("1",)
    names = convs(*(f"conv{n}" for n in outer)) | norms(*(f"bn{n}" for n in outer)) | convs("linear", bias=True)
    for stage, blocks in ((1, 4), (2, 8), (3, 4)):
        for block in range(blocks):
            prefix, count = f"layer{stage}.{block}", other_blocks if block else first_block
            names |= convs(*(f"{prefix}.conv{n + 1}" for n in range(count)))
            names |= norms(*(f"{prefix}.bn{n + 1}" for n in range(count)))
    return names


def names_of_resnet50() -> set[str]:
    names = convs("conv1") | norms("bn1") | convs("linear", bias=True)
    for stage, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for prefix in (f"layer{stage}.{block}" for block in range(blocks)):
            names |= convs(*(f"{prefix}.conv{n}" for n in (1, 2, 3))) | norms(*(f"{prefix}.bn{n}" for n in (1, 2, 3)))
        names |= convs(f"layer{stage}.0.shortcut.0") | norms(f"layer{stage}.0.shortcut.1")
    return names


CHECKPOINTS = {
    "wrn_16_2": names_of_wrn(2, (1, 2, 3)),
    "wrn_40_1": names_of_wrn(6, (2, 3)),
    "wrn_40_2": names_of_wrn(6, (1, 2, 3)),
    "vgg8": names_of_vgg(1, 1, 1, 1, 1),
    "vgg13": names_of_vgg(2, 2, 2, 2, 2),
    "mobilenetv2": names_of_mobilenet(),
    "shufflenetv1": names_of_shufflenet(False, 3, 3),
    "shufflenetv2": names_of_shufflenet(True, 5, 3),
    "resnet50": names_of_resnet50(),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_state_has_the_names_of_published_checkpoints(name):
    with torch.device("meta"):
        assert set(NETS[name][0].build(3, 100).state_dict()) == CHECKPOINTS[name]


def test_first_block_of_resnet8x4_changes_the_width_of_its_narrow_stem():
    with torch.device("meta"):
        state = NETS["resnet8x4"][0].build(3, 100).state_dict()
    assert state["conv1.weight"].shape[0] == 32
    assert state["layer1.0.downsample.0.weight"].shape == (64, 32, 1, 1)
    assert "layer2.0.downsample.1.running_mean" in state


@small_nets
def test_checkpoint_of_mdistillers_layout_loads(name, tmp_path):
    trained = built(name)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.5)
    file = {
        "epoch": 240,
        "model": trained.state_dict(),
        "optimizer": torch.optim.SGD(trained.parameters(), 0.05).state_dict(),
        "best_acc": 72.5,
    }
    torch.save(file, tmp_path / "student_best")
    loaded = load_weights(built(name), tmp_path / "student_best").state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in trained.state_dict().items())


# -- what nets compute


@small_nets
def test_taps_are_the_stages_and_the_pooled_features(name):
    spec, _, taps, widths = NETS[name]
    pool = "pool4" if isinstance(spec, VGG) else "avgpool"
    bare = built(name).eval()
    tapped = type(spec)(**{**vars(spec), "taps": (*taps, pool)}).build(3, 100).eval()
    tapped.load_state_dict(bare.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        output = tapped(images)
        assert isinstance(output, TappedOutput)
        assert torch.equal(output.prediction, bare(images))
    assert [output.features[tap].shape[1] for tap in taps] == list(widths)
    sides = [output.features[tap].shape[2] for tap in taps]
    assert all(side in (other, 2 * other) for side, other in pairwise(sides))
    assert output.features["last"].shape[0] == 2
    assert output.features["last"].dim() == 2


@small_nets
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 33)])
def test_images_of_any_size_are_accepted_and_every_parameter_learns(name, channels, size):
    net = built(name, channels, classes=5).train()
    logits = net(torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (3, 5)
    F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())


def test_large_images_are_pooled_once_more_by_vgg():
    net = VGG(8, width=2).build(3, 5)
    sides = []
    net.block4.register_forward_hook(lambda _, __, out: sides.append(out.shape[2]))
    for size in (32, 64):
        net(torch.zeros(2, 3, size, size))
    assert sides == [4, 4]


def test_wide_block_is_preactivated():
    block = WideResNet(16, 2).build(3, 10).block1.layer[0].eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(x), block.convShortcut(F.relu(block.bn1(x))))
    same = WideResNet(16, 2).build(3, 10).block1.layer[1].eval()
    torch.nn.init.zeros_(same.conv2.weight)
    x = torch.randn(2, 32, 8, 8)
    assert torch.equal(same(x.clone()), x)


def test_inverted_residual_adds_its_input_only_where_shapes_allow():
    first, second = MobileNetV2().build(3, 10).eval().blocks[1]
    assert (first.adds_input, second.adds_input) == (False, True)
    x = torch.randn(2, 12, 4, 4)
    assert torch.equal(second(x), x + second.conv(x))


def test_first_block_of_a_stage_of_shufflenet_v1_appends_its_averaged_input():
    block = ShuffleNetV1().build(3, 10).layer1[0].eval()
    x = torch.rand(2, 24, 8, 8)
    assert torch.equal(block(x)[:, 216:], F.avg_pool2d(x, 3, stride=2, padding=1))


def test_split_block_of_shufflenet_v2_keeps_half_of_its_channels():
    block = ShuffleNetV2().build(3, 10).layer1[1].eval()
    x = torch.randn(2, 116, 4, 4)
    assert torch.equal(block(x)[:, ::2], x[:, :58])


def test_global_mean_is_that_over_all_pixels():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    assert torch.equal(GlobalMean()(x), x.mean(dim=(2, 3)))


# -- settings


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WideResNet(20, 2), "depth 20; allowed are 10, 16"),
        (lambda: WideResNet(16, 0), "widened by 0"),
        (lambda: VGG(12), "8, 11, 13, 16, 19"),
        (lambda: VGG(8, width=0), "width 0"),
        (lambda: MobileNetV2(0.0), r"width 0\.0"),
        (lambda: ResNet(8, stem=0), "stem of 0"),
        (lambda: ResNet(8, taps=("layer9",)).build(3, 10), "tap 'layer9' is no layer"),
    ],
)
def test_setting_out_of_range_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_unusual_settings_are_part_of_the_name():
    nets = VGG(8, width=16), MobileNetV2(1.0), ResNet(8, 8, stem=4), ResNet(8, taps=("layer3",))
    assert [net.name for net in nets] == ["vgg8w16", "mobilenetv2x1", "resnet8w8s4", "resnet8"]


def test_resnet_without_taps_and_stem_is_described_as_before():
    assert describe(ResNet(8)).keys() == {"is", "from", "depth", "width"}
    assert describe(ResNet(8, taps=("layer3",)))["taps"] == ["layer3"]
