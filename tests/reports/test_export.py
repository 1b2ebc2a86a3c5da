from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from reports.analysis.export_choice import choose_cell, get_confirm_run
from reports.analysis.statistics import compute_mean
from reports.export import main
from reports.load import StudyRecords, load_study
from reports.text.model_card import make_model_card
from study.errors import InputError
from study.identity import describe
from tests.reports.fake_study import DKD, NONE, Writer
from tests.reports.page.test_page import HOSTILE
from tests.trainables import small
from trainables.distill import distill
from trainables.export import onnx as exporting
from trainables.export.onnx import ExportedModel, Latency
from trainables.export.restore import TrainedTrial
from trainables.losses.none import NoDistillation
from trainables.models.resnet_cifar import ResNet
from trainables.task import NO_TEACHER

CELL = "resnet8 / DKD"
WRITTEN = ExportedModel(
    parameters=5142,
    macs=49568,
    input_shape=(1, 1, 8, 8),
    output_shape=(1, 10),
    any_size=False,
    mean=(0.25,),
    std=(0.5,),
    worst_difference=3e-7,
    latencies={"torch": Latency(0.0002, 0.0001, 0.0031, 100)},
    sha256={"model.onnx": "ab" * 32},
    versions={"torch": "2.9.0"},
)


# -- the model card ------------------------------------------------------------------------------------------------


def written_card(records: StudyRecords, name: str = CELL) -> str:
    cell = next(cell for cell in records.cells if cell.name == name)
    config = {"task": {"is": "Classification"}, "loss": {"is": "DKD", "beta": 8.0}, "train_on": "train+val"}
    return make_model_card(records, cell, "named by --cell", get_confirm_run(records, cell, 2), config, WRITTEN)


def test_card_tells_the_cells_mean_from_this_runs_own_score(study: Path) -> None:
    text, mean = written_card(load_study(study)), compute_mean(DKD)
    assert mean.interval is not None
    half = 100 * (mean.interval.high - mean.mean)
    assert f"| test accuracy, % | {100 * mean.mean:.2f} ± {half:.2f} | 8 | {100 * DKD[2]:.2f} |" in text
    gain = 100 * (np.mean(DKD) - np.mean(NONE))
    assert (
        f"Against none, over 8 shared seeds: +{gain:.2f} points accuracy, p = 0.016 (Holm-corrected), better." in text
    )


def test_card_says_how_the_net_is_fed_and_where_it_comes_from(study: Path) -> None:
    text = written_card(load_study(study))
    for part in (
        "(pixels / 255 − mean) / std",
        "| mean | 0.25 |",
        "| std | 0.5 |",
        "batch × 1 × 8 × 8",
        "batch × 10, float32: class logits (B, K)",
        "| parameters | 5,142 |",
        "| multiply-accumulates | 49,568 ",
        "0.2 ms (median; 0.1 to 3.1 in 100 passes)",
        "| model.onnx | SHA-256 " + "ab" * 32,
        "| commit | 0123456789abcdef0123456789abcdef01234567, with uncommitted changes |",
        "| loss | DKD (beta 8) |",
        "| fingerprint of the data | 5f1c0a9be2d34471 |",
        "| fingerprint of the teacher | 9d2e6c11aa07f3b5 |",
        "| protocol | not that of any paper |",
        "seed number 2 (1002)",
    ):
        assert part in text


def shape(text: str) -> list[tuple[str, int]]:
    """A Markdown text's headings and rows: what each line is, and its number of cells."""
    return [(line[:1] if line[:1] in "#|*" else "", line.replace("\\|", "").count("|")) for line in text.splitlines()]


def test_card_keeps_hostile_text_as_text(writer: Writer) -> None:
    def of(name: str) -> str:
        other = Writer(writer.folder.parent / "other")
        other.arms = {name if arm == "DKD" else arm: values for arm, values in other.arms.items()}
        other.versus = {name: "none"}
        other.study |= {"question": name, "name": name}
        other.study["provenance"]["command"] = name
        return written_card(load_study(other.fill().write()), f"resnet8 / {name}")

    calm, hostile = of("calm"), of(f"{HOSTILE} | [x](y) `z`\n# heading")
    assert shape(hostile) == shape(calm)
    assert not re.search(r"<[a-z/!]", hostile)


# -- the command ---------------------------------------------------------------------------------------------------


def real(writer: Writer, tmp_path: Path) -> Path:
    """A study of one cell whose three confirm runs are real trainings of the small task."""
    student, loss = ResNet(8, width=4), NoDistillation()
    config = {"task": describe(small.TASK), "student": describe(student), "loss": describe(loss)}
    config |= {"train_on": "train+val", "inputs": {"data": small.TASK.data.load().fingerprint}}
    writer.arms, writer.versus, writer.searched = {"none": [0.0] * 3}, {}, set()
    writer.study["budget"]["seeds"] = 3
    for row in writer.fill().trials:
        if row["phase"] == "confirm":
            folder = writer.folder / "checkpoints" / row["trial_id"]
            job = small.job(
                small.TASK,
                tmp_path,
                folder,
                phase="confirm",
                epochs=1,
                loss=loss,
                seed=row["seed"],
                train_on="train+val",
            )
            (told,) = distill(small.TASK, job, lambda: small.TASK.build(student), small.RECIPE, loss, NO_TEACHER)
            row |= {"config": json.dumps(config), "test/accuracy": told["metrics"]["test/accuracy"]}
    return writer.write()


