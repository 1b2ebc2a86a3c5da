"""Losses on features, each in a small form, and their inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from trainables.losses.common.feature_maps import Adapter
from trainables.losses.features.adversarial_features import AdversarialFeatures, PatchDiscriminator
from trainables.losses.features.crd import CRD
from trainables.losses.features.feature_matching import FeatureMatching
from trainables.losses.features.review_kd import ReviewKD
from trainables.task import Outputs
from trainables.training.schedules import Progress

START = Progress(0, 10)
SMALL = PatchDiscriminator(in_channels=3, width=4, layers=2)
ADVERSARIAL = AdversarialFeatures(discriminator=SMALL)
NORMED = AdversarialFeatures(discriminator=replace(SMALL, spectral_norm=True))
ADAPTED = AdversarialFeatures(discriminator=SMALL, adapter=Adapter(2, 3))
MATCHING = FeatureMatching(adapter=Adapter(2, 3))
CONTRASTIVE = CRD(student_channels=3, teacher_channels=3, negatives=5, dimensions=4, learning_rate=0.1)
REVIEW = ReviewKD((3,), (3,), inner_channels=4)
EVERY = {"adversarial": ADVERSARIAL, "normed": NORMED, "adapted": ADAPTED, "matching": MATCHING}
EVERY |= {"CRD": CONTRASTIVE, "ReviewKD": REVIEW}
CLASSES = torch.tensor([0, 1])
"""Those of the two samples of a batch."""
every_loss = pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)


def outputs(features: torch.Tensor) -> Outputs:
    return Outputs(torch.zeros(len(features), 3, 8, 8), {"last": features}, torch.arange(len(features)))


def maps(channels: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, channels, 8, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def running(loss, seed: int = 0):
    torch.manual_seed(seed)
    return loss.new_state("cpu")


def exact(loss):
    """Running in float64."""
    made = running(loss)
    made.discriminator.double()
    return made


def student_channels(loss) -> int:
    return 2 if getattr(loss, "adapter", None) else 3


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other
