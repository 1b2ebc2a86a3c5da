"""An untrained teacher, saved where trials look for a trained one: speed does not depend on the weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainables.teacher.weights import save_teacher
from trainables.training.nets import build_seeded

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask


def save_untrained_teacher(task: DistillationTask[Any], folder: Path, images: int = 64, seed: int = 0) -> None:
    """Save an untrained teacher whose batch norm statistics come from `images` images; else its logits overflow."""
    net = build_seeded(lambda: task.build(task.teacher.model), seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # take the images' statistics instead of a running mean with the initial ones
    with torch.no_grad():
        net(task.examples("train", "cpu").batch(torch.arange(images), torch.zeros(images, dtype=torch.int64)).inputs)
    save_teacher(folder, task.teacher_key, net.state_dict(), {"name": task.teacher.model.name, "source": "untrained"})
