"""Scores of classifiers, each chosen by its name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from study.errors import InputError
from study.task import Metric
from trainables.task import Batch, Outputs

if TYPE_CHECKING:
    from torchmetrics import Metric as Meter

ACCURACY = Metric("accuracy", "max", "%", 2)
NAMED = {
    "accuracy": ACCURACY,
    "top5": Metric("top5", "max", "%", 2, label="top-5 accuracy"),
    "macro_f1": Metric("macro_f1", "max", "%", 2, label="macro F1"),
}
RECALL = "recall_"
"""Prefix of the recall of one class: "recall_cat" is the share of the images of cats that are classified as cats."""

ALLOWED = (
    f"allowed are {', '.join(NAMED)}, {RECALL}<class>, and the metrics of torchmetrics.classification whose names "
    'begin with "Multiclass" and that are one number, such as "MulticlassCalibrationError"'
)


class Accuracy:
    """Top-1 accuracy over all samples (micro average), or over those of one class, whose recall it is: in [0, 1].

    Counts in place, unlike torchmetrics' meters, so that a replayed CUDA graph adds to the same numbers.
    """

    def __init__(self, device: str, name: str = "accuracy", of_class: int | None = None):
        self._name, self._class = name, of_class
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)
        """Correct predictions, and samples."""

    def update(self, outputs: Outputs, batch: Batch) -> None:
        # of a mixed image, the class of the larger share
        targets = batch.targets if batch.targets.dim() == 1 else batch.targets.argmax(1)
        correct = outputs.prediction.detach().argmax(1) == targets
        counted = torch.ones_like(correct) if self._class is None else targets == self._class
        self._counts.add_(torch.stack([(correct & counted).sum(), counted.sum()]))

    def compute(self) -> dict[str, float]:
        """Return the share by name; nothing for a class without samples."""
        counts = self._counts.clone()
        if dist.is_initialized():
            dist.all_reduce(counts)
        correct, samples = counts.float()
        return {self._name: float(correct / samples)} if samples else {}


class ClassifierScores:
    """The scores of these names, over all samples of a split; those of torchmetrics are given probabilities (B, K).

    Raises InputError for the recall of a class that is not among `class_names`, and for the top 5 of fewer classes.
    """

    def __init__(self, names: Sequence[str], class_names: Sequence[str], device: str):
        self._shares = [_build_share(name, class_names, device) for name in names if _is_share(name)]
        self._meters = {name: _build_meter(name, len(class_names)).to(device) for name in names if not _is_share(name)}

    def update(self, outputs: Outputs, batch: Batch) -> None:
        for share in self._shares:
            share.update(outputs, batch)
        if self._meters:
            probabilities = outputs.prediction.detach().float().softmax(dim=1)
            for meter in self._meters.values():
                meter.update(probabilities, batch.targets)

    def compute(self) -> dict[str, float]:
        shares = {name: value for share in self._shares for name, value in share.compute().items()}
        return shares | {name: float(meter.compute()) for name, meter in self._meters.items()}


def check_names(names: Sequence[str]) -> None:
    """Raise InputError unless these are the names of scores, at least one and each once."""
    if isinstance(names, str):
        raise InputError(f'metric_names is "{names}"; write ("{names}",)')
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InputError(f'metric_names is {names!r}; write names of scores, such as ("accuracy", "top5")')
    if not names:
        raise InputError('metric_names is empty; write at least one, ("accuracy",)')
    for number, name in enumerate(names):
        if name in names[:number]:
            raise InputError(f"metric_names has {name!r} twice; write it once")
        define_score(name)


@lru_cache
def define_score(name: str) -> Metric:
    """Return direction, unit and label of a score. Raises InputError for a name that is no score."""
    if name in NAMED:
        return NAMED[name]
    if name.startswith(RECALL) and name != RECALL:
        return Metric(name, "max", "%", 2, label=f"recall of {name.removeprefix(RECALL)}")
    kind = _find_meter(name)
    return Metric(name, "max" if kind.higher_is_better else "min")


def _is_share(name: str) -> bool:
    return name == "accuracy" or name.startswith(RECALL)


def _build_share(name: str, class_names: Sequence[str], device: str) -> Accuracy:
    if name == "accuracy":
        return Accuracy(device)
    wanted = name.removeprefix(RECALL)
    if wanted not in class_names:
        raise InputError(
            f"metric_names has {name!r}, but there is no class {wanted!r}; there are {', '.join(class_names)}"
        )
    return Accuracy(device, name, class_names.index(wanted))


def _build_meter(name: str, classes: int) -> Meter:
    from torchmetrics import classification

    if name == "top5":
        if classes < 5:
            raise InputError(f"metric_names has 'top5', of the five likeliest classes; the data have {classes} classes")
        return classification.MulticlassAccuracy(classes, top_k=5, average="micro")
    if name == "macro_f1":
        return classification.MulticlassF1Score(classes, average="macro")
    meter: Meter = _find_meter(name)(num_classes=classes)
    return meter


def _find_meter(name: str) -> Any:
    """Return the class of torchmetrics of this name. Raises InputError if there is none, or it is not one number."""
    from torchmetrics import classification

    kind: Any = getattr(classification, name, None) if name.startswith("Multiclass") else None
    if not isinstance(kind, type):
        raise InputError(f"metric_names has {name!r}; {ALLOWED}")
    try:
        meter = kind(num_classes=3)
        meter.update(torch.eye(3), torch.arange(3))
        score = meter.compute()
    except TypeError:  # an argument without a default
        score = None
    if getattr(kind, "higher_is_better", None) is None or not isinstance(score, Tensor) or score.numel() != 1:
        raise InputError(f"metric_names has {name!r}, which is not one number that can be better or worse; {ALLOWED}")
    return kind
