"""RunOptions: parsed from a command line, and rendered as one again."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from study.cli import run
from study.cli.options import RunOptions


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
