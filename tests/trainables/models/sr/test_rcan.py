"""RCAN: channel attention, and the net without its residual branches."""

from __future__ import annotations

import torch

from tests.trainables.models.sr.nets import built
from trainables.models.sr.rcan import RCAN, ChannelAttention


def test_channel_attention_is_one_factor_a_channel():
    attention = ChannelAttention(16)
    x = torch.rand(2, 16, 5, 4) + 0.1
    factors = attention(x) / x
    torch.testing.assert_close(factors, factors[:, :, :1, :1].expand_as(factors))
    assert ((factors > 0) & (factors < 1)).all()


def test_rcan_without_its_branches_is_head_upsampling_and_rgb():
    net = built(RCAN(groups=2, blocks=2, width=16), 2)
    for name, parameter in net.named_parameters():
        if name.startswith("body"):
            parameter.data.zero_()
    low = torch.rand(1, 3, 4, 4)
    x = 255 * (low - net.mean)
    expected = net.rgb(net.upsampling(net.head(x))) / 255 + net.mean
    torch.testing.assert_close(net(low).image, expected)
