"""VGG-19 without its classifier, frozen, as an extractor of image features.

Layers are numbered as torchvision's `vgg19().features`, so that its ImageNet weights fit.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers  # type: ignore[import-untyped]

from trainables.models.backbones.pretrained import IMAGENET_MEAN, IMAGENET_STD, load_imagenet_weights

IMAGENET_FILE = "vgg19-dcbb9e9d.pth"
"""torchvision's VGG19_Weights.IMAGENET1K_V1; the name ends in the first digits of the file's SHA-256."""

BEFORE_RELU = {"conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}
"""Layer numbers of the last convolution of each stage but the first."""

AFTER_RELU = {"relu1_2": 3, "relu2_2": 8, "relu3_4": 17, "relu4_4": 26, "relu5_4": 35}


class Vgg19(nn.Module):
    """Images (B, 3, H, W) in [0, 1] → outputs of the layers numbered `taps`, (B, C, H/s, W/s) each.

    20,024,384 parameters with all layers. They are frozen; gradients reach the images.
    Source: Simonyan & Zisserman 2015, configuration E.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.taps = taps
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.features = make_layers(cfgs["E"])[: max(taps) + 1]
        for layer in self.features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # an output returned from before a ReLU must not be overwritten
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one feature map (B, C, H/s, W/s) for each tap, of images (B, 3, H, W) in [0, 1]."""
        outputs, x = [], (images - self.mean) / self.std
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                outputs.append(x)
        return outputs

    def load_imagenet(self, folder: Path | None = None) -> Vgg19:
        """Load ImageNet weights from `folder` or from torchvision's own, and return self.

        Raises InputError if the file is missing or damaged.
        """
        state = load_imagenet_weights(IMAGENET_FILE, "VGG19_Weights.IMAGENET1K_V1", folder)
        self.load_state_dict({name: state[name] for name in self.state_dict()})
        return self
