"""Restoration of a trained student from its trial's recorded configuration and its checkpoint's weights.

A description (study/identity.py) names classes and fields, so the objects can be made from it. Without the study's
space file only classes below trainables/ are instantiated, and nothing is ever unpickled: reading another person's
study runs none of that person's code.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import trainables
from study.errors import InputError
from study.identity import PUBLIC_NAME_ATTRIBUTE, Defined, get_public_name
from study.task import TrialNote
from trainables.task import Batch, count_parameters, without_pretrained
from trainables.training import checkpoint

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask


@dataclass(frozen=True)
class TrainedTrial:
    """A completed trial, from its record."""

    config: Mapping[str, Any]
    checkpoint: Path
    """The folder of the trial's checkpoint."""
    scores: Mapping[str, float]
    """Recorded test metrics, which identify the weights as those that were tested."""
    space: ModuleType | None = None
    """The study's space file, imported, in which nets, data and tasks from outside trainables/ are found."""


class PredictionModel(nn.Module):
    """A net that returns its prediction only, as its task defines it."""

    def __init__(self, task: DistillationTask[Any], net: nn.Module):
        super().__init__()
        self.net, self._task = net, task

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the prediction (B, …) for normalised inputs (B, C, H, W)."""
        nothing = torch.zeros(1)
        return self._task.outputs(self.net, Batch(inputs, None, nothing, nothing)).prediction


@dataclass(frozen=True)
class RestoredStudent:
    """A net with its trained weights, and the properties of its inputs."""

    task: DistillationTask[Any]
    net: PredictionModel
    """The net in evaluation mode: normalised inputs (B, C, H, W) → prediction."""
    parameters: int
    image: Tensor
    """A normalised validation image (1, C, H, W), for shapes and times."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    any_size: bool
    """Whether the task's images differ in size."""
    class_names: tuple[str, ...] = ()
    """The name of each class of the prediction; empty if they have none."""
    outputs: tuple[Mapping[str, Any], ...] = ()
    """Name, scale and offset of each number of the prediction, where these are numbers with units; else empty."""

    @property
    def metadata(self) -> dict[str, str]:
        """Normalisation of the inputs and names of the outputs, for the exported files."""
        about = {"mean": str(list(self.mean)), "std": str(list(self.std))}
        about |= {"input": "(pixels / 255 - mean) / std, float32, batch x channels x height x width"}
        lists = {"classes": self.class_names, "outputs": self.outputs}
        return about | {name: json.dumps(values, ensure_ascii=False) for name, values in lists.items() if values}


def restore_student(trained: TrainedTrial, data_dir: Path | None) -> RestoredStudent:
    """Return a trial's student after its last epoch, on the CPU and in evaluation mode; its data lies in `data_dir`.

    Raises InputError if data, code or weights differ from the trial's.
    """
    config = trained.config
    task, model = (instantiate(config[name], data_dir, trained.space) for name in ("task", "student"))
    if not hasattr(task, "build"):
        raise InputError(f"a {type(task).__name__} study trains no net: there is nothing to export")
    recorded, found = config["inputs"]["data"], task.data.load().fingerprint
    if found != recorded:
        raise InputError(f"the data has fingerprint {found}, the study was run on {recorded}: give its --data-dir")
    net = task.build(without_pretrained(model))
    try:
        net.load_state_dict(_load_weights(trained))
    except RuntimeError:  # without torch's message, which lists every tensor
        raise InputError(f"{trained.checkpoint} does not fit {model.name}: export with the study's commit") from None
    return prepare_net(task, net)


def prepare_net(task: DistillationTask[Any], net: nn.Module) -> RestoredStudent:
    """Return a net in evaluation mode, with the properties of the task's images."""
    examples: Any = task.examples("val", "cpu")
    first = torch.zeros(1, dtype=torch.int64)
    record = task.data_record()
    return RestoredStudent(
        task=task,
        net=PredictionModel(task, net).eval(),
        parameters=count_parameters(net),
        image=examples.batch(first, first).inputs.contiguous(),
        mean=tuple(round(float(value), 6) for value in examples.mean),
        std=tuple(round(float(value), 6) for value in examples.std),
        any_size=task.evaluation_batch("cpu") == 1,
        class_names=tuple(record.get("class_names", ())),
        outputs=tuple(record.get("outputs", ())),
    )


