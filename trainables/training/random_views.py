"""Augmentations with continuous settings, made finite: a view's number is the seed of its settings.

Teacher outputs can be stored for such views, too, exactly. The more views there are, the less often an image is seen
alike, and the more teacher outputs there are to store: at most one for each image and view, and no more than trials
draw.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from study.errors import InputError, check_whole_number, format_place
from trainables.training.settings import is_number
from trainables.training.views import Views, hash_to_uniform


class _NumberedViews(Views):
    """A `number` of random views of each image, and view 0, which is never drawn."""

    number: int
    draws_untouched: ClassVar[bool] = False

    @property
    def count(self) -> int:
        return 1 + self.number


@dataclass(frozen=True)
class SeededViews(_NumberedViews):
    """Views by a function of the space file, such as one that calls a transform of torchvision.transforms.v2.

        def augment(image: Tensor) -> Tensor:
            return v2.RandAugment()(image)

        views = SeededViews(augment, number=32)

    The function gets an image (C, H, W) uint8 on the CPU, and returns one of the same shape. It draws its random
    numbers from torch, whose generator has been seeded with the view's number. View 0, never drawn, is the untouched
    image. Images are transformed one by one: `ResizedCrops` is faster where it suffices.
    Raises InputError for fewer views than one, and for anything but a function.
    """

    transform: Callable[[Tensor], Tensor]
    number: int
    """The number of random views of each image."""

    def __post_init__(self) -> None:
        check_whole_number("number", self.number)
        if not inspect.isfunction(self.transform):
            raise InputError(
                f"transform is {self.transform!r}; write a function at the top level of the space file that calls it"
            )

    def apply(self, images: Tensor, views: Tensor) -> Tensor:
        """Apply a view to each image: uint8 (B, C, H, W), views (B,) → uint8 (B, C, H, W).

        Raises InputError if the function raises, or returns another shape or dtype.
        """
        with torch.random.fork_rng(devices=[]):
            pairs = zip(images.cpu(), views.tolist(), strict=True)
            return torch.stack([self._transform_one(image, view) for image, view in pairs]).to(images.device)

    def _transform_one(self, image: Tensor, view: int) -> Tensor:
        if view == 0:
            return image
        torch.default_generator.manual_seed(view)
        name = self.transform.__name__
        try:
            result = self.transform(image)
        except Exception as error:  # a user's own function may raise anything
            message = f"{name} raises {type(error).__name__} on an image {tuple(image.shape)}: {error}"
            raise InputError(message + format_place(error)) from error
        if not isinstance(result, Tensor) or result.shape != image.shape or result.dtype != image.dtype:
            given = f"{result.dtype} {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            wanted = f"{image.dtype} {tuple(image.shape)}"
            raise InputError(f"{name} returns {given}; allowed is an image like the given one, {wanted}")
        return result


@dataclass(frozen=True)
class ResizedCrops(_NumberedViews):
    """Random resized crops, mirrored and in other colours, all images of a batch at once on the device.

    As torchvision's RandomResizedCrop, RandomHorizontalFlip and ColorJitter, with these differences: a crop that would
    be larger than its image is cut at the edge, brightness changes before contrast and contrast before saturation, and
    pixels are interpolated bilinearly without antialiasing. View 0, never drawn, is the untouched image.
    Raises InputError for ranges that are empty or not above 0, a scale above 1, and a colour change outside [0, 1].
    """

    number: int
    """The number of random views of each image."""
    scale: tuple[float, float] = (0.08, 1.0)
    """The share of the image's area that a crop covers, uniform in this range."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of a crop, log-uniform in this range."""
    flip: bool = True
    brightness: float = 0.0
    """b: pixels are multiplied by a factor that is uniform in [1 − b, 1 + b]."""
    contrast: float = 0.0
    """Likewise, the factor of each pixel's difference from the mean of the grey image."""
    saturation: float = 0.0
    """Likewise, the factor of each colour's difference from its pixel's grey."""

    def __post_init__(self) -> None:
        check_whole_number("number", self.number)
        for name in ("scale", "ratio"):
            if not _is_range(getattr(self, name), 1.0 if name == "scale" else sys.float_info.max):
                allowed = "0 < low ≤ high" + (" ≤ 1" if name == "scale" else ", both finite")
                raise InputError(f"{name} is {getattr(self, name)!r}; allowed is (low, high) with {allowed}")
        for name in ("brightness", "contrast", "saturation"):
            if not (is_number(value := getattr(self, name)) and 0 <= value <= 1):
                raise InputError(f"{name} is {value!r}; allowed is a number from 0, no change, to 1")

    def apply(self, images: Tensor, views: Tensor) -> Tensor:
        """Apply a view to each image: uint8 (B, C, H, W), views (B,) → uint8 (B, C, H, W)."""
        pixels = self._change_colours(self._crop(images.float(), views), views)
        changed = pixels.round_().clamp_(0, 255).to(torch.uint8)
        return torch.where((views == 0)[:, None, None, None], images, changed)

    def _crop(self, images: Tensor, views: Tensor) -> Tensor:
        """Return crops (B, C, H, W) float32, resized to the images' size."""
        height, width = images.shape[2:]
        area = _interpolate(self.scale, hash_to_uniform(views, 0))
        ratio = _interpolate((math.log(self.ratio[0]), math.log(self.ratio[1])), hash_to_uniform(views, 1)).exp()
        wide = ((area * ratio * (height / width)).sqrt()).clamp(max=1.0)  # (B,) share of the image's width
        high = ((area / ratio * (width / height)).sqrt()).clamp(max=1.0)
        right, down = (2 * hash_to_uniform(views, stream) - 1 for stream in (2, 3))
        mirrored = hash_to_uniform(views, 4) < 0.5 if self.flip else torch.zeros_like(views, dtype=torch.bool)
        theta = torch.zeros(len(views), 2, 3, dtype=torch.float64, device=images.device)  # in [−1, 1] of the image
        theta[:, 0, 0], theta[:, 0, 2] = torch.where(mirrored, -wide, wide), right * (1 - wide)
        theta[:, 1, 1], theta[:, 1, 2] = high, down * (1 - high)
        grid = F.affine_grid(theta.float(), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _change_colours(self, pixels: Tensor, views: Tensor) -> Tensor:
        """Return pixels (B, C, H, W) in other colours, clamped to [0, 255] after each change."""
        if self.brightness:
            pixels = _blend(pixels, torch.zeros_like(pixels), self.brightness, hash_to_uniform(views, 5))
        if self.contrast:
            # float64: a mean in float32 could depend on the other images of the batch
            mean = _to_grey(pixels).double().mean(dim=(1, 2, 3), keepdim=True).float()
            pixels = _blend(pixels, mean, self.contrast, hash_to_uniform(views, 6))
        if self.saturation:
            pixels = _blend(pixels, _to_grey(pixels), self.saturation, hash_to_uniform(views, 7))
        return pixels


def _is_range(value: Any, highest: float) -> bool:
    """Return whether `value` is a pair of numbers (low, high) with 0 < low ≤ high ≤ highest."""
    is_pair = isinstance(value, tuple | list) and len(value) == 2 and all(map(is_number, value))
    return is_pair and 0 < value[0] <= value[1] <= highest


def _interpolate(ends: tuple[float, float], uniform: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * uniform


def _blend(pixels: Tensor, other: Tensor, change: float, uniform: Tensor) -> Tensor:
    """Return other + factor · (pixels − other), clamped, of factors (B,) in [1 − change, 1 + change]."""
    factor = _interpolate((1 - change, 1 + change), uniform).float()[:, None, None, None]
    return torch.lerp(other.expand_as(pixels), pixels, factor).clamp_(0, 255)


def _to_grey(pixels: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W) of RGB (B, 3, H, W); images of other numbers of channels are grey already."""
    if pixels.shape[1] != 3:
        return pixels
    return (pixels * pixels.new_tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
