"""What there is to see of a restored face: small, bicubic, restored and true, each with a part of it enlarged."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainables.task import Batch, Outputs, Panel
from trainables.tasks.face_sr.examples import SrTargets, bicubic

ZOOM = 3
"""The part that is enlarged has so many times fewer pixels at each side."""


def sr_panels(outputs: Outputs, batch: Batch, scale: int) -> list[Panel]:
    """Of one face; captions tell the PSNR of its three colours. Source: P2, figure 1, as far as it is known."""
    truth, small = batch.targets.image[0], batch.inputs[0]
    plain, restored = bicubic(batch.inputs, scale)[0], outputs.prediction[0].detach().float().clamp(0, 1)
    where = _zoomed(batch.targets)
    given = [("small", small, ""), ("bicubic", plain, psnr(plain, truth)), ("truth", truth, "")]
    panels = [Panel(name, "image", _bytes(image), caption, given=True) for name, image, caption in given]
    panels += [Panel(f"{name}, enlarged", "image", _bytes(image[where]), given=True) for name, image, _ in given[1:]]
    panels.append(Panel("restored", "image", _bytes(restored), psnr(restored, truth)))
    return [*panels, Panel("restored, enlarged", "image", _bytes(restored[where]))]


def psnr(image: Tensor, truth: Tensor) -> str:
    """ "20.13 dB"."""
    error = float((image - truth).square().mean())
    return f"{-10 * math.log10(error):.2f} dB" if error else "no error"


def _bytes(image: Tensor) -> Tensor:
    return image.mul(255).round().clamp(0, 255).to(torch.uint8)


def _zoomed(targets: SrTargets) -> tuple[slice, slice, slice]:
    """A square about the left eye; in the middle where nothing is known of components."""
    side = targets.image.shape[-1]
    length = side // ZOOM
    middle = [side / 2, side / 2]
    if targets.boxes is not None:
        left, top, right, bottom = targets.boxes[0, 0].tolist()
        middle = [(top + bottom) / 2, (left + right) / 2]
    starts = [min(max(round(place - length / 2), 0), side - length) for place in middle]
    rows, columns = (slice(start, start + length) for start in starts)
    return slice(None), rows, columns
