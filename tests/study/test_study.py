"""What a Study and a space file refuse, each in one line that says the way out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cifar_profiles as profiles
import numpy as np
import pytest

from study import Arm, Budget, CmaEs, Grid, Never, Study, WarmStart, choice, uniform
from study.driver import check_inputs
from study.errors import InputError
from study.identity import describe, differences, digest
from study.space_file import in_precision, load_space, overridden
from tests.study.toy import BASELINE, SEARCHED, toy
from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.kd import KD
from trainables.tasks.simulated import Extra, Simulated, SimulatedLoss, SimulatedStudent


def first(*losses: Any) -> Arm:
    return dataclasses.replace(SEARCHED, first=losses)


@dataclasses.dataclass(frozen=True)
class Stateful(SimulatedLoss):
    """A loss with a discriminator of its own."""

    def new_state(self, device: str) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Synchronized(Stateful):
    """A stateful loss whose state is kept equal across workers."""

    def single_worker_reason(self) -> str:
        return ""


@dataclasses.dataclass(frozen=True)
class Beginning(SimulatedLoss):
    """A stateful loss written for version 0.1."""

    def begin(self, device: str) -> Any: ...


DAT = DataAdaptiveTemperature()
TEN = tuple(SimulatedLoss(x=number / 10, gain=0.05) for number in range(10))
CHOOSING = Arm("choosing", SimulatedLoss(x=uniform(0, 1), extra=choice(None, Extra())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": (SEARCHED,)}, "no arm is a baseline"),
        ({"arms": ()}, "no arm is a baseline"),
        ({"arms": (BASELINE, BASELINE)}, "two arms are called 'plain'"),
        ({"students": (SimulatedStudent(), SimulatedStudent())}, "two students are called 'student'"),
        ({"students": ()}, "at least one student"),
        ({"metric": "test/accuracy"}, r"only validation metrics may \(val/accuracy, val/cost\)"),
        ({"metric": "val/loss"}, "only validation metrics may"),
        ({"arms": (BASELINE, dataclasses.replace(SEARCHED, versus="nobody"))}, "compared with 'nobody'"),
        ({"arms": (BASELINE, dataclasses.replace(SEARCHED, versus="searched"))}, "compared with 'searched'"),
        ({"confirm_on": "trainval"}, "confirm_on is 'trainval'"),
        ({"confirm_on": "test"}, "confirm_on is 'test'"),
        ({"arms": (dataclasses.replace(BASELINE, name="a / b"),)}, "arm name 'a / b'"),
        ({"arms": (BASELINE, Arm("array", SimulatedLoss(gain=np.float32(1))))}, "cannot be part of a study"),
        ({"name": "../elsewhere"}, "study name '../elsewhere'"),
        ({"name": "teachers"}, "is reserved"),
        ({"arms": (BASELINE, Arm("hot", KD(temperature=uniform(-1, 4))))}, "arm 'hot' at an end .* temperature is -1"),
        (
            {"objectives": ("val/accuracy",)},
            "objective 'val/accuracy': .* other than 'val/accuracy', each once: val/cost",
        ),
        ({"objectives": ("test/cost",)}, "objective 'test/cost': allowed are validation metrics"),
        ({"objectives": ("val/cost", "val/cost")}, "objective 'val/cost': .* each once"),
        ({"objectives": "val/cost"}, "write a tuple"),
        ({"objectives": ("val/cost",)}, "it would prune by 'val/accuracy' alone, .* use stopping=Never"),
        (
            {"objectives": ("val/cost",), "stopping": Never(), "sampler": CmaEs()},
            "CmaEs, which optimises a single metric",
        ),
        ({"warm_start": "runs/earlier"}, "warm_start is 'runs/earlier'; write WarmStart"),
        ({"warm_start": WarmStart("runs/earlier"), "sampler": Grid()}, "a grid tries all its points anyway"),
        ({"arms": (BASELINE, CHOOSING), "sampler": CmaEs()}, "arm 'choosing': CmaEs cannot search the choice 'extra'"),
        ({"arms": (BASELINE, first(SimulatedLoss(x=2, gain=0.05)))}, "arm 'searched': .* x is 2; allowed .* 0 to 1"),
        ({"arms": (BASELINE, first(SimulatedLoss(x=0.5)))}, "gain is 0.0; the search space has 0.05 there, fixed"),
        ({"arms": (BASELINE, first(KD()))}, "the loss is KD.*; the search space has a SimulatedLoss there"),
        ({"arms": (BASELINE, first(*[SimulatedLoss(x=0.5, gain=0.05)] * 2))}, "two first points are the same"),
        ({"arms": (BASELINE, first(*TEN))}, "arm 'searched' has 10 first points, budget.trials is 9"),
        ({"arms": (BASELINE, dataclasses.replace(SEARCHED, first=TEN[0]))}, "write a tuple of losses"),
        ({"arms": (dataclasses.replace(BASELINE, first=TEN),)}, "arm 'plain' has first points and nothing to search"),
        ({"arms": (BASELINE, Arm("old", Beginning()))}, r"Beginning defines begin\(\), .* now called new_state\(\)"),
        ({"workers_per_trial": 0}, "workers_per_trial is 0; allowed is a whole number, at least 1"),
        ({"workers_per_trial": 1.5}, "workers_per_trial is 1.5"),
        (
            {"workers_per_trial": 2, "arms": (BASELINE, Arm("gan", Stateful()))},
            "arm 'gan': Stateful cannot be trained by 2 workers: it owns parts .*; use workers_per_trial=1",
        ),
        (
            {"workers_per_trial": 2, "arms": (BASELINE, Arm("dat", KD(adaptive=choice(None, DAT))))},
            "arm 'dat': KD cannot be trained by 2 workers: its adaptive temperature ranks .*; use workers_per_trial=1",
        ),
    ],
)
def test_study_that_cannot_be_fair_or_work_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        dataclasses.replace(toy(), **change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["trials", "epochs", "seeds"])
@pytest.mark.parametrize("value", [0, -1])
def test_budget_of_nothing_is_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}; allowed is a whole number, at least 1"):
        Budget(**({"trials": 1, "epochs": 1, "seeds": 1} | {name: value}))


@pytest.mark.parametrize("loss", [SimulatedLoss(), KD(), Synchronized()])
def test_losses_without_a_reason_may_be_split_over_workers(loss: Any) -> None:
    assert toy((BASELINE, Arm("split", loss)), workers_per_trial=2).workers_per_trial == 2


def test_arms_are_compared_with_the_first_baseline_unless_they_say_otherwise() -> None:
    second = Arm("second", SimulatedLoss(), baseline=True)
    study = toy((BASELINE, second, SEARCHED, Arm("other", SimulatedLoss(), versus="second")))
    versus = {arm.name: found.name if (found := study.find_comparison(arm)) else None for arm in study.arms}
    assert versus == {"plain": None, "second": "plain", "searched": "plain", "other": "second"}


SPACE = """
from study import Arm, Budget, Study
from trainables import Extra, Simulated, SimulatedLoss, SimulatedStudent

