"""Upsampling of logits to the resolution of the labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.losses.pixel_losses import (
    reference_upsampled,
)
from trainables.losses.common.per_pixel import upsample_logits


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 6)] * 2), st.tuples(*[st.integers(1, 13)] * 2))
def test_upsampled_logits_equal_numpy_at_any_two_sizes(small, large):
    z = torch.randn(2, 3, *small, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = np.stack([reference_upsampled(one, large) for one in z.numpy()])
    torch.testing.assert_close(upsample_logits(z, large), torch.from_numpy(expected), rtol=0, atol=1e-14)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_upsampled_logits_are_the_same_bits_in_any_layout_and_wide(layout):
    z = torch.randn(2, 19, 16, 16).half()
    large = upsample_logits(z.contiguous(memory_format=layout), (512, 512))
    assert large.dtype == torch.float32
    assert torch.equal(large, upsample_logits(z.float(), (512, 512)))
    expected = F.interpolate(z.float(), size=(512, 512), mode="bilinear", align_corners=False)
    torch.testing.assert_close(large, expected, rtol=1e-6, atol=1e-6)


def test_upsampling_to_their_own_size_changes_nothing():
    z = torch.randn(2, 19, 7, 5)
    assert torch.equal(upsample_logits(z, (7, 5)), z)
