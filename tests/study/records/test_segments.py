"""Segments: whole or absent, the last row counts, compaction loses nothing, damage is named."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from study import choice, integer, uniform
from study.atomic import atomic_write
from study.records import segments
from study.records.columns import EPOCH_COLUMNS, TRIAL_COLUMNS, find_setting_columns
from study.records.segments import Records, RecordsError


def epoch_row(trial_id: str, epoch: int, score: float) -> dict[str, Any]:
    return {
        "trial_id": trial_id,
        "cell": "s / a",
        "phase": "search",
        "epoch": epoch,
        "seconds": 0.5,
        "recorded": datetime.now(UTC),
        "schedules": "{}",
        "val/accuracy": score,
    }


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path, ["val/accuracy"])


def test_rows_come_back_in_the_order_of_writing(records: Records) -> None:
    for epoch in (1, 2, 3):
        records.epochs.append(epoch_row("a", epoch, epoch / 10))
        records.epochs.flush()
    assert [row["epoch"] for row in records.epochs.read_rows()] == [1, 2, 3]


def test_last_row_of_a_key_counts_and_keeps_the_first_ones_place(records: Records) -> None:
    for trial_id, epoch, score in (("a", 1, 0.1), ("b", 1, 0.2), ("a", 1, 0.3)):
        records.epochs.append(epoch_row(trial_id, epoch, score))
        records.epochs.flush()
    assert [(row["trial_id"], row["val/accuracy"]) for row in records.epochs.read_rows()] == [("a", 0.3), ("b", 0.2)]


def test_unflushed_rows_are_not_on_disk(records: Records) -> None:
    records.epochs.append(epoch_row("a", 1, 0.1))
    assert records.epochs.read_rows() == []


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "LAST_RETENTION_SECONDS", 0.0)


def test_compaction_leaves_one_segment_and_every_row(records: Records, tmp_path: Path) -> None:
    for epoch in range(1, 6):
        records.epochs.append(epoch_row("a", epoch, epoch / 10))
        records.epochs.flush()
    before = records.epochs.read_rows()
    records.compact()
    assert records.epochs.read_rows() == before
    records.delete_merged()
    assert len(list((tmp_path / "epochs").glob("*.parquet"))) == 1
    assert records.epochs.read_rows() == before
    records.epochs.append(epoch_row("a", 6, 0.6))
    records.epochs.flush()
    assert [row["epoch"] for row in records.epochs.read_rows()] == [1, 2, 3, 4, 5, 6]


def test_compaction_drops_what_no_longer_counts_also_within_one_segment(records: Records, tmp_path: Path) -> None:
    for score in (0.1, 0.2):
        records.epochs.append(epoch_row("a", 1, score))
    records.compact()
    records.delete_merged()
    assert list(pd.read_parquet(tmp_path / "epochs")["val/accuracy"]) == [0.2]


@pytest.mark.parametrize("flushes", [7, 8, 9, 63, 64, 65, 200])
def test_segments_stay_few_and_every_row_stays(
    records: Records, tmp_path: Path, flushes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "RETENTION_SECONDS", 0.0)
    for epoch in range(1, flushes + 1):
        records.epochs.append(epoch_row("a", epoch, epoch / 1000))
        records.epochs.flush()
    assert len(list((tmp_path / "epochs").glob("*.parquet"))) == sum(int(digit) for digit in f"{flushes:o}")
    again = Records(tmp_path, ["val/accuracy"])
    assert [row["epoch"] for row in again.epochs.read_rows()] == list(range(1, flushes + 1))
    again.epochs.append(epoch_row("b", 1, 0.5))
    again.compact()
    assert len(again.epochs.read_rows()) == flushes + 1


def test_disk_that_takes_no_more_is_one_line_and_rows_stay_pending(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.epochs.append(epoch_row("a", 1, 0.1))
    records.epochs.flush()
    records.epochs.append(epoch_row("a", 2, 0.2))
    with monkeypatch.context() as full:
        full.setattr("study.records.segments.pq.write_table", failing_write)
        with pytest.raises(RecordsError, match=r"epochs cannot be written \(No space left on device\): free disk"):
            records.epochs.flush()
    assert [row["epoch"] for row in records.epochs.read_rows()] == [1]
    records.epochs.flush()
    assert [row["epoch"] for row in records.epochs.read_rows()] == [1, 2]


def failing_write(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_kill_between_merging_and_deleting_loses_and_doubles_nothing(records: Records, tmp_path: Path) -> None:
    for epoch in (1, 2):
        records.epochs.append(epoch_row("a", epoch, 0.1))
        records.epochs.flush()
    old = {path.name: path.read_bytes() for path in (tmp_path / "epochs").glob("*.parquet")}
    records.compact()
    for name, content in old.items():  # as if the old segments had not been deleted yet
        (tmp_path / "epochs" / name).write_bytes(content)
    assert [row["epoch"] for row in Records(tmp_path, ["val/accuracy"]).epochs.read_rows()] == [1, 2]


def test_half_written_segment_is_not_seen(records: Records, tmp_path: Path) -> None:
    (tmp_path / "epochs" / ".00000001.tmp").write_bytes(b"PAR1 half")
    assert records.epochs.read_rows() == []


def test_damaged_segment_is_named(records: Records, tmp_path: Path) -> None:
    records.epochs.append(epoch_row("a", 1, 0.1))
    records.epochs.flush()
    segment = tmp_path / "epochs" / "00000001.parquet"
    segment.write_bytes(segment.read_bytes()[:40])
    with pytest.raises(RecordsError, match=r"00000001\.parquet cannot be read .* delete it"):
        records.epochs.read_rows()


def test_pandas_reads_a_table_by_its_folder(records: Records, tmp_path: Path) -> None:
    for epoch in (1, 2):
        records.epochs.append(epoch_row("a", epoch, 0.1))
        records.epochs.flush()
    frame = pd.read_parquet(tmp_path / "epochs")
    assert list(frame.columns) == [name for name, _ in EPOCH_COLUMNS] + ["val/accuracy"]
    assert len(frame) == 2


def test_every_column_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "records.md").read_text()
    for name, kind in (*TRIAL_COLUMNS, *EPOCH_COLUMNS):
        line = next((line for line in text.splitlines() if line.startswith(f"| `{name}` |")), None)
        assert line is not None, f"docs/records.md has no row for {name}"
        assert str(kind).split("[")[0] in line, f"docs/records.md gives {name} another type than {kind}: {line}"


# -- readers of a running study


STRESS_SECONDS = 4.0

READERS = {
    "pandas": "pandas.read_parquet(folder)",
    "pandas, fastest columns": "pandas.read_parquet(folder, columns=['trial_id', 'epoch'])",
    "pyarrow table": "pyarrow.parquet.read_table(folder).to_pandas()",
    "pyarrow dataset": "pyarrow.dataset.dataset(folder).to_table().to_pandas()",
    "file by file": "pandas.concat([pandas.read_parquet(file) for file in pyarrow.dataset.dataset(folder).files])",
    "duckdb": "duckdb.sql(f\"select * from read_parquet('{folder}/*.parquet', union_by_name=true)\").df()",
}

READ = """
import sys, time, pandas, pyarrow, pyarrow.dataset, pyarrow.parquet
from pathlib import Path
try:
    import duckdb
