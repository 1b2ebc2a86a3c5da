"""SRFBN: a net that sees its own last features beside the image, several times over; a baseline of super-resolution.

Left out: the curriculum over several degradations, since there is one here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from trainables.models.sr.common import DIV2K_MEAN, PUBLISHED_RANGE, SROutput, check_scale

PUBLISHED = {"width": 64, "groups": 6, "steps": 4}

KERNELS = {2: 6, 4: 8, 8: 12}
"""By scale: the kernel size of all up- and downsampling, whose stride is the scale and whose padding is 2."""

PADDING = 2


@dataclass(frozen=True)
class SRFBN:
    """A feedback block of `groups` projection groups with `width` channels, seen `steps` times.

    SRFBN(width=32, groups=3) is the published SRFBN-S.
    Raises InputError for a setting below 1.
    Source: Li et al. 2019, section 3, with the mean of DIV2K subtracted from pixels from 0 to 255.
    """

    width: int = PUBLISHED["width"]
    groups: int = PUBLISHED["groups"]
    steps: int = PUBLISHED["steps"]

    def __post_init__(self) -> None:
        if min(self.width, self.groups, self.steps) < 1:
            raise InputError(f"{self}: allowed are whole numbers from 1 on")

    @property
    def name(self) -> str:
        """`srfbn` as published, `srfbn-w32-g3` with other width and groups."""
        changed = (f"-{key[0]}{value}" for key, value in vars(self).items() if value != PUBLISHED[key])
        return "srfbn" + "".join(changed)

    def build(self, scale: int) -> nn.Module:
        """A net with fresh weights, drawn from torch's default generator: the caller seeds it.

        Raises InputError for a scale other than 2, 4 or 8.
        """
        check_scale(self.name, scale, tuple(KERNELS))
        return FeedbackNet(self, scale)


class FeedbackNet(nn.Module):
    """Images (B, 3, h, w) in [0, 1] → Restored, features of `width` channels from the last step.

    In training it tells what it made at each step; the published loss is the mean over these.
    """

    mean: Tensor

    def __init__(self, spec: SRFBN, scale: int) -> None:
        super().__init__()
        w = spec.width
        self.scale, self.steps = scale, spec.steps
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN)[:, None, None], persistent=False)
        self.head = nn.Sequential(_conv(3, 4 * w, 3), _conv(4 * w, w, 1))
        self.feedback = FeedbackBlock(w, spec.groups, scale)
        self.upsampling = _up(w, scale)
        self.rgb = nn.Conv2d(w, 3, kernel_size=3, padding=1)

    def forward(self, low: Tensor, boxes: Tensor | None = None) -> SROutput:
        x = PUBLISHED_RANGE * (low - self.mean)
        skip = F.interpolate(x, scale_factor=self.scale, mode="bilinear")
        shallow = self.head(x)
        states = [shallow]
        for _ in range(self.steps):
            states.append(self.feedback(shallow, states[-1]))
        if not self.training:
            return self._restored(states[-1], skip)
        made = [self._restored(state, skip) for state in states[1:]]
        return made[-1]._replace(steps=torch.stack([step.image for step in made], dim=1))

    def _restored(self, state: Tensor, skip: Tensor) -> SROutput:
        features = self.upsampling(state)
        return SROutput((self.rgb(features) + skip) / PUBLISHED_RANGE + self.mean, features)


class FeedbackBlock(nn.Module):
    """Projections to full size and back, each from all earlier ones of its size: features and state → state."""

    def __init__(self, width: int, groups: int, scale: int) -> None:
        super().__init__()
        self.join = _conv(2 * width, width, 1)
        # the first group has one map of each size before it, and nothing to join
        joints = [[_conv(number * width, width, 1) for number in range(2, groups + 1)] for _ in range(2)]
        self.join_small, self.join_large = (nn.ModuleList([nn.Identity(), *convs]) for convs in joints)
        self.up = nn.ModuleList(_up(width, scale) for _ in range(groups))
        self.down = nn.ModuleList(_down(width, scale) for _ in range(groups))
        self.fuse = _conv(groups * width, width, 1)

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        small, large = [self.join(torch.cat([features, state], dim=1))], []
        for join_small, up, join_large, down in zip(self.join_small, self.up, self.join_large, self.down, strict=True):
            large.append(up(join_small(torch.cat(small, dim=1))))
            small.append(down(join_large(torch.cat(large, dim=1))))
        return self.fuse(torch.cat(small[1:], dim=1))  # type: ignore[no-any-return]


def _conv(channels_in: int, channels: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels, size, padding=size // 2), nn.PReLU())


def _up(width: int, scale: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(width, width, KERNELS[scale], scale, PADDING), nn.PReLU())


def _down(width: int, scale: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, KERNELS[scale], scale, PADDING), nn.PReLU())