def instantiate(description: Any, data_dir: Path | None, space: ModuleType | None = None) -> Any:
    """Return the object that `study.identity.describe` described, with its data in `data_dir`.

    Classes and functions from outside trainables/ are those of `space`, the study's imported space file, and of the
    modules that it imports.
    Raises InputError for one of these without `space`, and for a class whose fields have changed since.
    """
    if isinstance(description, list):
        return tuple(instantiate(item, data_dir, space) for item in description)
    if not isinstance(description, dict):
        return description
    if "is" not in description:
        return {key: instantiate(item, data_dir, space) for key, item in description.items()}
    name, origin = str(description["is"]), str(description.get("from"))
    kind = _find_class(name) if origin.split(".")[0] == "trainables" else _find_in_space(name, origin, space)
    if inspect.isfunction(kind):
        return kind
    declared = {field.name for field in dataclasses.fields(kind)}
    about_class = {"is", "from", "source"} - declared  # a net's source is that of its weights, a class's its code
    fields = {key: instantiate(item, data_dir, space) for key, item in description.items() if key not in about_class}
    if "root" in declared:  # a description omits the location of data
        fields["root"] = data_dir
    if {"root", "cache"} <= declared:  # of large sets, few images are needed
        fields.setdefault("cache", False)
    try:
        return kind(**fields)
    except TypeError as error:
        raise InputError(f"{kind.__name__} has changed since the study ran ({error}): export with its commit") from None


def _find_class(name: str) -> Any:
    """Return the dataclass of this public name, in whichever module below trainables/ it lies.

    Records of schema 1 name its module, from which it may have moved since.
    """
    named = rf"^class {re.escape(name)}\b|^    {PUBLIC_NAME_ATTRIBUTE}\b.*[\"']{re.escape(name)}[\"']"
    folder = Path(trainables.__path__[0])
    for path in sorted(folder.rglob("*.py")):
        if not re.search(named, path.read_text(encoding="utf-8"), re.MULTILINE):
            continue
        module = ".".join((folder.name, *path.relative_to(folder).with_suffix("").parts))
        for kind in _list_definitions(importlib.import_module(module)):
            if get_public_name(kind) == name and dataclasses.is_dataclass(kind):
                return kind
    raise InputError(f"there is no {name} that studies are made of in trainables/: export with the study's own commit")


def _find_in_space(name: str, origin: str, space: ModuleType | None) -> Any:
    """Return the dataclass or function of this public name in the space file, or in a module that it imports."""
    if space is None:
        raise InputError(
            f"{name} comes from {origin!r}, not from trainables/: give the study's space file with --space FILE, whose "
            "code is then run"
        )
    for kind in _list_definitions(sys.modules.get(origin, space)):
        if get_public_name(kind) == name and (dataclasses.is_dataclass(kind) or inspect.isfunction(kind)):
            return kind
    raise InputError(f"there is no {name} in {origin!r}: give the space file that the study was run with")


def _list_definitions(module: ModuleType) -> list[Defined]:
    """Return the classes and functions that a module defines, without those that it imports."""
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type | FunctionType)]
    return [kind for kind in kinds if kind.__module__ == module.__name__]


def _load_weights(trained: TrainedTrial) -> dict[str, Tensor]:
    folder = trained.checkpoint
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrialNote)  # it announces that training starts again, which is wrong here
        state = checkpoint.load(folder)
    if state is None:
        raise InputError(f"{folder} contains no readable weights: restore state.pt from a copy, or run the study again")
    last = state["rows"][-1]["metrics"]
    if any(last.get(name) != value for name, value in trained.scores.items()):
        raise InputError(f"the weights in {folder} are not those that were tested: restore state.pt from a copy")
    weights: dict[str, Tensor] = state["net"]
    return weights
