"""RunOptions: parsed from a command line, rendered as one again, and applied to a study."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import cifar_profiles
import pytest

from study import Study
from study.cli import run
from study.cli.options import RunOptions, apply_options
from study.space_file import load_space
from tests.study.toy import toy
from trainables.tasks.simulated import Simulated


def parse(words: list[str]) -> RunOptions:
    return RunOptions(**run.main.make_context("run", words).params)


def test_fields_are_named_and_ordered_as_the_options_of_run() -> None:
    assert [field.name for field in dataclasses.fields(RunOptions)] == [param.name for param in run.main.params]


def test_options_without_values_have_the_defaults_of_run() -> None:
    assert parse(["toy.py"]) == RunOptions(Path("toy.py"))
    assert RunOptions(Path("toy.py")).to_words() == ["toy.py"]


@pytest.mark.parametrize(
    "words",
    [
        "'the space.py' --profile paper --data-dir /data --storage-path s3://bucket/runs --name a --seed -3",
        "toy.py --trials 4 --epochs 2 --seeds 3 --wall-hours 0.1 --gpu-hours 2 --usd-per-hour 0.4 --max-concurrent 2",
        "toy.py --gpus-per-worker auto --workers-per-trial 2 --teacher t.pth --teacher-store off --precision bfloat16",
        "toy.py --gpus-per-worker 0.25 --address auto --fresh --retry-failed --allow-code-change --dry-run",
        "toy.py --log mlflow --log wandb --verbose --quiet --seconds-per-epoch 1e-07",
    ],
)
def test_words_are_those_that_were_parsed(words: str) -> None:
    assert shlex.join(parse(shlex.split(words)).to_words()) == words


def test_former_names_of_options_are_rendered_as_the_present_ones() -> None:
    assert parse(["toy.py", "--gpus-per-trial", "0.5", "-v"]).to_words() == [
        "toy.py",
        "--gpus-per-worker",
        "0.5",
        "--verbose",
    ]


def test_command_that_continues_a_study_leaves_out_what_holds_for_one_run() -> None:
    options = parse(["toy.py", "--fresh", "--allow-code-change", "--trials", "4"])
    assert options.to_command() == "python -m study.run toy.py --trials 4"


@pytest.mark.parametrize(
    ("typed", "command"),
    [("/venv/bin/kdstudy", "kdstudy run"), ("/x/study/run.py", "python -m study.run"), ("", "python -m study.run")],
)
def test_command_that_continues_is_of_the_kind_that_was_typed(
    typed: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [typed, "run", "study.py"])
    assert RunOptions(Path("study.py")).to_command() == f"{command} study.py"


# -- applied to a study ------------------------------------------------------------------------------------------------


def change(study: Study, **given: Any) -> Study:
    return apply_options(study, RunOptions(Path("toy.py"), **given))


def test_other_epochs_leave_the_papers_protocol_other_trials_do_not() -> None:
    study = toy(protocol="P1")
    assert change(study) == study
    assert change(study, trials=9).protocol == "P1"
    assert change(study, epochs=9).protocol == ""


def test_each_option_replaces_its_field() -> None:
    given = {"name": "other", "seed": 5, "reproducible_search": 3}
    budget = {"trials": 9, "seeds": 4, "wall_hours": 0.5, "gpu_hours": 2.0, "usd_per_hour": 1.5}
    study = toy()
    changed = change(study, **given, **budget)
    assert changed == dataclasses.replace(study, **given, budget=dataclasses.replace(study.budget, **budget))


def test_a_teachers_file_is_an_assumption_and_keeps_the_protocol(tmp_path: Path) -> None:
    study = load_space(Path(cifar_profiles.__file__).parent / "lp_cifar.py", "paper", None).study
    changed = change(study, teacher=str(tmp_path / "resnet110.pth"))
    assert changed.task == dataclasses.replace(
        study.task, teacher=dataclasses.replace(study.task.teacher, weights=tmp_path / "resnet110.pth")
    )
    assert (changed.protocol, changed.assumptions[:-1]) == ("P1", study.assumptions)
    assert changed.assumptions[-1].startswith("The teacher was read from resnet110.pth, given with --teacher")


def test_another_precision_leaves_the_papers_protocol() -> None:
    study = load_space(Path("spaces/lp_cifar.py"), "paper", Path("data")).study
    assert study.protocol
    assert change(study, precision="float32") == study
    assert change(study, precision="bfloat16").protocol == ""


def test_fewer_epochs_shorten_the_teacher_in_proportion_more_do_not_lengthen_it() -> None:
    study = toy(task=Simulated(teacher_epochs=40))  # of 6 epochs
    teacher = {epochs: change(study, epochs=epochs).task.teacher_epochs for epochs in (1, 3, 6, 12)}
    assert teacher == {1: 7, 3: 20, 6: 40, 12: 40}
