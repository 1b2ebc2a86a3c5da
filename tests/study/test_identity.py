"""What a class is called in descriptions, and so in trial ids and teacher keys: nothing that a move changes."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import study
import trainables
from study.identity import describe, find_differences, get_public_name
from study.space_file import load_space
from tests.study.toy import open_coordinator, toy
from trainables.data.cifar import Cifar
from trainables.models.resnet_cifar import ResNet
from trainables.tasks.simulated import Simulated, SimulatedLoss
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Recipe

SPACE = """
from dataclasses import dataclass
from study import Arm, Budget, Study
from helper import Theirs
from trainables import Simulated, SimulatedLoss, SimulatedStudent

@dataclass(frozen=True)
class Mine(SimulatedLoss):
    pass

study = Study(name="x", question="?", task=Simulated(), students=(SimulatedStudent(),),
    arms=(Arm("mine", Mine(), baseline=True), Arm("theirs", Theirs())), budget=Budget(1, 1, 1))
"""

HELPER = '''
from dataclasses import dataclass
from trainables import SimulatedLoss

def unused(): return 1

@dataclass(frozen=True)
class Theirs(SimulatedLoss):
    """Of a helper."""
    def boost(self): return 1
'''


def test_class_of_the_packages_is_described_without_its_module() -> None:
    assert describe(SimulatedLoss()).items() >= {"is": "SimulatedLoss", "from": "trainables"}.items()
    assert describe(toy()).items() >= {"is": "Study", "from": "study"}.items()


def test_move_of_a_module_changes_no_trial_id_and_no_teacher_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Teacher(ResNet(8), epochs=2)

    def identity() -> tuple[Any, ...]:
        coordinator = open_coordinator(toy(task=Simulated(teacher_epochs=0)), tmp_path)
        ids = [run.trial.id for run in iter(coordinator.next_trial, None)]
        return ids, teacher.compute_key(["inputs"]), describe(Cifar(10))

    before = identity()
    for moved in (Simulated, SimulatedLoss, Teacher, ResNet, Recipe, Cifar):
        monkeypatch.setattr(moved, "__module__", "trainables.another.place")
    assert identity() == before
    monkeypatch.setattr(ResNet, "__module__", "elsewhere")
    assert identity() != before


def test_renamed_class_may_keep_its_name_and_its_heirs_do_not_take_it() -> None:
    @dataclass(frozen=True)
    class Renamed:
        __public_name__: ClassVar[str] = "Former"

    class Heir(Renamed):
        pass

    assert describe(Renamed())["is"] == "Former"
    assert get_public_name(Heir).endswith("Heir")


def describable() -> Iterator[type]:
    """The dataclasses of the packages that may be part of a study: frozen, and without tensors."""
    for package in (study, trainables):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                for kind in vars(importlib.import_module(found.name)).values():
                    ours = isinstance(kind, type) and kind.__module__ == found.name and is_dataclass(kind)
                    if ours and kind.__dataclass_params__.frozen and not _holds_tensors(kind):
                        yield kind


def _holds_tensors(kind: type) -> bool:
    return any("Tensor" in str(field.type) for field in fields(kind))


def test_no_two_classes_that_can_be_described_share_a_name() -> None:
    places: dict[tuple[str, str], list[str]] = {}
    for kind in describable():
        places.setdefault((kind.__module__.split(".")[0], get_public_name(kind)), []).append(kind.__module__)
    assert len(places) > 100
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def loaded(folder: Path, name: str = "x.py", space: str = SPACE, helper: str = HELPER) -> Any:
    sys.modules.pop("helper", None)
    (folder / "helper.py").write_text(helper)
    (folder / name).write_text(space)
    return describe(load_space(folder / name, None, None).study)


def changes(one: Any, other: Any) -> list[str]:
    return [line.split(":")[0] for line in find_differences(one, other)]


def test_class_of_the_users_own_is_known_by_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    first = loaded(tmp_path)
    mine, theirs = (arm["loss"] for arm in first["arms"])
    assert (mine["is"], mine["from"], theirs["is"], theirs["from"]) == ("Mine", "space file", "Theirs", "helper")
    assert len(mine["source"]) == len(theirs["source"]) == 16
    assert loaded(tmp_path, "renamed.py") == first
    assert loaded(tmp_path, space=SPACE.replace("    pass", '    "A loss."  # of mine\n    pass')) == first
    assert loaded(tmp_path, helper=HELPER.replace("Of a helper", "Of the helper")) == first
    assert changes(first, loaded(tmp_path, space=SPACE.replace("    pass", "    x = 1"))) == ["arms[0].loss.source"]
    assert changes(
        first, loaded(tmp_path, helper=HELPER.replace("boost(self): return 1", "boost(self): return 2"))
    ) == ["arms[1].loss.source"]
