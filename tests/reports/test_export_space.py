"""Export of students whose nets come from a study's space file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reports.export import main
from study.code_version import read_code_version
from study.identity import describe
from study.space_file import import_space_file
from tests.reports.fake_study import Writer
from tests.trainables import small
from trainables.distill import distill
from trainables.losses.none import NoDistillation
from trainables.models.net_function import Net
from trainables.task import NO_TEACHER

SPACE = """
from torch import nn
from own_blocks import make_head

def own_net(channels, classes, width):
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride=2), nn.ReLU(), *make_head(width, classes))
"""
BLOCKS = """
from torch import nn

def make_head(width, classes):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)
"""


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "own_space.py"
    path.write_text(SPACE, encoding="utf-8")
    (tmp_path / "own_blocks.py").write_text(BLOCKS, encoding="utf-8")
    before = list(sys.path)
    yield path
    sys.path[:] = before
    sys.modules.pop("own_blocks", None)


@pytest.fixture
def storage(space: Path, writer: Writer, tmp_path: Path) -> Path:
    """A study of one cell and one confirm run, whose student is a net of the space file."""
    student = Net(import_space_file(space).own_net, {"width": 6})
    code, loss = read_code_version(space), NoDistillation()
    config = {"task": describe(small.TASK), "student": describe(student), "loss": describe(loss)}
    config |= {"train_on": "train+val", "inputs": {"data": small.TASK.data.load().fingerprint}}
    writer.arms, writer.versus, writer.searched = {"none": [0.0]}, {}, set()
    writer.study["budget"]["seeds"] = 1
    writer.study |= {"space": {"path": str(space), "profile": "", "source": SPACE}}
    writer.study |= {"code": {code.digest: dict(code.files)}}
    for row in writer.fill().trials:
        row["code"] = code.digest
        if row["phase"] == "confirm":
            folder = writer.folder / "checkpoints" / row["trial_id"]
            job = small.job(small.TASK, tmp_path, folder, phase="confirm", epochs=1, loss=loss, train_on="train+val")
            (trained,) = distill(small.TASK, job, lambda: small.TASK.build(student), small.RECIPE, loss, NO_TEACHER)
            row |= {"config": json.dumps(config), "test/accuracy": trained["metrics"]["test/accuracy"]}
    return writer.write().parent


def export(storage: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["best", "--study", "fake", "--storage-path", str(storage), *options])


def test_code_of_a_study_runs_only_if_it_is_asked_for(storage: Path, space: Path) -> None:
    result = export(storage)
    assert result.exit_code == 2
    assert "own_net comes from 'space file', not from trainables/: give the study's space file with --space" in (
        result.output
    )


def assert_exported(storage: Path, space: str) -> None:
    result = export(storage, "--space", space)
    assert result.exit_code == 0, result.output
    card = (storage / "fake" / "export" / "resnet8-none-seed0" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| parameters | {1 * 6 * 9 + 6 + 6 * 10 + 10} |" in card


def test_net_of_a_recorded_space_file_is_exported(storage: Path, space: Path) -> None:
    space.unlink()
    assert_exported(storage, "recorded")


def test_other_code_than_that_of_the_study_is_refused(storage: Path, space: Path) -> None:
    space.write_text(SPACE.replace("nn.ReLU()", "nn.GELU()"), encoding="utf-8")
    result = export(storage, "--space", str(space))
    assert result.exit_code == 2
    assert "space file of" in result.output
    assert "differ from the code that trained the student" in result.output
    space.write_text(SPACE, encoding="utf-8")
    (storage / "own_blocks.py").write_text(BLOCKS.replace("1)", "1, )"), encoding="utf-8")  # the same code
    assert_exported(storage, str(space))
    (storage / "own_blocks.py").write_text(BLOCKS.replace("nn.Flatten()", "nn.Flatten(1)"), encoding="utf-8")
    assert "own_blocks.py of" in export(storage, "--space", str(space)).output


def test_a_missing_space_file_is_refused(storage: Path) -> None:
    result = export(storage, "--space", "gone.py")
    assert result.exit_code == 2
    assert "there is no space file gone.py; --space recorded runs the text in study.json" in result.output
