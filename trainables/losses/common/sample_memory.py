"""A memory of one vector of each net for every training sample, from which contrastive losses draw their negatives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

UNSEEN = -1
"""The class of a sample that no batch has had yet."""


class SampleMemory:
    """Unit vectors (2, N, D) of student and teacher by sample, and the samples' classes (N,) int64.

    It grows in the first epoch, up to the last sample of the training split.
    """

    def __init__(self, dimensions: int, device: str) -> None:
        self.vectors = torch.zeros(2, 0, dimensions, device=device)
        self.classes = torch.zeros(0, dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return len(self.classes)

    def recall(self, samples: Tensor, vectors: Tensor) -> Tensor:
        """Return the vectors of samples (B,), those given for samples not seen before: (2, B, D) → (2, B, D)."""
        if not len(self):
            return vectors
        rows = samples.clamp(max=len(self) - 1)
        known = (samples < len(self)) & (self.classes[rows] != UNSEEN)
        return torch.where(known[:, None], self.vectors[:, rows].to(vectors.dtype), vectors)

    def draw_others(self, classes: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return `count` samples of other classes than each of `classes` (B,), drawn with replacement: (B, count).

        All samples of other classes are equally likely. The second tensor, (B, 1) bool, is False where the memory has
        none. The draws are from torch's default generator, which the training loop seeds in every epoch. No step waits
        for the device.
        """
        ordered, order = self.classes.sort(stable=True)
        first, last = (torch.searchsorted(ordered, classes, right=right)[:, None] for right in (False, True))  # (B, 1)
        unseen = (ordered == UNSEEN).sum()
        others = len(self) - unseen - (last - first)
        share = torch.rand(len(classes), count, device=classes.device)
        place = unseen + torch.minimum((share * others).long(), others - 1).clamp(min=0)
        place = place + (place >= first) * (last - first)  # over the gap of the own class
        return order[place.clamp(max=len(self) - 1)], others > 0

    def update(self, samples: Tensor, classes: Tensor, vectors: Tensor, momentum: float, is_growing: bool) -> None:
        """Move the vectors of samples (B,) towards `vectors` (2, B, D): momentum·old + (1 − momentum)·new, normalised.

        Only a growing memory takes samples beyond its last one, which makes a GPU wait.
        """
        if is_growing:
            self._reserve(int(samples.max()) + 1)
        old = self.recall(samples, vectors)
        self.vectors[:, samples] = F.normalize(momentum * old + (1 - momentum) * vectors, dim=2).to(self.vectors.dtype)
        self.classes[samples] = classes

    def _reserve(self, count: int) -> None:
        missing = count - len(self)
        if missing > 0:
            self.vectors = torch.cat((self.vectors, self.vectors.new_zeros(2, missing, self.vectors.shape[2])), dim=1)
            self.classes = torch.cat((self.classes, self.classes.new_full((missing,), UNSEEN)))

    def state_dict(self) -> dict[str, Tensor]:
        return {"vectors": self.vectors, "classes": self.classes}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.vectors = state["vectors"].to(self.vectors)
        self.classes = state["classes"].to(self.classes)