def small(data_dir):
    return Study("s", "?", Simulated(), (SimulatedStudent(),), (Arm("a", SimulatedLoss(), baseline=True),),
                 Budget(1, 2, 3), protocol="P1")

study = {"small": small, "broken": lambda data_dir: 5}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.py"
    path.write_text(SPACE)
    return path


def test_first_profile_is_the_default(space: Path) -> None:
    loaded = load_space(space, None, None)
    assert (loaded.profile, loaded.study.name) == ("small", "s")
    assert loaded.source == SPACE


@pytest.mark.parametrize(
    ("content", "profile", "message"),
    [
        (SPACE, "large", "unknown profile 'large'; .* has: small, broken"),
        (SPACE, "broken", "returned int, not a Study"),
        ("x = 1", None, "defines no `study`"),
        ("study = 5", None, "`study` in .* is int"),
        ("def (", None, "no valid Python: .*, line 1"),
        (SPACE + "\nstudy = small(None)", "small", "has no profiles"),
    ],
)
def test_bad_space_file_is_refused(space: Path, content: str, profile: str | None, message: str) -> None:
    space.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        load_space(space, profile, None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('protocol="P1"', 'readings=("Rounded down.",)', r"line \d+: .*'readings'; it is now called 'assumptions'"),
        ("import Extra", "import Poly, Extra", r"line \d+: .*'Poly'.*; it is now called 'Polynomial'"),
    ],
)
def test_renamed_word_in_a_space_file_is_refused_with_the_new_one(
    space: Path, old: str, new: str, message: str
) -> None:
    space.write_text(SPACE.replace(old, new))
    with pytest.raises(InputError, match=message):
        load_space(space, None, None)


