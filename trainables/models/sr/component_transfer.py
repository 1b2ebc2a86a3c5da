"""Dictionary of face components: atoms of eyes, nose and mouth are matched to a face and added to its features.

The dictionary is stored in buffers, so that a net's weights file contains it. It is built from images once, before
training (trainables/tasks/face_sr/dictionary.py). Not included: the detection of components; boxes come with the data.
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
from trainables.models.sr.common import COMPONENTS

EPSILON = 1e-5
"""Added to the variance of a channel, as in torch's normalisation layers."""


@dataclass(frozen=True)
class DictionaryPart:
    """The K atoms of one component, in the features of one tap of an encoder or in pixels."""

    name: str
    component: int
    """Index into COMPONENTS."""
    tap: int | None
    """Index of the encoder's tap; None for pixels in [0, 1]."""
    stride: int
    """Pixels of the full-size image per value of an atom, in each direction."""
    shape: tuple[int, int, int, int]
    """(K, C, s, s)."""


class Dictionary(nn.Module):
    """One buffer of atoms for each part, under the part's name; all 0 until filled. No parameters."""

    def __init__(self, parts: Sequence[DictionaryPart]) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self._known_filled = False
        for part in parts:
            self.register_buffer(part.name, torch.zeros(part.shape))

    def atoms(self, part: DictionaryPart) -> Tensor:
        """Return the atoms of a part, (K, C, s, s)."""
        return self.get_buffer(part.name)

    def check_filled(self) -> None:
        """Raise InputError if a part was never filled."""
        if self._known_filled:  # checked once: reading the buffers at every step would synchronise with the GPU
            return
        for part in self.parts:
            if not self.atoms(part).any():
                raise InputError(
                    f"the dictionary of this net has no {part.name}: fill_dictionary(net, build_dictionary(…)) first, "
                    "or load weights that carry one"
                )
        self._known_filled = True


def fill_dictionary(net: nn.Module, atoms: Mapping[str, Tensor]) -> nn.Module:
    """Copy atoms by the names of their parts, as `build_dictionary` returns them, into the net; return the net.

    Raises InputError if the net has no dictionary, or if atoms are missing, of another shape, or not finite.
    """
    dictionary = get_dictionary(net)
    for part in dictionary.parts:
        given = atoms.get(part.name)
        if given is None or tuple(given.shape) != part.shape or not torch.isfinite(given).all():
            what = "nothing" if given is None else f"atoms {tuple(given.shape)}"
            raise InputError(f"dictionary with {what} for {part.name}; this net needs finite atoms {part.shape}")
        dictionary.atoms(part).copy_(given)
    return net


def get_dictionary(net: nn.Module) -> Dictionary:
    """Return the net's dictionary. Raises InputError for a net without one."""
    dictionary = getattr(net, "dictionary", None)
    if not isinstance(dictionary, Dictionary):
        raise InputError(f"{type(net).__name__} has no dictionary: give its model atoms, such as atoms=32")
    return dictionary


class ComponentTransfer(nn.Module):
    """Add to each component of a face, at one resolution, the atom most similar to it.

    With r the component cropped to the atoms' size, each atom k takes r's mean and deviation per channel,
    k' = σ_r·(k − μ_k)/σ_k + μ_r. The atom that maximises ⟨r, k'⟩ is chosen, and confidence(k' − r)·k' is added inside
    the box. Gradients reach features, confidences and atoms through the added patch, not through the choice.
    8·(9·C² + C) parameters: two 3×3 convolutions per component, of `channels` C.
    Source: Li et al. 2020, section 3.2.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.confidences = nn.ModuleList(_make_confidence(channels) for _ in COMPONENTS)

    def forward(self, features: Tensor, boxes: Tensor, atoms: Sequence[Tensor]) -> Tensor:
        """Return features (B, C, H, W) with atoms added, always computed in float32 or wider.

        `boxes` (B, 4, 4) are in pixels of an image `stride` times as large; `atoms` has (K, C, s, s) per component.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = features.float() if features.element_size() < 4 else features
            updated = features
            for number, confidence in enumerate(self.confidences):
                box = scale_boxes(boxes[:, number].to(features.dtype), self.stride)
                given = atoms[number].to(features.dtype)
                region = crop_boxes(features, box, given.shape[-1])
                chosen = match_atoms(region, given)
                updated = updated + paste_patches(confidence(chosen - region) * chosen, box, features)
        return updated


