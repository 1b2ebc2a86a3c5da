"""Pictures of a restored face: small, bicubic, restored and true, each with one part enlarged."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainables.task import Batch, Outputs, Panel
from trainables.tasks.face_sr.examples import SrTargets, enlarge_bicubic

ZOOM = 3
"""Factor of the enlargement: the part has 1/3 of the pixels of each side."""


def draw_sr_panels(outputs: Outputs, batch: Batch, scale: int) -> list[Panel]:
    """Return panels of one face; captions are the PSNR of its three colours. Source: P2, figure 1, as far as known."""
    truth, small = batch.targets.image[0], batch.inputs[0]
    plain, restored = enlarge_bicubic(batch.inputs, scale)[0], outputs.prediction[0].detach().float().clamp(0, 1)
    where = _choose_part(batch.targets)
    given = [("small", small, ""), ("bicubic", plain, format_psnr(plain, truth)), ("truth", truth, "")]
    panels = [Panel(name, "image", _to_uint8(image), caption, given=True) for name, image, caption in given]
    panels += [Panel(f"{name}, enlarged", "image", _to_uint8(image[where]), given=True) for name, image, _ in given[1:]]
    panels.append(Panel("restored", "image", _to_uint8(restored), format_psnr(restored, truth)))
    return [*panels, Panel("restored, enlarged", "image", _to_uint8(restored[where]))]


def format_psnr(image: Tensor, truth: Tensor) -> str:
    """Return the PSNR of an image in [0, 1] as text: "20.13 dB"."""
    error = float((image - truth).square().mean())
    return f"{-10 * math.log10(error):.2f} dB" if error else "no error"


def _to_uint8(image: Tensor) -> Tensor:
    return image.mul(255).round().clamp(0, 255).to(torch.uint8)


def _choose_part(targets: SrTargets) -> tuple[slice, slice, slice]:
    """Return the slices of a square about the left eye, or in the middle where there are no landmarks."""
    side = targets.image.shape[-1]
    length = side // ZOOM
    middle = [side / 2, side / 2]
    if targets.boxes is not None:
        left, top, right, bottom = targets.boxes[0, 0].tolist()
        middle = [(top + bottom) / 2, (left + right) / 2]
    starts = [min(max(round(place - length / 2), 0), side - length) for place in middle]
    rows, columns = (slice(start, start + length) for start in starts)
    return slice(None), rows, columns