def test_missing_space_file_is_refused_with_its_neighbours(space: Path) -> None:
    with pytest.raises(InputError, match=r"no space file .*missing\.py; there are: .*space\.py"):
        load_space(space.parent / "missing.py", None, None)


OWN_LOSS = """
from dataclasses import dataclass
from trainables import SimulatedLoss

@dataclass(frozen=True)
class Mine(SimulatedLoss):
    def boost(self):
        return BOOST
"""


def test_class_written_in_a_space_file_is_known_by_its_text(space: Path) -> None:
    def loaded(boost: str) -> Any:
        space.write_text(
            OWN_LOSS.replace("BOOST", boost) + SPACE.replace('Arm("a", SimulatedLoss()', 'Arm("a", Mine()')
        )
        return describe(load_space(space, None, None).study)

    assert loaded("1") == loaded("1")
    assert [line.split(":")[0] for line in differences(loaded("1"), loaded("5"))] == ["arms[0].loss.source"]


def test_other_epochs_leave_the_papers_protocol_other_trials_do_not(space: Path) -> None:
    study = load_space(space, None, None).study
    nothing = {"name": None, "seed": None, "trials": None, "epochs": None, "seeds": None}
    assert overridden(study, **nothing).protocol == "P1"
    assert overridden(study, **(nothing | {"trials": 9})).protocol == "P1"
    assert overridden(study, **(nothing | {"epochs": 9})).protocol == ""


def test_another_precision_leaves_the_papers_protocol() -> None:
    study = load_space(Path("spaces/lp_cifar.py"), "paper", Path("data")).study
    assert study.protocol
    assert in_precision(study, "float32") == study
    assert in_precision(study, "bfloat16").protocol == ""


def test_fewer_epochs_shorten_the_teacher_in_proportion_more_do_not_lengthen_it() -> None:
    nothing = {"name": None, "seed": None, "trials": None, "seeds": None}
    study = toy(task=Simulated(teacher_epochs=40))  # of 6 epochs
    teacher = {epochs: overridden(study, epochs=epochs, **nothing).task.teacher_epochs for epochs in (1, 3, 6, 12)}
    assert teacher == {1: 7, 3: 20, 6: 40, 12: 40}


SPACES = sorted(set((Path(__file__).parents[2] / "spaces").glob("*.py")) - {Path(profiles.__file__)})


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_file_asks_its_question_first_and_loads_with_every_profile(path: Path) -> None:
    module = load_space(path, None, None).module
    for profile in module.study:
        study = load_space(path, profile, Path("/nowhere")).study
        assert isinstance(study, Study)
        assert study.question.endswith("?")
        assert (module.__doc__ or "").splitlines()[0] == study.question


