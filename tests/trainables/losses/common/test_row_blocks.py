"""Means and argmaxes over the pixels of upsampled logits, block by block."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.losses.common.per_pixel import upsample_logits
from trainables.losses.common.row_blocks import (
    BLOCK_ELEMENTS,
    RowUpsampler,
    argmax_over_classes,
    mean_cross_entropy,
    mean_over_pixels,
)


def make_logits(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def make_labels(*shape: int, classes: int = 19) -> torch.Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(1))


def upsample_in_blocks(logits, size, rows):
    upsampler = RowUpsampler(logits, size)
    blocks = [upsampler.upsample(slice(i, min(i + rows, size[0]))) for i in range(0, size[0], rows)]
    return torch.cat(blocks).permute(2, 1, 0, 3)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 40)] * 2), st.integers(1, 40))
def test_rows_upsampled_in_blocks_are_those_of_the_whole_map(small, large, rows):
    z = make_logits(2, 3, *small)
    torch.testing.assert_close(upsample_in_blocks(z, large, rows), upsample_logits(z, large), rtol=0, atol=1e-14)
    single = upsample_in_blocks(z.float(), large, rows)
    torch.testing.assert_close(single, upsample_logits(z.float(), large), rtol=1e-5, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 40)] * 2), st.integers(1, 40))
def test_gradient_of_blocks_is_that_of_the_whole_map(small, large, rows):
    z, weights = make_logits(2, 3, *small).requires_grad_(), make_logits(2, 3, *large)
    (expected,) = torch.autograd.grad((upsample_logits(z, large) * weights).sum(), z)
    upsampler = RowUpsampler(z, large)
    total = upsampler.zero_gradient()
    for i in range(0, large[0], rows):
        block = slice(i, min(i + rows, large[0]))
        upsampler.accumulate(weights[:, :, block].permute(2, 1, 0, 3).contiguous(), block, total)
    torch.testing.assert_close(upsampler.reduce_to_head(total), expected, rtol=1e-12, atol=1e-12)


def test_blocks_are_all_rows_once(monkeypatch):
    for elements, sizes in ((1, [1] * 7), (3 * 19 * 5, [3, 3, 1]), (10**9, [7])):
        monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", elements)
        blocks = list(RowUpsampler(make_logits(1, 19, 2, 2), (7, 5)).split_rows())
        assert [block.stop - block.start for block in blocks] == sizes
        assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(7))


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_cross_entropy_is_that_of_whole_maps(monkeypatch, rows, dtype, tolerance):
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", rows * 3 * 19 * 24)
    labels = make_labels(3, 20, 24)
    sides = [make_logits(3, 19, 5, 3, dtype=dtype).requires_grad_() for _ in range(2)]
    mean = mean_cross_entropy(sides[0], labels)
    plain = F.cross_entropy(upsample_logits(sides[1], (20, 24)), labels)
    assert mean.dtype == dtype
    assert mean.item() == pytest.approx(plain.item(), rel=tolerance)
    (0.3 * mean).backward()
    (0.3 * plain).backward()
    gradients = [side.grad for side in sides]
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance * gradients[1].abs().max().item())


def test_gradient_of_cross_entropy_equals_finite_differences(monkeypatch):
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", 3 * 2 * 5 * 7)
    labels = make_labels(2, 8, 7, classes=5)
    assert torch.autograd.gradcheck(lambda z: mean_cross_entropy(z, labels), make_logits(2, 5, 3, 4).requires_grad_())


def test_half_precision_logits_are_compared_in_float32_and_receive_a_gradient_of_their_own_type():
    z, labels = make_logits(2, 19, 4, 4).bfloat16().requires_grad_(), make_labels(2, 8, 8)
    mean = mean_cross_entropy(z, labels)
    mean.backward()
    assert (mean.dtype, z.grad.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(mean, mean_cross_entropy(z.detach().float(), labels))


def test_training_keeps_nothing_larger_than_a_block_and_in_the_end_the_gradient_of_the_head_alone(monkeypatch):
    z, labels = make_logits(2, 19, 4, 4).requires_grad_(), make_labels(2, 64, 64)
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", 4 * 2 * 19 * 64)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x.numel()), x)[1], lambda x: x):
        mean = mean_cross_entropy(z, labels)
    assert max(kept) == BLOCK_ELEMENTS["cpu"]
    assert kept[-1] == z.numel()
    assert [saved.shape for saved in mean.grad_fn.saved_tensors] == [z.shape]


def test_without_a_gradient_the_value_is_the_same_and_nothing_is_kept():
    z, labels = make_logits(2, 19, 4, 4), make_labels(2, 8, 8)
    with torch.no_grad():
        value = mean_cross_entropy(z.clone().requires_grad_(), labels)
    assert value.grad_fn is None
    assert torch.equal(value, mean_cross_entropy(z, labels))
    assert torch.equal(value, mean_cross_entropy(z.clone().requires_grad_(), labels).detach())


def test_second_derivatives_are_refused():
    z = make_logits(1, 5, 2, 2).requires_grad_()
    mean = mean_over_pixels(lambda block, _: block.square().sum(dim=1), z, lambda rows: torch.empty(0), (4, 4))
    (gradient,) = torch.autograd.grad(mean, z, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_argmax_is_that_of_whole_maps_and_the_first_among_equals(monkeypatch, rows):
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", rows * 3 * 19 * 24)
    z = make_logits(3, 19, 5, 3)
    assert torch.equal(argmax_over_classes(z, (20, 24)), upsample_logits(z, (20, 24)).argmax(dim=1))
    z[:, 7] = z[:, 2] = z.amax(dim=1) + 1
    assert argmax_over_classes(z, (20, 24)).unique().tolist() == [2]