except ImportError:
    pass
folder, done, reads, latest = sys.argv[1], Path(sys.argv[2]), 0, 0
while not done.exists() or not reads:
    began = int(done.with_suffix(".progress").read_text() or 0) if done.with_suffix(".progress").exists() else 0
    rows = READER.drop_duplicates(["trial_id", "epoch"], keep="last")
    assert len(rows) >= began, f"{len(rows)} rows of {began}"
    reads += 1
print(reads)
"""


@pytest.mark.parametrize("reader", READERS)
def test_others_read_a_growing_table_at_any_moment(records: Records, tmp_path: Path, reader: str) -> None:
    if reader == "duckdb":
        pytest.importorskip("duckdb")
    done = tmp_path / "done"
    code = READ.replace("READER", READERS[reader])
    words = [sys.executable, "-c", code, str(tmp_path / "epochs"), str(done)]
    others = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    deadline, written = time.monotonic() + STRESS_SECONDS, 0
    while time.monotonic() < deadline:
        written += 1
        records.epochs.append(epoch_row("a", written, 0.1))
        records.epochs.flush()
        with atomic_write(done.with_suffix(".progress")) as progress:
            progress.write_text(str(written))
        if written % 97 == 0:
            records.epochs.compact()
    done.touch()
    for other in others:
        output, problem = other.communicate(timeout=60)
        assert other.returncode == 0, problem[-800:]
        assert int(output) >= 1
    assert len(records.epochs.read_rows()) == written > 50


def test_new_table_is_read_by_others_before_its_first_row(records: Records, tmp_path: Path) -> None:
    assert len(pd.read_parquet(tmp_path / "epochs")) == 0
    assert "trial_id" in pd.read_parquet(tmp_path / "trials").columns
    assert Records(tmp_path, ["val/accuracy"]).epochs.read_rows() == []


def test_merged_segments_stay_until_readers_are_done(records: Records, tmp_path: Path) -> None:
    listed: set[Path] = set()
    for epoch in range(1, 100):
        records.epochs.append(epoch_row("a", epoch, 0.1))
        records.epochs.flush()
        listed |= set((tmp_path / "epochs").glob("*.parquet"))
    records.compact()
    assert all(path.is_file() for path in listed)
    records.delete_merged()
    assert sum(path.is_file() for path in (tmp_path / "epochs").glob("*.parquet")) == 1
    assert len(pd.read_parquet(tmp_path / "epochs")) == 99


def test_segments_left_by_a_kill_change_nothing(records: Records, tmp_path: Path) -> None:
    for epoch in range(1, 30):
        records.epochs.append(epoch_row("a", epoch, epoch / 100))
        records.epochs.flush()
    records.epochs.append(epoch_row("a", 3, 0.9))
    records.epochs.flush()
    before = records.epochs.read_rows()
    again = Records(tmp_path, ["val/accuracy"])  # the first one was killed, with all it had merged on disk
    assert again.epochs.read_rows() == before
    again.epochs.append(epoch_row("a", 4, 0.8))
    again.compact()
    again.delete_merged()
    assert [row["val/accuracy"] for row in again.epochs.read_rows()][:4] == [0.01, 0.02, 0.9, 0.8]


def test_settings_have_typed_columns(tmp_path: Path) -> None:
    spaces = [
        {
            "t": uniform(1, 8),
            "n": integer(1, 3),
            "shape": choice("a", 2.0),
            "k": choice(1, 4),
            "on": choice(True, False),
        },
        {"t": integer(1, 8), "k": choice(1, 2.5), "n": choice("few", "many")},
    ]
    assert {name: str(kind) for name, kind in find_setting_columns(spaces[:1]).items()} == {
        "params.t": "double", "params.n": "int64", "params.shape": "string", "params.k": "int64", "params.on": "string",
    }  # fmt: skip
    both = find_setting_columns(spaces)
    assert [str(both[f"params.{name}"]) for name in ("t", "k", "n")] == ["double", "double", "string"]
    records = Records(tmp_path, ["val/accuracy"], both)
    params = {"t": 2, "n": 3, "shape": 2.0, "k": 4, "on": True}
    records.add_trial({"trial_id": "one"}, params)
    records.flush()
    (row,) = records.trials.read_rows()
    assert [row[f"params.{name}"] for name in params] == [2.0, "3", "2.0", 4.0, "True"]
