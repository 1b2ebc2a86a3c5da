"""Semantic segmentation: torchvision's FCN and DeepLabV3 on its ResNets and MobileNet, and small FCNs.

Each net takes images (B, 3, H, W), normalised as ImageNet's, and returns the logits (B, K, ⌈H/stride⌉, ⌈W/stride⌉) of
its head. The bilinear upsampling with which torchvision's nets end is left to losses and metrics
(losses/common/per_pixel.py), which keeps stored teacher outputs small. Layers are named as torchvision's. Not
included: auxiliary heads, and weights of whole nets, which Teacher(weights=…) reads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from torch import nn
from torchvision.models import mobilenet_v3_large, resnet18, resnet34, resnet101  # type: ignore[import-untyped]
from torchvision.models.resnet import BasicBlock  # type: ignore[import-untyped]
from torchvision.models.segmentation.deeplabv3 import DeepLabHead  # type: ignore[import-untyped]
from torchvision.models.segmentation.fcn import FCNHead  # type: ignore[import-untyped]

from study.errors import InputError
from study.identity import LOCATION
from study.space.domains import is_unresolved
from trainables.models.backbones.pretrained import load_imagenet_weights, make_weights_folder_absolute

CHANNELS = 3
RESNETS = {18: resnet18, 34: resnet34, 101: resnet101}
RESNET_FILES = {18: "resnet18-f37072fd.pth", 34: "resnet34-b627a593.pth", 101: "resnet101-63fe2227.pth"}
"""By depth, torchvision's ResNet…_Weights.IMAGENET1K_V1."""
MOBILENET_FILE = "mobilenet_v3_large-8738ca79.pth"
"""torchvision's MobileNet_V3_Large_Weights.IMAGENET1K_V1."""

SMALL_STRIDES = (1, 2, 1)
SMALL_BLOCKS = (1, 1, 1)


@dataclass(frozen=True)
class FCNResNet:
    """FCN on ResNet-18, 34 or 101; `imagenet` initialises the ResNet with ImageNet weights.

    The last two stages of ResNet-101 are dilated instead of strided, as in torchvision's fcn_resnet101; torchvision's
    blocks of ResNet-18 and 34 do not support dilation. With 19 classes the nets have 11.8, 21.9 and 51.9 million
    parameters.
    Raises InputError for another depth.
    Source: Long et al. 2015, He et al. 2016, Yu & Koltun 2016, as in torchvision.
    """

    depth: int
    imagenet: bool = False
    imagenet_folder: Path | str | None = field(default=None, metadata=LOCATION)
    """The folder of the file of ImageNet weights; by default torchvision's."""

    def __post_init__(self) -> None:
        if not is_unresolved(self) and self.depth not in RESNETS:
            raise InputError(f"FCN on ResNet-{self.depth}; allowed are {', '.join(map(str, RESNETS))}")
        make_weights_folder_absolute(self)

    @property
    def name(self) -> str:
        """`resnet18_fcn`, `resnet34_fcn`, `resnet101_fcn`."""
        return f"resnet{self.depth}_fcn"

    @property
    def stride(self) -> int:
        """Pixels of the image per pixel of the logits, in each direction."""
        return 8 if self.depth == 101 else 32

    def build(self, classes: int) -> nn.Module:
        """Return a net: images (B, 3, H, W), normalised as ImageNet's → logits (B, K, ⌈H/stride⌉, ⌈W/stride⌉).

        Fresh weights are drawn from torch's default generator, which the caller seeds.
        Raises InputError if ImageNet weights are asked for and their file is missing or damaged.
        """
        resnet = RESNETS[self.depth](weights=None, replace_stride_with_dilation=[False, *[self.depth == 101] * 2])
        if self.imagenet:
            source = f"ResNet{self.depth}_Weights.IMAGENET1K_V1"
            resnet.load_state_dict(load_imagenet_weights(RESNET_FILES[self.depth], source, self.imagenet_folder))
        layers = dict(resnet.named_children())
        del layers["avgpool"], layers["fc"]
        return _make_net(layers, FCNHead(resnet.fc.in_features, classes))


