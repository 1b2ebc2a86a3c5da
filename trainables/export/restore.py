"""A trained student as an object again: from its trial's recorded configuration and the weights of its checkpoint.

A description (study/identity.py) names classes and fields, so it can be made back into what it described. Only classes
below trainables/ are made, and nothing is unpickled: reading somebody else's study runs none of their code.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import trainables
from study.errors import InputError
from study.identity import PUBLIC_NAME_ATTRIBUTE, get_public_name
from study.task import TrialNote
from trainables.task import Batch, count_parameters, without_pretrained
from trainables.training import checkpoint

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask


@dataclass(frozen=True)
class Trained:
    """A trial that is complete, by its row."""

    config: Mapping[str, Any]
    checkpoint: Path
    """Its folder."""
    scores: Mapping[str, float]
    """Test metrics on record, by which the weights are known to be those that were tested."""


class Prediction(nn.Module):
    """A net as its task reads it: of several outputs, the prediction."""

    def __init__(self, task: DistillationTask[Any], net: nn.Module):
        super().__init__()
        self.net, self._task = net, task

    def forward(self, inputs: Tensor) -> Tensor:
        nothing = torch.zeros(1)
        return self._task.outputs(self.net, Batch(inputs, None, nothing, nothing)).prediction


@dataclass(frozen=True)
class Student:
    """A net with its weights, and how it is fed."""

    net: Prediction
    """Inputs (B, C, H, W), normalised → the task's prediction."""
    size: int
    """Parameters."""
    image: Tensor
    """(1, C, H, W): a normalised validation image, for shapes and times."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    any_size: bool
    """Whether images differ in size."""


def rebuild(trained: Trained, data_dir: Path | None) -> Student:
    """The student of a trial as it was after its last epoch, on the CPU and in evaluation mode.

    `data_dir` is where its data lies.
    Raises InputError if data, code or weights are not what the trial had.
    """
    config = trained.config
    task, model = rebuilt(config["task"], data_dir), rebuilt(config["student"], data_dir)
    if not hasattr(task, "build"):
        raise InputError(f"a {type(task).__name__} study trains no net: there is nothing to export")
    recorded, here = config["inputs"]["data"], task.data.load().fingerprint
    if here != recorded:
        raise InputError(f"the data has fingerprint {here}, the study was run on {recorded}: give its --data-dir")
    net = task.build(without_pretrained(model))
    try:
        net.load_state_dict(_weights(trained))
    except RuntimeError:  # torch lists every tensor
        raise InputError(f"{trained.checkpoint} does not fit {model.name}: export with the study's commit") from None
    examples, first = task.examples("val", "cpu"), torch.zeros(1, dtype=torch.int64)
    return Student(
        net=Prediction(task, net).eval(),
        size=count_parameters(net),
        image=examples.batch(first, first).inputs.contiguous(),
        mean=tuple(round(float(value), 6) for value in examples.mean),
        std=tuple(round(float(value), 6) for value in examples.std),
        any_size=task.evaluation_batch("cpu") == 1,
    )


def rebuilt(description: Any, data_dir: Path | None) -> Any:
    """The object that study.describe described, of classes below trainables/ alone; `data_dir` where its data lies.

    Raises InputError for another class, and for one that has changed since.
    """
    if isinstance(description, list):
        return tuple(rebuilt(item, data_dir) for item in description)
    if not isinstance(description, dict):
        return description
    if "is" not in description:
        return {key: rebuilt(item, data_dir) for key, item in description.items()}
    kind = _class(str(description["is"]), str(description.get("from")))
    fields = {key: rebuilt(item, data_dir) for key, item in description.items() if key not in ("is", "from", "source")}
    if any(field.name == "root" for field in dataclasses.fields(kind)):  # where data lies is no part of a description
        fields["root"] = data_dir
    try:
        return kind(**fields)
    except TypeError as error:
        raise InputError(f"{kind.__name__} has changed since the study ran ({error}): export with its commit") from None


def _class(name: str, origin: str) -> Any:
    """Return the dataclass of this public name below trainables/, in whichever module it lies.

    Records of schema 1 name its module, from which it may have moved since.
    """
    if origin.split(".")[0] != "trainables":
        raise InputError(
            f"{name} comes from {origin!r}, not from trainables/, and cannot be rebuilt from the record: move it to a "
            "file there and run the study with it"
        )
    for module in _modules_naming(name):
        for kind in vars(importlib.import_module(module)).values():
            ours = isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module
            if ours and get_public_name(kind) == name:
                return kind
    raise InputError(f"there is no {name} that studies are made of in trainables/: export with the study's own commit")


def _modules_naming(name: str) -> Iterator[str]:
    """The modules below trainables/ whose text has a class of this name, or of this former name."""
    defined = re.compile(
        rf"^class {re.escape(name)}\b|^    {PUBLIC_NAME_ATTRIBUTE}\b.*[\"']{re.escape(name)}[\"']", re.MULTILINE
    )
    folder = Path(trainables.__path__[0])
    for path in sorted(folder.rglob("*.py")):
        if defined.search(path.read_text(encoding="utf-8")):
            yield ".".join((folder.name, *path.relative_to(folder).with_suffix("").parts))


def _weights(trained: Trained) -> dict[str, Tensor]:
    folder = trained.checkpoint
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrialNote)  # says that training starts again, which it does not here
        state = checkpoint.load(folder)
    if state is None:
        raise InputError(f"{folder} holds no readable weights: restore state.pt from a copy, or run the study anew")
    last = state["rows"][-1]["metrics"]
    if any(last.get(name) != value for name, value in trained.scores.items()):
        raise InputError(f"the weights in {folder} are not those that were tested: restore state.pt from a copy")
    weights: dict[str, Tensor] = state["net"]
    return weights
