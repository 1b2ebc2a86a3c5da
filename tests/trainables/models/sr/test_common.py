"""Bicubic upsampling against Pillow's."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from trainables.models.sr.common import upsample_bicubic


def test_enlargement_is_that_of_pillow():
    low = torch.rand(1, 1, 7, 9, generator=torch.Generator().manual_seed(0))
    theirs = Image.fromarray(low[0, 0].numpy()).resize((9 * 8, 7 * 8), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(upsample_bicubic(low, 8)[0, 0].numpy(), np.asarray(theirs), atol=1e-5)
