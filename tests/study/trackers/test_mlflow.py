"""MLflow: its own client reads back what was logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.study.trackers.examples import COMPLETE, FAILED, PRUNED, log, row, trial


def mlflow_runs(folder: Path) -> dict[str, Any]:
    """Return the runs by name, with their metric histories."""
    mlflow = pytest.importorskip("mlflow", reason='needs pip install -e ".[mlflow]"')
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("toy")
    assert experiment.tags["mlflow.note.content"] == "Does it help?"
    runs = client.search_runs([experiment.experiment_id])
    for run in runs:
        run.history = {n: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, n)]
                       for n in run.data.metrics}  # fmt: skip
    assert len(runs) == len({run.info.run_name for run in runs})
    return {run.info.run_name: run for run in runs}


def test_mlflow_has_a_run_per_trial_with_its_history_and_state(folder: Path) -> None:
    pytest.importorskip("mlflow", reason='needs pip install -e ".[mlflow]"')
    epochs = [(trial(number), row(epoch, number)) for epoch in (1, 2) for number in (0, 1, 2, 3)]
    ends = [(trial(0), COMPLETE, ""), (trial(1), PRUNED, "rung 1"), (trial(2), FAILED, "it broke")]
    log(folder, "mlflow", *epochs, *ends)
    runs = mlflow_runs(folder)
    states = {name[-1]: (run.info.status, run.data.tags["state"]) for name, run in runs.items()}
    assert states == {
        "0": ("FINISHED", "COMPLETE"),
        "1": ("FINISHED", "PRUNED"),
        "2": ("FAILED", "FAILED"),
        "3": ("KILLED", "INTERRUPTED"),
    }
    run = runs["resnet8 / DKD + LP search-1"]
    assert run.data.params == {"pruning.high": "1.25", "optimiser": "sgd"}
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    assert tags == {
        "trial_id": trial(1).id, "cell": "resnet8 / DKD + LP", "student": "resnet8", "arm": "DKD + LP",
        "phase": "search", "number": "1", "seed": "71", "state": "PRUNED", "reason": "rung 1",
    }  # fmt: skip
    assert run.history["val/accuracy"] == [(1, 1.1), (2, 1.2)]
    assert set(run.history) == {"train/loss", "val/accuracy", "schedule/temperature", "seconds"}


def test_mlflow_continues_the_run_of_a_resumed_trial_and_sends_no_epoch_twice(folder: Path) -> None:
    pytest.importorskip("mlflow", reason='needs pip install -e ".[mlflow]"')
    log(folder, "mlflow", (trial(), row(1)), (trial(), row(2)))
    log(folder, "mlflow", (trial(), row(2)), (trial(), row(3)), (trial(), COMPLETE, ""))
    (run,) = mlflow_runs(folder).values()
    assert [step for step, _ in run.history["val/accuracy"]] == [1, 2, 3]
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "COMPLETE")


def test_mlflow_keeps_scores_that_are_not_finite(folder: Path) -> None:
    pytest.importorskip("mlflow", reason='needs pip install -e ".[mlflow]"')
    log(folder, "mlflow", (trial(), row(1, float("nan"))), (trial(), FAILED, "val/accuracy is nan in epoch 1"))
    (run,) = mlflow_runs(folder).values()
    assert str(run.history["val/accuracy"]) == "[(1, nan)]"