class SelfTransfer(nn.Module):
    """The layers of a ComponentTransfer as four residual blocks over the whole map: (B, C, H, W) → (B, C, H, W).

    No atoms, boxes or components: the control for what a dictionary's net owes to its 8·(9·C² + C) parameters.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_make_confidence(channels) for _ in COMPONENTS)

    def forward(self, features: Tensor) -> Tensor:
        """Return features (B, C, H, W) with what each block adds to them."""
        for block in self.blocks:
            features = features + block(features)
        return features


def scale_boxes(boxes: Tensor, stride: int) -> Tensor:
    """Return boxes (B, 4) of an image in coordinates of its features, each at least one feature pixel wide and high."""
    corner, opposite = (boxes / stride).chunk(2, dim=1)
    return torch.cat([corner, torch.maximum(opposite, corner + 1)], dim=1)


def crop_boxes(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crop one box from each map and resample it: (B, C, H, W), boxes (B, 4) → (B, C, size, size)."""
    numbers = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None]
    regions: Tensor = roi_align(features, torch.cat([numbers, boxes], dim=1), size, aligned=True)
    return regions


def match_atoms(regions: Tensor, atoms: Tensor) -> Tensor:
    """Return the atom most similar to each region, in its statistics: (B, C, s, s), (K, C, s, s) → (B, C, s, s).

    With k̂ the normalised atom, ⟨r, σ_r·k̂ + μ_r⟩ = ⟨σ_r·r, k̂⟩ + ⟨r, μ_r⟩, whose last term is the same for all atoms.
    """
    mean, deviation = _compute_statistics(regions)
    atom_mean, atom_deviation = _compute_statistics(atoms)
    normalised = (atoms - atom_mean) / atom_deviation
    scores = torch.einsum("bchw,kchw->bk", deviation * regions, normalised)
    return deviation * normalised[scores.argmax(dim=1)] + mean


def paste_patches(patches: Tensor, boxes: Tensor, like: Tensor) -> Tensor:
    """Paste each patch (B, C, s, s) into its box (B, 4) on a map of zeros: (B, C, H, W), H and W those of `like`.

    Patches are resized bilinearly; for boxes at integer coordinates this equals F.interpolate. A pixel belongs to a
    box if its centre is inside.
    """
    height, width = like.shape[-2:]
    x0, y0, x1, y1 = boxes[:, :, None].unbind(dim=1)
    across = (torch.arange(width, device=boxes.device) + 0.5 - x0) / (x1 - x0)
    down = (torch.arange(height, device=boxes.device) + 0.5 - y0) / (y1 - y0)
    shape = len(boxes), height, width
    grid = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=3)
    inside = ((grid >= 0) & (grid < 1)).all(dim=3)[:, None]
    resized = F.grid_sample(patches, 2 * grid - 1, mode="bilinear", padding_mode="border", align_corners=False)
    return resized * inside


def _compute_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per channel: (B, C, s, s) → (B, C, 1, 1) each."""
    variance, mean = torch.var_mean(features, dim=(2, 3), correction=0, keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def _make_confidence(channels: int) -> nn.Sequential:
    """Return the layers that weigh each value of an atom: (B, C, s, s) → (B, C, s, s)."""
    first, second = (spectral_norm(nn.Conv2d(channels, channels, kernel_size=3, padding=1)) for _ in range(2))
    return nn.Sequential(first, nn.LeakyReLU(0.2), second)
