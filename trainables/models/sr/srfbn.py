"""SRFBN, a baseline of super-resolution: a recurrent net that feeds its last features back to its first layers.

Not included: the curriculum over several degradations, since the tasks here have one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.space.domains import is_unresolved
from trainables.models.sr.common import DIV2K_MEAN, PUBLISHED_RANGE, SROutput, check_scale

PUBLISHED = {"width": 64, "groups": 6, "steps": 4}

KERNELS = {2: 6, 4: 8, 8: 12}
"""Kernel size of up- and downsampling by scale; their stride is the scale, their padding 2."""

PADDING = 2

SLOPE = 0.2
"""Slope of PReLU below 0 before training, as in the authors' code; torch's own is 0.25."""


@dataclass(frozen=True)
class SRFBN:
    """Settings of an SRFBN: a feedback block of `groups` projection groups with `width` channels, run `steps` times.

    SRFBN(width=32, groups=3) is the published SRFBN-S.
    Raises InputError for a setting below 1.
    """

    width: int = PUBLISHED["width"]
    groups: int = PUBLISHED["groups"]
    steps: int = PUBLISHED["steps"]

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if min(self.width, self.groups, self.steps) < 1:
            raise InputError(f"{self}: allowed are integers of at least 1")

    @property
    def name(self) -> str:
        """`srfbn` as published, `srfbn-w32-g3` with other width and groups."""
        changed = (f"-{key[0]}{value}" for key, value in vars(self).items() if value != PUBLISHED[key])
        return "srfbn" + "".join(changed)

    def build(self, scale: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds.

        Raises InputError for a scale other than 2, 4 or 8.
        """
        check_scale(self.name, scale, tuple(KERNELS))
        return FeedbackNet(self, scale)


class FeedbackNet(nn.Module):
    """SRFBN: images (B, 3, h, w) in [0, 1] → SROutput with features (B, width, H, W) of the last step.

    In training `steps` has the images of all steps; the published loss is the mean over them. 3,631,454 parameters as
    published at scale 4, 7,891,294 at scale 8.
    Source: Li et al. 2019, section 3; the mean of DIV2K is subtracted from pixel values from 0 to 255.
    Initialised as in the authors' code.
    """

    mean: Tensor

    def __init__(self, spec: SRFBN, scale: int) -> None:
        super().__init__()
        w = spec.width
        self.scale, self.steps = scale, spec.steps
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN)[:, None, None], persistent=False)
        self.head = nn.Sequential(_make_conv(3, 4 * w, 3), _make_conv(4 * w, w, 1))
        self.feedback = FeedbackBlock(w, spec.groups, scale)
        self.upsampling = _make_upsampler(w, scale)
        self.rgb = nn.Conv2d(w, 3, kernel_size=3, padding=1)
        self.apply(_initialise)

    def forward(self, low: Tensor, boxes: Tensor | None = None) -> SROutput:
        """Return images (B, 3, H, W) of small ones (B, 3, h, w); `boxes` are ignored."""
        x = PUBLISHED_RANGE * (low - self.mean)
        skip = F.interpolate(x, scale_factor=self.scale, mode="bilinear")
        shallow = self.head(x)
        states = [shallow]
        for _ in range(self.steps):
            states.append(self.feedback(shallow, states[-1]))
        if not self.training:
            return self._reconstruct(states[-1], skip)
        outputs = [self._reconstruct(state, skip) for state in states[1:]]
        return outputs[-1]._replace(steps=torch.stack([output.image for output in outputs], dim=1))

    def _reconstruct(self, state: Tensor, skip: Tensor) -> SROutput:
        features = self.upsampling(state)
        return SROutput((self.rgb(features) + skip) / PUBLISHED_RANGE + self.mean, features)


class FeedbackBlock(nn.Module):
    """Projections to full size and back, each from all earlier ones of its size.

    Features and state, (B, width, h, w) each → next state (B, width, h, w).
    """

    def __init__(self, width: int, groups: int, scale: int) -> None:
        super().__init__()
        self.join = _make_conv(2 * width, width, 1)
        # the first group has a single input of each size: nothing to join
        joints = [[_make_conv(number * width, width, 1) for number in range(2, groups + 1)] for _ in range(2)]
        self.join_small, self.join_large = (nn.ModuleList([nn.Identity(), *convs]) for convs in joints)
        self.up = nn.ModuleList(_make_upsampler(width, scale) for _ in range(groups))
        self.down = nn.ModuleList(_make_downsampler(width, scale) for _ in range(groups))
        self.fuse = _make_conv(groups * width, width, 1)

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        small, large = [self.join(torch.cat([features, state], dim=1))], []
        for join_small, up, join_large, down in zip(self.join_small, self.up, self.join_large, self.down, strict=True):
            large.append(up(join_small(torch.cat(small, dim=1))))
            small.append(down(join_large(torch.cat(large, dim=1))))
        return self.fuse(torch.cat(small[1:], dim=1))  # type: ignore[no-any-return]


def _make_conv(channels_in: int, channels: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels, size, padding=size // 2), nn.PReLU(init=SLOPE))


def _make_upsampler(width: int, scale: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(width, width, KERNELS[scale], scale, PADDING), nn.PReLU(init=SLOPE))


def _make_downsampler(width: int, scale: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, KERNELS[scale], scale, PADDING), nn.PReLU(init=SLOPE))


def _initialise(layer: nn.Module) -> None:
    """Draw a convolution's weights from N(0, 2/fan_in) and set its bias to 0. Source: He et al. 2015, equation 10."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        assert layer.bias is not None
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
