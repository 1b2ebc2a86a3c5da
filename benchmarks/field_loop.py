"""The usual distillation loop of public implementations, as the peer of throughput.py.

It has what the reference implementations of KD and DKD on CIFAR-100 have in common, and is a fair peer:

- It does the same work: nets, images, split, batch size, loss, optimiser settings and validation equal the other
  loop's.
- It costs no more than these implementations: torchvision's transforms on PIL images in two worker processes that
  persist over epochs and run in parallel to the one torch thread, the teacher in eval mode without gradients, torch's
  default SGD and memory format, loss and top-1 read back at every step. It logs and prints nothing.
- Its workers may use a second core, which the other loop does not.

Left out, because they would only slow it down: learning rate decay, checkpoints and top-5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms  # type: ignore[import-untyped]

from trainables.data.arrays.splits import Labels, Pixels

WORKERS = 2
TEMPERATURE, ALPHA, BETA, WARMUP = 4.0, 1.0, 2.0, 20


class Images(Dataset[tuple[Tensor, int]]):
    """Data set of pixels (N, C, H, W) uint8 and labels (N,), decoded one by one by PIL as in torchvision's CIFAR100."""

    def __init__(self, pixels: Pixels, labels: Labels, transform: Any) -> None:
        self._pixels, self._labels, self._transform = pixels.transpose(0, 2, 3, 1).copy(), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


def make_train_transform(mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """Return the transform of training images: random crop and flip, then normalisation."""
    crop, flip = transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()
    return transforms.Compose([crop, flip, make_val_transform(mean, std)])


def make_val_transform(mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """Return the transform of validation images: normalisation."""
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])


def train(
    student: nn.Module, teacher: nn.Module, train_set: Images, val_set: Images, batch_size: int
) -> Iterator[tuple[float, float, float]]:
    """Train without end, and yield mean loss, training accuracy and validation accuracy of each epoch."""
    loaders = [
        DataLoader(images, batch_size, shuffle=images is train_set, num_workers=WORKERS, persistent_workers=True)
        for images in (train_set, val_set)
    ]
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    teacher.eval()
    epoch = 0
    while True:
        epoch += 1
        loss, accuracy = _train_epoch(student, teacher, loaders[0], optimizer, epoch)
        yield loss, accuracy, _validate(student, loaders[1])


def _train_epoch(
    student: nn.Module, teacher: nn.Module, loader: DataLoader[Any], optimizer: torch.optim.Optimizer, epoch: int
) -> tuple[float, float]:
    student.train()
    losses, hits, seen = 0.0, 0.0, 0
    for images, targets in loader:
        logits = student(images)
        with torch.no_grad():
            teacher_logits = teacher(images)
        distill_loss = min(epoch / WARMUP, 1.0) * compute_dkd(logits, teacher_logits, targets)
        loss = F.cross_entropy(logits, targets) + distill_loss
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses += loss.item() * len(targets)
        hits += (logits.argmax(1) == targets).sum().item()
        seen += len(targets)
    return losses / seen, hits / seen


@torch.no_grad()
def _validate(student: nn.Module, loader: DataLoader[Any]) -> float:
    student.eval()
    hits, seen = 0.0, 0
    for images, targets in loader:
        hits += (student(images).argmax(1) == targets).sum().item()
        seen += len(targets)
    return hits / seen


def compute_dkd(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of T²·(alpha·TCKD + beta·NCKD), from probabilities: logits (B, K), targets (B,) → scalar ().

    Source: Zhao et al. 2022, eq. 7, with the target taken out of the second softmax by subtracting 1000 from its
    logit, as the authors do.
    """
    target = F.one_hot(targets, student.shape[1]).to(student.dtype)
    student, teacher = student / TEMPERATURE, teacher / TEMPERATURE
    tckd = _compute_divergence(_to_binary(student, target).log(), _to_binary(teacher, target))
    nckd = _compute_divergence((student - 1000 * target).log_softmax(1), (teacher - 1000 * target).softmax(1))
    return TEMPERATURE**2 * (ALPHA * tckd + BETA * nckd)


def _to_binary(logits: Tensor, target: Tensor) -> Tensor:
    """Return the probabilities of the target and of all other classes together: (B, K) → (B, 2)."""
    probabilities = logits.softmax(1)
    return torch.stack(((probabilities * target).sum(1), (probabilities * (1 - target)).sum(1)), dim=1)


def _compute_divergence(log_student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher ‖ student), the mean over the batch: (B, K), (B, K) → scalar ()."""
    return F.kl_div(log_student, teacher, reduction="batchmean")