def test_arm_may_be_for_some_students_only() -> None:
    students = (SimulatedStudent(), SimulatedStudent("yardstick"))
    study = toy(students=students, arms=(BASELINE, dataclasses.replace(SEARCHED, students=("student",))))
    assert [cell.name for cell in study.cells] == ["student / plain", "student / searched", "yardstick / plain"]


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (
            (BASELINE, dataclasses.replace(SEARCHED, students=("nobody",))),
            "arm 'searched' is for student 'nobody'; the",
        ),
        ((dataclasses.replace(BASELINE, students=("student",)),), "student 'yardstick' has no arm"),
        (
            (dataclasses.replace(BASELINE, students=("student",)), SEARCHED),
            "'searched' is compared with 'plain', which is not for 'yardstick'",
        ),
    ],
)
def test_arms_for_some_students_that_cannot_be_compared_are_refused(arms: tuple[Arm, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        toy(students=(SimulatedStudent(), SimulatedStudent("yardstick")), arms=arms)


def test_losses_are_checked_with_the_students_of_their_arms_alone(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Listening(Simulated):
        def check(self, students: Any, losses: Any, storage: Path, trained_on: Any = ()) -> dict[str, Any]:
            heard.append((students[0].name, {loss.gain for loss in losses}))
            return {}

    heard: list[Any] = []
    study = toy(
        task=Listening(),
        students=(SimulatedStudent(), SimulatedStudent("yardstick")),
        arms=(BASELINE, Arm("better", SimulatedLoss(gain=0.2), students=("student",))),
    )
    check_inputs(study, tmp_path)
    assert heard == [("student", {0.0, 0.2}), ("yardstick", {0.0})]


def test_description_leaves_out_where_and_keeps_what() -> None:
    from trainables.data.cifar import Cifar

    assert describe(Cifar(10, Path("/a"))) == describe(Cifar(10, Path("/b")))
    assert describe(Cifar(10)) == {"is": "Cifar", "from": "trainables.data.cifar", "classes": 10}
    assert digest(Cifar(10)) != digest(Cifar(100))


def test_differences_name_each_changed_leaf() -> None:
    old, new = describe(toy()), describe(toy(seed=5, budget=Budget(9, 7, 3)))
    assert list(differences(old, new)) == ["budget.epochs: 6 → 7", "seed: 0 → 5"]
    assert list(differences(old, old)) == []


def test_readmes_example_of_a_loss_is_a_space_file_that_passes_every_check(tmp_path: Path) -> None:
    readme = (Path(__file__).parent.parent.parent / "README.md").read_text()
    (example,) = (block.split("```")[0] for block in readme.split("```python\n")[1:] if "class LogitMse" in block)
    (tmp_path / "mse.py").write_text(example)
    study = load_space(tmp_path / "mse.py", None, None).study
    assert check_inputs(study, tmp_path)["data"]["classes"] == 10


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("KD(temprature=4)", r"mse\.py, line \d+: TypeError: .*'temprature'"),
        ("LogitMse(weight='0.5')", "LogitMse raises AttributeError on two samples of 10 classes"),
        ("Whole()", r"Whole returns a tensor of shape \(2, 10\); a loss is one number"),
        ("Raises()", r"Raises raises ValueError on two samples of 10 classes: shapes differ"),
        ("NoWeight()", "NoWeight has no 'task_weight': see \"Adding a loss\""),
        ("Unknown()", r"mse\.py, line \d+: NameError"),
    ],
)
def test_mistake_in_an_own_loss_is_one_line(tmp_path: Path, mistake: str, message: str) -> None:
    readme = (Path(__file__).parent.parent.parent / "README.md").read_text()
    (example,) = (block.split("```")[0] for block in readme.split("```python\n")[1:] if "class LogitMse" in block)
    own = """
from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.kd import KD

class Whole(LogitMse):
    def __call__(self, student, teacher, targets, progress):
        return student.prediction

class Raises(LogitMse):
    def __call__(self, student, teacher, targets, progress):
        raise ValueError("shapes differ")

@dataclass(frozen=True)
class NoWeight:
    needs_teacher: ClassVar[bool] = True

study = Study("""
    text = example.replace("\nstudy = Study(", own).replace("LogitMse(weight=log_uniform(0.01, 1))", mistake)
    (tmp_path / "mse.py").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        check_inputs(load_space(tmp_path / "mse.py", None, None).study, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["3", 2.5, None, True])
def test_budget_of_something_else_than_a_number_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="allowed is a whole number"):
        Budget(trials=value, epochs=1, seeds=1)
