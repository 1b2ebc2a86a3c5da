from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reports.analysis.comparison import compare_arms
from reports.load import load_study
from study.records.parquet_table import RecordsError
from tests.reports.fake_study import DKD, Writer


def test_load_keeps_the_study_and_all_rows(writer: Writer) -> None:
    records = load_study(writer.fill().write())
    assert (len(records.trials), len(records.epochs)) == (len(writer.trials), len(writer.epochs))
    assert records.warnings == ()
    assert [cell.arm for cell in records.cells] == list(writer.arms)
    assert records.students == ("resnet8",)


def test_load_takes_the_last_of_doubled_rows(writer: Writer) -> None:
    writer.fill()
    wrong = [row | {"test/accuracy": 0.1, "state": "RUNNING"} for row in writer.trials]
    rows, writer.trials = writer.trials, wrong + writer.trials
    writer.epochs = [row | {"train/accuracy": 0.0} for row in writer.epochs] + writer.epochs
    records = load_study(writer.write())
    assert len(records.trials) == len(rows)
    assert records.confirmed["test/accuracy"].min() > 0.9
    assert records.epochs["train/accuracy"].min() > 0


def test_load_names_a_truncated_segment_and_shows_the_rest(writer: Writer) -> None:
    folder = writer.fill().write()
    damaged = folder / "trials" / "00000002.parquet"
    damaged.write_bytes((folder / "trials" / "part-00001.parquet").read_bytes()[:200])
    records = load_study(folder)
    assert len(records.trials) == len(writer.trials)
    (warning,) = records.warnings
    assert "trials/00000002.parquet" in warning


def test_load_names_a_segment_that_is_no_table_of_trials(study: Path) -> None:
    pq.write_table(pa.table({"trial_id": ["x"]}), study / "trials" / "00000009.parquet")
    records = load_study(study)
    (warning,) = records.warnings
    assert "00000009.parquet" in warning
    assert "lacks the columns" in warning
    assert "x" not in set(records.trials["trial_id"])


def test_load_joins_segments_with_different_metrics(writer: Writer, tmp_path: Path) -> None:
    folder = writer.fill().write()
    table = pq.read_table(folder / "trials" / "part-00001.parquet").slice(0, 1)
    renamed = table.set_column(0, "trial_id", pa.array(["later"])).append_column("val/f1", pa.array([0.5]))
    pq.write_table(renamed, folder / "trials" / "00000002.parquet")
    trials = load_study(folder).trials.set_index("trial_id")
    assert trials.loc["later", "val/f1"] == 0.5
    assert trials["val/f1"].notna().sum() == 1


def test_load_of_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="no study"):
        load_study(tmp_path)


def test_load_of_a_newer_schema_is_refused(writer: Writer) -> None:
    writer.study["schema"] = 99
    folder = writer.write()
    with pytest.raises(RecordsError, match="schema 99"):
        load_study(folder)


def test_load_of_a_minimal_study_takes_the_cells_from_the_rows(writer: Writer) -> None:
    folder = writer.fill().write()
    (folder / "study.json").write_text(json.dumps({"schema": 1}))
    records = load_study(folder)
    assert [cell.name for cell in records.cells] == [f"resnet8 / {arm}" for arm in writer.arms]
    assert records.get_direction("test/accuracy") == "max"


def test_load_without_any_rows_gives_empty_frames(writer: Writer) -> None:
    records = load_study(writer.write())
    assert records.trials.empty
    assert records.epochs.empty
    assert records.confirmed.empty


def test_confirmed_leaves_out_what_does_not_count(writer: Writer) -> None:
    writer.fill()
    rows = [row for row in writer.trials if row["phase"] == "confirm" and row["arm"] == "DKD"]
    rows[0]["state"], rows[1]["state"], rows[2]["test/accuracy"] = "FAILED", "RUNNING", float("nan")
    confirmed = load_study(writer.write()).confirmed
    assert sorted(confirmed[confirmed["arm"] == "DKD"]["number"]) == [3, 4, 5, 6, 7]


def test_confirmed_takes_the_last_run_of_a_seed_and_warns_of_mixed_configurations(writer: Writer) -> None:
    writer.fill()
    first = next(row for row in writer.trials if row["phase"] == "confirm" and row["arm"] == "DKD")
    writer.trials.append(first | {"trial_id": "again", "config": '{"other": 1}', "test/accuracy": 0.5})
    records = load_study(writer.write())
    values = compare_arms(records)[0].rows[1].values
    assert values == dict(zip(range(1000, 1008), [0.5, *DKD[1:]], strict=True))
    assert "have different configurations" in records.warnings[0]


def test_a_users_pandas_reads_the_same_trials(study: Path) -> None:
    pd.testing.assert_frame_equal(pd.read_parquet(study / "trials"), load_study(study).trials, check_dtype=False)


@pytest.mark.parametrize(("seeds", "known", "told"), [(5, True, "seeds 3 → 5"), (5, False, None), (3, True, None)])
def test_load_warns_of_seeds_added_after_results_were_known(
    writer: Writer, seeds: int, known: bool, told: str | None
) -> None:
    folder = writer.fill().write()
    described = json.loads((folder / "study.json").read_text())
    runs = [
        {"started": "2026-01-01T10:00:00", "budget": {"trials": 9, "seeds": 3}, "results_known": False},
        {"started": "2026-01-02T10:00:00", "budget": {"trials": 9, "seeds": seeds}, "results_known": known},
    ]
    described.setdefault("provenance", {})["runs"] = runs
    (folder / "study.json").write_text(json.dumps(described))
    warnings = load_study(folder).warnings
    if told is None:
        assert warnings == ()
    else:
        assert f"extended on 2026-01-02 after its results were known ({told})" in warnings[0]


def test_settings_are_typed_columns_also_of_studies_written_without_them(tmp_path: Path) -> None:
    frames = []
    for typed in (True, False):
        writer = Writer(tmp_path / str(typed))
        writer.typed_settings = typed
        frames.append(load_study(writer.fill().write()).trials.filter(like="params."))
    pd.testing.assert_frame_equal(*frames, check_like=True)
    assert frames[0].dtypes.astype(str).replace("object", "str").to_dict() == {
        "params.logits.prune.end": "float64",
        "params.logits.prune.stages": "float64",  # whole numbers, missing in other cells
        "params.logits.prune.shape": "str",
        "params.logits.temperature": "float64",
    }
