"""TensorBoard: its own package reads back what was logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.study.trackers.examples import COMPLETE, FAILED, PRUNED, log, row, trial


def events(folder: Path) -> Any:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs pip install tensorboard"
    )
    return accumulators.EventAccumulator(str(folder)).Reload()


def test_tensorboard_has_each_trials_scalars_and_parameters(folder: Path) -> None:
    epochs = [(trial(number), row(epoch, number)) for epoch in (1, 2, 3) for number in (0, 1)]
    log(folder, "tensorboard", *epochs, (trial(0), COMPLETE, ""), (trial(1), PRUNED, "rung 1"))
    read = events(folder / "tensorboard" / "resnet8" / "DKD + LP" / f"search-1-{trial(1).id}")
    assert {"train/loss", "val/accuracy", "schedule/temperature", "seconds"} == set(read.Tags()["scalars"])
    assert {e.step: e.value for e in read.Scalars("val/accuracy")} == pytest.approx({1: 1.1, 2: 1.2, 3: 1.3})
    from tensorboard.plugins.hparams import metadata

    content = read.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(content)
    assert start.hparams["pruning.high"].number_value == 1.25
    assert start.hparams["optimiser"].string_value == "sgd"
    assert (start.hparams["cell"].string_value, start.hparams["seed"].string_value) == ("resnet8 / DKD + LP", "71")


def test_tensorboard_replaces_epochs_that_a_killed_study_logged_and_lost(folder: Path) -> None:
    log(folder, "tensorboard", *[(trial(), row(epoch)) for epoch in (1, 2, 3)])
    log(folder, "tensorboard", (trial(), row(3, 5.0)), (trial(), COMPLETE, ""))
    read = events(folder / "tensorboard" / "resnet8" / "DKD + LP" / f"search-0-{trial().id}")
    assert [e.step for e in read.Scalars("val/accuracy")] == [1, 2, 3]
    assert read.Scalars("val/accuracy")[-1].value == pytest.approx(5.3)


@pytest.mark.parametrize("arms", [("a/b", "a%2Fb"), ("..", "%2E."), ("../../x", "x"), ("τ", "%3C4")])
def test_tensorboard_folders_stay_inside_and_apart_for_any_arm_name(folder: Path, arms: tuple[str, str]) -> None:
    pytest.importorskip("tensorboardX", reason="comes with ray[tune]")
    log(folder, "tensorboard", *[(trial(arm=arm), FAILED, "it broke") for arm in arms])
    assert [path.name for path in folder.iterdir()] == ["tensorboard"]
    assert len(list((folder / "tensorboard" / "resnet8").glob("*/search-0-*"))) == 2
