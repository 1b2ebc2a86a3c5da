"""The classes that logits pruning keeps; test_logit_losses.py tests the losses on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.errors import InputError
from trainables.losses.common.pruning import select_kept_classes


def rule(teacher: np.ndarray, target: int, share: float) -> list[int]:
    """The rule for one sample, written out."""
    others = [c for c in range(len(teacher)) if c != target]
    pruned = min(int(share * len(teacher) + 1e-9), len(others) - 2)
    lowest = sorted(others, key=lambda c: (np.float16(teacher[c]), c))[:pruned]
    return [c for c in others if c not in lowest]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_kept_classes_equal_the_rule_written_out(data):
    classes = data.draw(st.integers(3, 12))
    batch = data.draw(st.integers(1, 4))
    share = data.draw(st.floats(0, 0.999))
    # Few distinct values, so that ties are common.
    rows = st.lists(st.integers(-2, 2), min_size=classes, max_size=classes)
    teacher = torch.tensor(data.draw(st.lists(rows, min_size=batch, max_size=batch)), dtype=torch.float32)
    targets = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=batch, max_size=batch)))
    kept = select_kept_classes(teacher, targets, share)
    for row, z, y in zip(kept.tolist(), teacher.numpy(), targets.tolist(), strict=True):
        assert sorted(row) == rule(z, y, share)
        assert y not in row


@pytest.mark.parametrize(
    ("share", "pruned"),
    [(0.0, 0), (0.009, 0), (0.01, 1), (0.29, 29), (0.57, 57), (0.4 / 3, 13), (0.4, 40), (0.97, 97), (0.999, 97)],
)
def test_pruned_count_is_the_share_rounded_down(share, pruned):
    assert select_kept_classes(torch.zeros(16, 100), torch.arange(16), share).shape == (16, 99 - pruned)


def test_target_is_never_pruned_and_not_counted_among_the_pruned():
    teacher = torch.arange(10.0).repeat(2, 1)
    kept = select_kept_classes(teacher, torch.tensor([0, 9]), 0.3)
    assert sorted(kept[0].tolist()) == [4, 5, 6, 7, 8, 9]
    assert sorted(kept[1].tolist()) == [3, 4, 5, 6, 7, 8]


def test_tied_classes_are_pruned_from_the_lowest():
    kept = select_kept_classes(torch.zeros(1, 6), torch.tensor([1]), 0.5)
    assert sorted(kept[0].tolist()) == [4, 5]


def test_logits_that_are_equal_in_half_precision_are_ties():
    # 1 + 2**-12 is 1 in fp16: class 2, not class 0, would be lower in fp32.
    teacher = torch.tensor([[1 + 2**-12, 5.0, 1.0, 5.0, 5.0]])
    assert sorted(select_kept_classes(teacher, torch.tensor([4]), 0.2)[0].tolist()) == [1, 2, 3]


def test_logits_beyond_half_precision_do_not_displace_the_target():
    teacher = torch.tensor([[1e6, 1e6, 1e6, 1e6, -1e6]])
    assert sorted(select_kept_classes(teacher, torch.tensor([0]), 0.2)[0].tolist()) == [1, 2, 3]


def test_share_beyond_all_but_two_keeps_two():
    assert select_kept_classes(torch.zeros(1, 3), torch.tensor([0]), 0.9).tolist() == [[1, 2]]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_of_two_classes_none_is_pruned_and_one_is_refused(share):
    assert select_kept_classes(torch.zeros(2, 2), torch.tensor([0, 1]), share).tolist() == [[1], [0]]
    with pytest.raises(InputError, match="logits of 1 class; allowed are 2 or more"):
        select_kept_classes(torch.zeros(1, 1), torch.tensor([0]), share)
