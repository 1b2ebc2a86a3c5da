"""Face components restored with a dictionary: atoms of eyes, nose and mouth are matched to a face and added to it.

A net's dictionary lies in buffers, so that its weights file carries it. It is built from images once, before training
(trainables/tasks/face_sr/dictionary.py). Left out: how components are found; their boxes come with the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torchvision.ops import roi_align  # type: ignore[import-untyped]

from study.errors import InputError

COMPONENTS = ("left_eye", "right_eye", "nose", "mouth")
"""The order of boxes, (B, 4, 4): each x0, y0, x1, y1 in pixels of the full-size image. Left is left in the image."""

EPSILON = 1e-5
"""Added to the variance of a channel, as is usual in normalisation."""


@dataclass(frozen=True)
class Part:
    """The atoms of one component: of the features at one tap of an encoder, or of images themselves."""

    name: str
    component: int
    tap: int | None
    """Which of the encoder's taps; None for pixels in [0, 1]."""
    stride: int
    shape: tuple[int, int, int, int]
    """K atoms (K, C, s, s)."""


class Dictionary(nn.Module):
    """Atoms by the names of their parts, all 0 until they are filled in."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self._known_full = False
        for part in parts:
            self.register_buffer(part.name, torch.zeros(part.shape))

    def atoms(self, part: Part) -> Tensor:
        return self.get_buffer(part.name)

    def require_full(self) -> None:
        """Raises InputError if a part was never filled in."""
        if self._known_full:  # asked of a device once: to read it at every step would wait for it
            return
        for part in self.parts:
            if not self.atoms(part).any():
                raise InputError(
                    f"the dictionary of this net has no {part.name}: fill_dictionary(net, build_dictionary(…)) first, "
                    "or load weights that carry one"
                )
        self._known_full = True


def fill_dictionary(net: nn.Module, atoms: Mapping[str, Tensor]) -> nn.Module:
    """Put a dictionary, as `build_dictionary` returns it, into a net that has place for it.

    Raises InputError if the net has none, or for parts that are missing, of another shape, or not finite.
    """
    dictionary = dictionary_of(net)
    for part in dictionary.parts:
        given = atoms.get(part.name)
        if given is None or tuple(given.shape) != part.shape or not torch.isfinite(given).all():
            what = "nothing" if given is None else f"atoms {tuple(given.shape)}"
            raise InputError(f"dictionary with {what} for {part.name}; this net needs finite ones {part.shape}")
        dictionary.atoms(part).copy_(given)
    return net


def dictionary_of(net: nn.Module) -> Dictionary:
    """Raises InputError for a net without one."""
    dictionary = getattr(net, "dictionary", None)
    if not isinstance(dictionary, Dictionary):
        raise InputError(f"{type(net).__name__} has no dictionary: give its model atoms=32, say")
    return dictionary


class ComponentTransfer(nn.Module):
    """Adds to each component of a face, at one resolution, the atom that is most like it.

    r: the component cut out at the atoms' size. Atoms k take its mean and deviation in each channel,
    k' = σ_r·(k − μ_k)/σ_k + μ_r; the chosen one maximises ⟨r, k'⟩; confidence(k' − r)·k' is added where the box is.
    Gradients reach features, confidences and atoms through what is added, not through the choice.
    Source: Li et al. 2020, section 3.2.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.confidences = nn.ModuleList(_confidence(channels) for _ in COMPONENTS)

    def forward(self, features: Tensor, boxes: Tensor, atoms: Sequence[Tensor]) -> Tensor:
        """Features (B, C, H, W) of an image `stride` times as large, its boxes (B, 4, 4), atoms (K, C, s, s) each."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float() if features.element_size() < 4 else features
            updated = features
            for number, confidence in enumerate(self.confidences):
                box = boxes_at(boxes[:, number].to(features.dtype), self.stride)
                given = atoms[number].to(features.dtype)
                region = cut_out(features, box, given.shape[-1])
                chosen = matched(region, given)
                updated = updated + pasted(confidence(chosen - region) * chosen, box, features)
        return updated


def boxes_at(boxes: Tensor, stride: int) -> Tensor:
    """Boxes (B, 4) of an image on its features at 1/`stride` of the size, each at least one pixel wide and high."""
    corner, opposite = (boxes / stride).chunk(2, dim=1)
    return torch.cat([corner, torch.maximum(opposite, corner + 1)], dim=1)


def cut_out(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """One box of each map, resampled: (B, C, H, W) and (B, 4) → (B, C, size, size)."""
    numbers = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None]
    regions: Tensor = roi_align(features, torch.cat([numbers, boxes], dim=1), size, aligned=True)
    return regions


def matched(regions: Tensor, atoms: Tensor) -> Tensor:
    """For each region the atom most like it, in the region's own statistics: (B, C, s, s), (K, C, s, s) → (B, C, s, s).

    ⟨r, σ_r·k̂ + μ_r⟩ = ⟨σ_r·r, k̂⟩ + ⟨r, μ_r⟩, k̂ the normalised atom: the last term is the same for all of them.
    """
    mean, deviation = _statistics(regions)
    atom_mean, atom_deviation = _statistics(atoms)
    normalised = (atoms - atom_mean) / atom_deviation
    scores = torch.einsum("bchw,kchw->bk", deviation * regions, normalised)
    return deviation * normalised[scores.argmax(dim=1)] + mean


def pasted(patches: Tensor, boxes: Tensor, like: Tensor) -> Tensor:
    """Patches (B, C, s, s), bilinearly resized to their boxes (B, 4), on maps as large as `like`, 0 outside.

    A pixel belongs to a box if its centre does. For boxes of whole pixels this is F.interpolate.
    """
    height, width = like.shape[-2:]
    x0, y0, x1, y1 = boxes[:, :, None].unbind(dim=1)
    across = (torch.arange(width, device=boxes.device) + 0.5 - x0) / (x1 - x0)
    down = (torch.arange(height, device=boxes.device) + 0.5 - y0) / (y1 - y0)
    shape = len(boxes), height, width
    places = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=3)
    inside = ((places >= 0) & (places < 1)).all(dim=3)[:, None]
    resized = F.grid_sample(patches, 2 * places - 1, mode="bilinear", padding_mode="border", align_corners=False)
    return resized * inside


def _statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel: (B, C, s, s) → (B, C, 1, 1) twice."""
    variance, mean = torch.var_mean(features, dim=(2, 3), correction=0, keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def _confidence(channels: int) -> nn.Sequential:
    """How far to trust each value of an atom."""
    first, second = (spectral_norm(nn.Conv2d(channels, channels, kernel_size=3, padding=1)) for _ in range(2))
    return nn.Sequential(first, nn.LeakyReLU(0.2), second)
