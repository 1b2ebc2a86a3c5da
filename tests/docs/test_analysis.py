"""docs/analysis.md: every example runs on a small study, and answers its question rightly."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports.analysis.comparison import compare_arms
from reports.load import load_study

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")
GPUS = 0.5


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What all examples, run one after the other beside the study `runs/x`, leave behind."""
    folder = tmp_path_factory.mktemp("analysis")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        from tests.reports.fake_study import Writer

        patch.chdir(folder)
        writer = Writer(folder / "runs" / "x")
        for row in writer.fill().trials:
            row["gpus"] = GPUS
        for row in writer.epochs:
            if row["phase"] == "search" and row["epoch"] == 5:
                row["val/accuracy"] += 0.2  # for one epoch better than at the end
        writer.write()
        names: dict[str, Any] = {"records": load_study(folder / "runs" / "x"), "writer": writer}
        for code in re.findall(r"```python\n(.*?)```", DOC, flags=re.S):
            exec(code, names)
        yield names
        sys.modules.pop("fake_study", None)


def rows(found: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    """The study's trials as they were written."""
    return [row for row in found["writer"].trials if all(row[name] == value for name, value in wanted.items())]


def test_there_are_ten_questions_and_each_has_an_example() -> None:
    sections = re.split(r"^## ", DOC, flags=re.M)[1:]
    assert [section.split(".")[0] for section in sections] == [str(number) for number in range(1, 11)]
    assert all("```python" in section for section in sections)


def test_every_column_that_is_named_exists(found: dict[str, Any]) -> None:
    named = set(
        re.findall(r'\["([a-z_]+(?:/[a-z_]+)?)"\]', "\n".join(re.findall(r"```python\n(.*?)```", DOC, flags=re.S)))
    )
    there = {*found["trials"], *found["epochs"], *found["study"], *found["study"]["cells"][0]}
    assert named - there <= {"metrics", "gpu_seconds", "lost", "best", "last"}


def test_1_which_arm_is_ahead(found: dict[str, Any]) -> None:
    (comparison,) = compare_arms(found["records"])
    for contrast in comparison.contrasts:
        seen, paired = found["ahead"][f"resnet8 / {contrast.arm}", f"resnet8 / {contrast.versus}"], contrast.paired
        assert paired is not None
        assert (len(seen), seen.mean(), seen.std()) == pytest.approx((paired.n, paired.difference, paired.sd))
    assert [(one.arm, one.versus) for one in comparison.contrasts] == [("DKD", "none"), ("DKD + LP searched", "DKD")]


def test_2_whether_stopping_cost_the_winner(found: dict[str, Any]) -> None:
    winner = max(rows(found, phase="search", state="COMPLETE"), key=lambda row: row["val/accuracy"])
    curve = {e["epoch"]: e["val/accuracy"] for e in found["writer"].epochs if e["trial_id"] == winner["trial_id"]}
    expected = [row["val/accuracy"] - curve[row["epochs_done"]] for row in rows(found, phase="search", state="PRUNED")]
    assert found["lead"].tolist() == pytest.approx(expected)
    assert len(expected) == 4


def test_3_which_setting_mattered(found: dict[str, Any]) -> None:
    complete = rows(found, phase="search", state="COMPLETE")
    ends = [json.loads(row["params"])["logits.prune.end"] for row in complete]
    oracle = stats.spearmanr(ends, [row["val/accuracy"] for row in complete]).statistic
    assert found["influence"]["params.logits.prune.end"] == pytest.approx(oracle)
    assert {"params.logits.prune.shape_linear", "params.logits.prune.shape_cosine"} <= set(found["influence"].index)
    assert abs(found["influence"].iloc[0]) == found["influence"].abs().max()


def test_4_gpu_hours_of_each_arm(found: dict[str, Any]) -> None:
    for arm in ("none", "DKD", "DKD + LP searched", "teacher"):
        seconds = sum(row["seconds"] * GPUS for row in rows(found, arm=arm))
        assert found["hours"].loc[arm].sum() == pytest.approx(seconds / 3600)
        table = found["gpu_seconds"].to_pandas().set_index("arm")["gpu_seconds_sum"]
        assert table[arm] == pytest.approx(seconds)
    assert found["hours"].loc["none", "search"] == 0


def test_5_learning_curves(found: dict[str, Any]) -> None:
    ids = {row["trial_id"] for row in rows(found, phase="confirm", arm="DKD")}
    values = [e["train/accuracy"] for e in found["writer"].epochs if e["trial_id"] in ids and e["epoch"] == 3]
    assert len(values) == 8
    assert found["curves"].loc[("resnet8 / DKD", 3)].tolist() == pytest.approx(
        [np.mean(values), min(values), max(values)]
    )


def test_6_what_failed(found: dict[str, Any]) -> None:
    reasons = found["reasons"].reset_index().to_dict("records")
    assert reasons == [
        {"arm": "DKD + LP searched", "reason": "the loss is not finite in epoch 3", "trials": 2, "epochs": 6}
    ]


def test_7_the_best_trials_schedule(found: dict[str, Any]) -> None:
    best = max(rows(found, phase="search", state="COMPLETE"), key=lambda row: row["val/accuracy"])
    assert found["best"]["trial_id"] == best["trial_id"]
    assert found["schedule"].index.tolist() == list(range(1, 9))
    assert found["schedule"]["learning_rate"].tolist() == pytest.approx([0.1, 0.1, *[0.05] * 3, *[0.025] * 3])


def test_8_last_epoch_and_best_epoch(found: dict[str, Any]) -> None:
    gap, epochs = found["gap"], pd.DataFrame(found["writer"].epochs)
    assert set(gap.index) == {row["trial_id"] for row in rows(found, phase="search", state="COMPLETE")}
    assert (gap["lost"] > 0).all()
    for trial_id, row in gap.iterrows():
        curve = epochs[epochs["trial_id"] == trial_id].set_index("epoch")["val/accuracy"]
        assert (row["last"], row["best"], row["best_epoch"]) == (curve[8], max(curve), curve.idxmax())
        assert row["lost"] == max(curve) - curve[8]


def test_9_how_noisy_seeds_are_and_how_many_would_decide(found: dict[str, Any]) -> None:
    (comparison,) = compare_arms(found["records"])
    searched, values = comparison.contrasts[-1], comparison.rows[-1].values
    noise = found["noise"].loc["resnet8 / DKD + LP searched", "resnet8 / DKD"]
    assert searched.paired is not None
    assert searched.verdict == "undecided"
    assert noise["seeds needed"] == searched.seeds_needed
    assert noise["sd of differences"] == pytest.approx(searched.paired.sd)
    assert noise["sd of runs"] == pytest.approx(np.std(list(values.values()), ddof=1))


def test_10_the_gap_to_the_teacher(found: dict[str, Any]) -> None:
    from_none, teacher = np.mean(found["writer"].arms["none"]), 0.9699
    assert found["closed"]["resnet8 / none"] == 0
    assert found["closed"]["resnet8 / DKD"] == pytest.approx(
        (np.mean(found["writer"].arms["DKD"]) - from_none) / (teacher - from_none)
    )
    assert 0 < found["closed"]["resnet8 / DKD"] < 1
