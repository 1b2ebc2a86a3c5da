"""A teacher that knows nothing, kept where trials look for theirs: speed does not depend on what it knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainables.teacher import weights as teachers
from trainables.training.nets import build_seeded

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask


def keep_untrained_teacher(task: DistillationTask[Any], folder: Path, images: int = 64, seed: int = 0) -> None:
    """Put a teacher there; its batch norm is set by so many images, or its logits would overflow."""
    net = build_seeded(lambda: task.build(task.teacher.model), seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics become those of the images, not a mixture with the initial ones
    with torch.no_grad():
        net(task.examples("train", "cpu").batch(torch.arange(images), torch.zeros(images, dtype=torch.int64)).inputs)
    teachers.save_teacher(
        folder, task.teacher_key, net.state_dict(), {"name": task.teacher.model.name, "source": "untrained"}
    )