@dataclass(frozen=True)
class DeepLabV3MobileNet:
    """torchvision's deeplabv3_mobilenet_v3_large; `imagenet` initialises the MobileNet with ImageNet weights.

    Training needs batches of two images or more, since batch norm follows global pooling. 11.0 million parameters with
    19 classes.
    Source: Chen et al. 2017, Howard et al. 2019, as in torchvision.
    """

    imagenet: bool = False
    imagenet_folder: Path | str | None = field(default=None, metadata=LOCATION)
    """The folder of the file of ImageNet weights; by default torchvision's."""

    def __post_init__(self) -> None:
        make_weights_folder_absolute(self)

    @property
    def name(self) -> str:
        return "deeplabv3_mobilenet_v3_large"

    @property
    def stride(self) -> int:
        """Pixels of the image per pixel of the logits, in each direction."""
        return 16

    def build(self, classes: int) -> nn.Module:
        """Return a net, as `FCNResNet.build` does."""
        mobilenet = mobilenet_v3_large(weights=None, dilated=True)
        if self.imagenet:
            source = "MobileNet_V3_Large_Weights.IMAGENET1K_V1"
            mobilenet.load_state_dict(load_imagenet_weights(MOBILENET_FILE, source, self.imagenet_folder))
        features = mobilenet.features
        return _make_net(dict(features.named_children()), DeepLabHead(features[-1].out_channels, classes))


@dataclass(frozen=True)
class SmallFCN:
    """FCN's head on a stem of stride 2 and three stages of BasicBlocks with width·(1, 2, 4) channels.

    With 19 classes 22,115 parameters at width 8, 86,963 at width 16.
    Raises InputError for a width below 1, and for strides or blocks that are not three integers of at least 1.
    Source: He et al. 2016, figure 3, with 1×1 convolutions where a block changes the shape; Long et al. 2015.
    """

    width: int
    strides: tuple[int, int, int] = SMALL_STRIDES
    """Stride of the first block of each stage."""
    blocks: tuple[int, int, int] = SMALL_BLOCKS
    """Number of blocks in each stage."""

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if self.width < 1:
            raise InputError(f"SmallFCN of width {self.width}; allowed is 1 or more")
        for name, counts in (("strides", self.strides), ("blocks", self.blocks)):
            if len(counts) != 3 or min(counts) < 1:
                raise InputError(f"SmallFCN with {name} {counts}; allowed are three integers of at least 1")

    @property
    def name(self) -> str:
        """`small_fcn-16` at width 16; `small_fcn-16-s221-b222` with other than the default strides and blocks."""
        strides = "-s" + "".join(map(str, self.strides)) if self.strides != SMALL_STRIDES else ""
        blocks = "-b" + "".join(map(str, self.blocks)) if self.blocks != SMALL_BLOCKS else ""
        return f"small_fcn-{self.width}{strides}{blocks}"

    @property
    def stride(self) -> int:
        """Pixels of the image per pixel of the logits, in each direction."""
        return 2 * prod(self.strides)

    def build(self, classes: int) -> nn.Module:
        """Return a net with fresh weights, as `FCNResNet.build` does."""
        w = self.width
        stages: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(CHANNELS, w, kernel_size=3, stride=2, padding=1, bias=False),
            "bn1": nn.BatchNorm2d(w),
            "relu": nn.ReLU(inplace=True),
        }
        shapes = zip((w, w, 2 * w), (w, 2 * w, 4 * w), self.blocks, self.strides, strict=True)
        for number, shape in enumerate(shapes, start=1):
            stages[f"layer{number}"] = _make_stage(*shape)
        net = _make_net(stages, FCNHead(4 * w, classes))
        for conv in net.get_submodule("backbone").modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        return net


def _make_net(backbone: Mapping[str, nn.Module], head: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(backbone=nn.Sequential(OrderedDict(backbone)), classifier=head))


def _make_stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut: nn.Module | None = None
    if stride != 1 or channels_in != channels:
        conv = nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False)
        shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))
    first = BasicBlock(channels_in, channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))
