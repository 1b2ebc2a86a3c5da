"""What all losses on logits share: precision, gathering of the classes that count, the divergence itself.

Temperatures are a float or one per sample, (B, 1); therefore what is per sample here is (B, 1) too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.losses.pruning import kept_classes
from trainables.task import Outputs


def full_precision(outputs: Outputs) -> torch.autocast:
    """A context without autocast on the device of `outputs`: losses are computed in float32 or wider."""
    return torch.autocast(outputs.prediction.device.type, enabled=False)


def gathered(student: Outputs, teacher: Outputs, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Both nets' logits over the classes that logits pruning keeps, the target in column 0.

    Logits (B, K) become (B, 1 + M), float32 or wider; the teacher's carry no gradient.
    Raises InputError for fewer than 3 classes.
    """
    kept = torch.cat((targets[:, None], kept_classes(teacher.prediction, targets, share)), dim=1)
    return _widened(student.prediction).gather(1, kept), _widened(teacher.prediction.detach()).gather(1, kept)


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) of each sample: logits (B, M) → (B, 1)."""
    return log_divergence(F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1))


def log_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(exp(teacher) ‖ exp(student)) of each sample from log-probabilities: (B, M) → (B, 1)."""
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1, keepdim=True)


def _widened(logits: Tensor) -> Tensor:
    return logits.float() if logits.element_size() < 4 else logits
