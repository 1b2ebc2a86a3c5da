"""Losses on maps of logits, their plain form on whole maps in torch, and their direct form in numpy, pixel by pixel.

A new loss joins by a line in LOSSES, its plain form in `plain_divergence` and its direct form in
`reference_divergence`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.losses.common.per_pixel import upsample_logits
from trainables.losses.logits.dkd import DKD
from trainables.losses.logits.kd import kd
from trainables.losses.pixels.ldt import LDT
from trainables.losses.pixels.pixel_dkd import PixelDKD
from trainables.losses.pixels.pixel_kd import PixelKD
from trainables.losses.pixels.pixel_kd_std import PixelKDStd
from trainables.task import Outputs
from trainables.training.schedules import Progress, Staircase, value_at

MOVING = Staircase(4.0, 1.0, stages=4)
LOSSES = {
    "KD": PixelKD(),
    "KD, warm": PixelKD(temperature=4.0, weight=0.3),
    "KD, moving": PixelKD(temperature=MOVING, weight=Staircase(1.0, 0.1, stages=2)),
    "KD, student's resolution": PixelKD(temperature=2.0, resolution="student"),
    "KD + LDT": PixelKD(temperature=2.0, transform="ldt"),
    "KD, standardised": PixelKD(temperature=MOVING, transform="standardise"),
    "DKD": PixelDKD(),
    "DKD, moving": PixelDKD(temperature=MOVING, weight=0.5, beta=Staircase(2.0, 8.0, stages=2)),
    "DKD, student's resolution": PixelDKD(alpha=0.5, resolution="student"),
    "DKD + LDT": PixelDKD(transform="ldt"),
    "DKD + LDT, warm": PixelDKD(temperature=2.0, beta=4.0, transform="ldt", resolution="student"),
    "DKD, standardised": PixelDKD(temperature=2.0, transform="standardise"),
    "KD-STD": PixelKDStd(),
    "KD-STD, biased": PixelKDStd(temperature=2.0, unbiased=False),
    "KD-STD, student's resolution": PixelKDStd(temperature=MOVING, weight=9.0, resolution="student"),
    "LDT": LDT(),
    "LDT, warm": LDT(temperature=4.0, weight=2.0),
    "LDT, detached": LDT(temperature=MOVING, detach_statistics=True),
    "LDT, student's resolution": LDT(temperature=2.0, resolution="student"),
}
MIDDLE = Progress(epoch=45, epochs=80, within=0.25)
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
EPSILON = 1e-7


def maps(
    batch: int = 2, classes: int = 19, size: int = 12, spread: float = 3.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a student at a quarter and a teacher at half the labels' size, and labels."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, classes, max(1, size // stride), max(1, size // stride)) for stride in (4, 2))
    student, teacher = (spread * torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return student, teacher, torch.randint(classes, (batch, size, size), generator=generator)


def of_one_size(shape: tuple[int, ...] = (2, 19, 5, 5), spread: float = 3.0, seed: int = 0) -> list[Tensor]:
    """Logits of student and teacher at the labels' own resolution, where upsampling changes nothing, and labels."""
    generator = torch.Generator().manual_seed(seed)
    nets = [spread * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    return [*nets, torch.zeros(shape[0], *shape[2:], dtype=torch.int64)]


def value_of(loss, student, teacher, labels, progress=MIDDLE) -> Tensor:
    return loss(Outputs(student), Outputs(teacher), labels, progress)


def value_and_gradient(loss, student, teacher, labels, progress=MIDDLE) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    value = value_of(loss, student, teacher, labels, progress)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


def transform_of(loss) -> str | None:
    return {PixelKDStd: "standardise", LDT: "ldt"}.get(type(loss)) or getattr(loss, "transform", None)


def plain_sides(loss, z_s, z_t):
    """Both nets' logits (B, K, H, W) as the loss compares them."""
    if transform_of(loss) == "standardise":
        unbiased = getattr(loss, "unbiased", True)
        return standardise(z_s, std(z_s, unbiased)), standardise(z_t, std(z_t, unbiased))
    if transform_of(loss) == "ldt":
        detached = getattr(loss, "detach_statistics", False)
        return standardise(z_s, std(z_s.detach() if detached else z_s)) * std(z_t), z_t
    return z_s, z_t


def plain_divergence(loss, z_s, z_t, labels, progress):
    """The divergence of logits (B, K, H, W) as they are compared, mean over all pixels; labels (B, H, W)."""
    temperature = value_at(loss.temperature, progress)
    if not isinstance(loss, PixelDKD):
        return kd(z_s, z_t, temperature).mean()
    classification = DKD(temperature, value_at(loss.alpha, progress), value_at(loss.beta, progress), warmup=0.0)
    rows = (Outputs(z.movedim(1, -1).flatten(0, -2)) for z in (z_s, z_t))  # each pixel a sample
    return classification(*rows, labels.flatten(), progress)


def standardise(z: Tensor, sigma: Tensor) -> Tensor:
    return (z - z.mean(dim=1, keepdim=True)) / (sigma + EPSILON)


def std(z: Tensor, unbiased: bool = True) -> Tensor:
    """Standard deviation over the classes of each pixel: (B, K, H, W) → (B, 1, H, W)."""
    return z.std(dim=1, keepdim=True, correction=int(unbiased))


def plain_value_and_gradient(loss, student, teacher, labels, progress=MIDDLE) -> tuple[Tensor, Tensor]:
    """The loss on whole maps, and its gradient by autograd."""
    student = student.clone().requires_grad_()
    size = tuple(labels.shape[1:]) if loss.resolution == "full" else tuple(student.shape[2:])
    sides = plain_sides(loss, upsample_logits(student, size), upsample_logits(teacher, size))
    of_pixels = sampled(labels, size)
    value = value_at(loss.weight, progress) * plain_divergence(loss, *sides, of_pixels, progress)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


def sampled(labels: Tensor, size: tuple[int, ...]) -> Tensor:
    """The labels at the centres of other pixels."""
    rows, columns = ([int((i + 0.5) * m / n) for i in range(n)] for n, m in zip(size, labels.shape[1:], strict=True))
    return labels[:, rows][:, :, columns]


def reference_upsampled(z, size):
    """(K, h, w) → (K, *size): pixel centres of both grids at (i + 0.5)/n of the image, edges repeated."""
    for axis, n in ((1, size[0]), (2, size[1])):
        m = z.shape[axis]
        place = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
        low = np.floor(place).astype(int)
        share = (place - low).reshape(-1, *[1] * (2 - axis))
        z = z.take(low, axis) * (1 - share) + z.take(np.minimum(low + 1, m - 1), axis) * share
    return z


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def kl(p, q):
    return float((p * np.log(p / q)).sum())


def reference_sides(loss, z_s, z_t):
    """The student's and the teacher's logits of one pixel as the loss compares them."""
    if transform_of(loss) == "standardise":
        ddof = int(getattr(loss, "unbiased", True))
        return [(z - z.mean()) / (z.std(ddof=ddof) + EPSILON) for z in (z_s, z_t)]
    if transform_of(loss) == "ldt":
        return (z_s - z_s.mean()) / (z_s.std(ddof=1) + EPSILON) * z_t.std(ddof=1), z_t
    return z_s, z_t


def reference_divergence(loss, z_s, z_t, label, progress):
    """The divergence of one pixel's logits (K,) as they are compared, without T²."""
    p_s, p_t = (softmax(z / value_at(loss.temperature, progress)) for z in (z_s, z_t))
    if not isinstance(loss, PixelDKD):
        return kl(p_t, p_s)
    binary_s, binary_t = (np.array([p[label], np.delete(p, label).sum()]) for p in (p_s, p_t))
    others_s, others_t = (np.delete(p, label) / np.delete(p, label).sum() for p in (p_s, p_t))
    on_label = value_at(loss.alpha, progress) * kl(binary_t, binary_s)
    return on_label + value_at(loss.beta, progress) * kl(others_t, others_s)


def reference(loss, student, teacher, labels, progress=MIDDLE):
    size = tuple(labels.shape[1:]) if loss.resolution == "full" else tuple(student.shape[2:])
    values = []
    images = zip(student.double().numpy(), teacher.double().numpy(), sampled(labels, size).numpy(), strict=True)
    for z_s, z_t, of_image in images:
        pixels = (reference_upsampled(z, size).reshape(len(z), -1).T for z in (z_s, z_t))
        for *pair, label in zip(*pixels, of_image.flatten(), strict=True):
            values.append(reference_divergence(loss, *reference_sides(loss, *pair), label, progress))
    return value_at(loss.weight, progress) * value_at(loss.temperature, progress) ** 2 * np.mean(values)
