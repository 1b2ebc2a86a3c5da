"""Shared parts of the nets for small images: convolutions, global pooling, and the names of inner layers."""

from __future__ import annotations

from torch import Tensor, nn

from trainables.models.hooks import tap_features


class GlobalMean(nn.Module):
    """The mean over all pixels, (B, C, H, W) → (B, C): a layer, so that losses on features can read it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def make_conv(
    channels_in: int, channels: int, size: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Return a convolution that keeps height and width but for its stride; weights by He et al. 2015, over fan-out."""
    conv = nn.Conv2d(channels_in, channels, size, stride=stride, padding=size // 2, groups=groups, bias=bias)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def add_taps(net: nn.Module, taps: tuple[str, ...] | None) -> nn.Module:
    """Return the net, which also returns the outputs of the layers named `taps` if there are any.

    Raises InputError for a name that is no layer.
    """
    if taps:
        tap_features(net, taps)
    return net
