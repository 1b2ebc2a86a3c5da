"""The convolutions of VGG-19, frozen: what it sees in an image, layer by layer.

Layers are numbered as torchvision's `vgg19().features`, so that its ImageNet weights fit.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers  # type: ignore[import-untyped]

from trainables.models.backbones.pretrained import imagenet_weights

IMAGENET_FILE = "vgg19-dcbb9e9d.pth"
"""torchvision's VGG19_Weights.IMAGENET1K_V1; its name ends in the beginning of its SHA-256."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's images, with which the weights were trained."""

BEFORE_RELU = {"conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}
"""The last convolution of each stage but the first."""

AFTER_RELU = {"relu1_2": 3, "relu2_2": 8, "relu3_4": 17, "relu4_4": 26, "relu5_4": 35}


class Vgg19(nn.Module):
    """Images (B, 3, H, W) in [0, 1] → what the layers of these numbers return, (B, C, H/s, W/s) each.

    It does not learn; gradients pass through it to the images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.taps = taps
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.features = make_layers(cfgs["E"])[: max(taps) + 1]
        for layer in self.features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # what is told from before a ReLU must stay
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        told, x = [], (images - self.mean) / self.std
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                told.append(x)
        return told

    def load_imagenet(self, folder: Path | None = None) -> Vgg19:
        """Raises InputError if the file, in `folder` or where torchvision keeps it, is missing or damaged."""
        state = imagenet_weights(IMAGENET_FILE, "VGG19_Weights.IMAGENET1K_V1", folder)
        self.load_state_dict({name: state[name] for name in self.state_dict()})
        return self
