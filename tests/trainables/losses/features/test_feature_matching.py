"""Feature matching, against numpy, and its adapter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.trainables.losses.feature_losses import (
    START,
    maps,
    outputs,
    running,
)
from trainables.losses.common.feature_maps import Adapter
from trainables.losses.common.image_distance import NORMS
from trainables.losses.features.feature_matching import FeatureMatching


@pytest.mark.parametrize("norm", NORMS)
def test_feature_matching_equals_numpy(norm):
    student, teacher = maps(), maps(seed=1)
    a, b = student.numpy(), teacher.numpy()
    expected = {
        "mse": ((a - b) ** 2).mean(),
        "l1": np.abs(a - b).mean(),
        "l2norm": np.linalg.norm((a - b).reshape(2, -1), axis=1).mean(),
    }[norm]
    value = FeatureMatching(weight=0.3, norm=norm)(outputs(student), outputs(teacher), None, START)
    assert value.item() == pytest.approx(0.3 * expected, rel=1e-12)


def test_adapter_makes_features_of_another_width_fit():
    made = running(FeatureMatching(norm="mse", adapter=Adapter(2, 3, learning_rate=0.05)))
    student = maps(2, dtype=torch.float32)
    teacher = torch.einsum("oc,bchw->bohw", torch.tensor([[1.0, 2], [0.5, 0], [-1, 1]]), student) + 1
    for _ in range(300):
        value = made(outputs(student), outputs(teacher), None, START)
        value.backward()
        made.step(outputs(student), outputs(teacher), START)
    assert value < 1e-3