def test_command_exports_a_real_student(writer: Writer, tmp_path: Path) -> None:
    folder = real(writer, tmp_path)
    result = CliRunner().invoke(main, ["best", "--study", "fake", "--storage-path", str(tmp_path)])
    assert result.exit_code == 0, result.output
    out = folder / "export" / "resnet8-none-seed0"
    assert result.output.splitlines() == ["resnet8 / none: the only confirmed cell", str(out)]
    assert {path.name for path in out.iterdir()} == {"model.onnx", "model.safetensors", "MODEL_CARD.md", "export.json"}
    text = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    score = load_study(folder).confirmed["test/accuracy"].iloc[0]
    assert f" | 3 | {100 * score:.2f} |" in text
    assert "| parameters | 5,142 |" in text


@pytest.mark.parametrize(
    ("given_dir", "options", "expected"),
    [
        (None, "--data-dir 'my data' --trials 2", "/there/my data"),
        ("/given", "--data-dir 'my data' --trials 2", "/given"),
        (None, "--trials 2", "/photos"),
        ("/given", "", "/given"),
    ],
)
def test_command_finds_the_data_where_the_study_did_unless_told(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_dir: str | None, options: str, expected: str
) -> None:
    seen: list[tuple[TrainedTrial, Path | None, Path, dict[str, str], tuple[str, ...]]] = []

    def noted(*words: Any) -> ExportedModel:
        seen.append(words)
        words[2].mkdir(parents=True)
        return WRITTEN

    monkeypatch.setattr(exporting, "export_student", noted)
    writer.study["provenance"] |= {
        "command": f"python -m study.run x.py {options}",
        "cwd": "/there",
    }
    writer.study["inputs"]["data"]["folder"] = "/photos"
    for row in writer.fill().trials:
        row["config"] = json.dumps({"task": {"is": "X"}, "student": {}, "inputs": {}, "train_on": "train+val"})
    words = ["best", "--study", str(writer.write()), "--cell", CELL, "--seed-number", "5", "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(main, [*words, *(["--data-dir", given_dir] if given_dir else [])])
    assert result.exit_code == 0, result.output
    ((trained, data_dir, out, about, precisions),) = seen
    assert precisions == ()
    assert (data_dir, out) == (Path(expected), tmp_path / "o")
    assert trained.scores == {"test/accuracy": DKD[5]}
    assert trained.checkpoint == writer.folder / "checkpoints" / about["trial"]
    assert (about["cell"], about["seed"]) == (CELL, "1005")


@pytest.mark.parametrize(
    "words",
    [
        ["--study", "nowhere"],
        ["--study", "fake"],
        ["--study", "fake", "--cell", "resnet8 / KD"],
        ["--study", "fake", "--cell", CELL, "--seed-number", "99"],
        ["--study", "fake", "--cell", CELL, "--point", "1"],
        ["--study", "fake", "--cell", CELL],
    ],
)
def test_command_ends_with_one_line_on_bad_input(study: Path, words: list[str]) -> None:
    result = CliRunner().invoke(main, ["best", *words, "--storage-path", str(study.parent)])
    assert result.exit_code == 2
    *choice, line = result.output.splitlines()
    assert len(choice) <= 1
    assert line.startswith("error: ")
    assert not (study / "export").exists()


def test_point_of_a_front_is_exported_with_its_own_scores(writer: Writer) -> None:
    for row in [row for row in writer.fill().trials if row["arm"] == "DKD"]:
        fast = {"trial_id": f"fast{row['number']}", "point": 1, "test/accuracy": row["test/accuracy"] - 0.1}
        row["point"] = 0
        writer.trials.append(row | fast)
    records = load_study(writer.write())
    choice = choose_cell(records, CELL)
    assert get_confirm_run(records, choice.cell, 3)["test/accuracy"] == DKD[3]
    run = get_confirm_run(records, choice.cell, 3, point=1)
    assert run["trial_id"] == "fast3"
    card = make_model_card(records, choice.cell, choice.because, run, {}, WRITTEN)
    assert f"{100 * (sum(DKD) / len(DKD) - 0.1):.2f}" in card
    assert "| point of the front | 1 |" in card
    with pytest.raises(InputError, match="'resnet8 / DKD' has no point 2: its points are 0, 1"):
        get_confirm_run(records, choice.cell, 3, point=2)


def test_command_imports_no_torch_until_it_exports(tmp_path: Path) -> None:
    code = "import sys, reports.export; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
