"""Tables: whole at any moment, the last row counts, copying and compaction lose nothing, damage is named."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from study import choice, integer, uniform
from study.atomic import atomic_write
from study.records import parquet_table
from study.records.columns import EPOCH_COLUMNS, TRIAL_COLUMNS, find_setting_columns
from study.records.parquet_table import Records, RecordsError


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
    monkeypatch.setattr(parquet_table, "LAST_RETENTION_SECONDS", 0.0)


def test_compaction_leaves_each_row_once(records: Records, tmp_path: Path) -> None:
    write_epochs(records, range(1, 6))
    before = records.epochs.read_rows()
    records.compact()
    assert records.epochs.read_rows() == before
    records.delete_copied()
    assert len(pd.read_parquet(tmp_path / "epochs")) == 5
    assert records.epochs.read_rows() == before
    write_epochs(records, [6])
    assert [row["epoch"] for row in records.epochs.read_rows()] == [1, 2, 3, 4, 5, 6]


def write_epochs(records: Records, epochs: Iterable[int]) -> None:
    for epoch in epochs:
        records.epochs.append(epoch_row("a", epoch, epoch / 1000))
        records.epochs.flush()


def test_compaction_drops_what_no_longer_counts_also_within_one_segment(records: Records, tmp_path: Path) -> None:
    for score in (0.1, 0.2):
        records.epochs.append(epoch_row("a", 1, score))
    records.compact()
    records.delete_copied()
    assert list(pd.read_parquet(tmp_path / "epochs")["val/accuracy"]) == [0.2]


@pytest.mark.parametrize("flushes", [7, 8, 9, 63, 64, 65])
@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_table_is_two_files_and_every_row_stays(
    records: Records, tmp_path: Path, flushes: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_table, "RETENTION_SECONDS", seconds)
    monkeypatch.setattr(parquet_table, "FLUSHES_PER_COPY", 8)
    write_epochs(records, range(1, flushes + 1))
    assert sorted(path.name for path in (tmp_path / "epochs").iterdir()) == ["earlier.parquet", "latest.parquet"]
    again = Records(tmp_path, ["val/accuracy"])
    assert [row["epoch"] for row in again.epochs.read_rows()] == list(range(1, flushes + 1))
    again.epochs.append(epoch_row("b", 1, 0.5))
    again.compact()
    assert len(again.epochs.read_rows()) == flushes + 1


@pytest.mark.parametrize("seconds", [0.0, 0.05, 60.0])
def test_latest_file_has_few_row_groups(
    records: Records, tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_table, "RETENTION_SECONDS", seconds)
    most = 0
    for epoch in range(1, 60):
        write_epochs(records, [epoch])
        most = max(most, pq.read_metadata(tmp_path / "epochs" / "latest.parquet").num_row_groups)
    assert parquet_table.FLUSHES_PER_COPY <= most <= parquet_table.FLUSHES_PER_COPY + 6
    assert len(pd.read_parquet(tmp_path / "epochs").drop_duplicates("epoch")) == 59


def test_footer_of_the_file_before_reads_the_file_after(records: Records, tmp_path: Path) -> None:
    """As in pyarrow, which opens a single file twice: once for its footer, then for its rows."""
    latest = tmp_path / "epochs" / "latest.parquet"
    for epoch in range(1, parquet_table.FLUSHES_PER_COPY):
        before, rows = pq.read_metadata(latest), pq.read_table(latest, partitioning=None)
        write_epochs(records, [epoch])
        assert pq.ParquetFile(latest, metadata=before).read().equals(rows)


def test_copied_rows_stay_until_readers_are_done(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file a reader opens first, and however much is written before it opens the other."""
    monkeypatch.setattr(parquet_table, "FLUSHES_PER_COPY", 8)
    first = {name: read_numbers(tmp_path, name) for name in ("earlier", "latest")}
    for epoch in range(1, 100):
        write_epochs(records, [epoch])
        for one, other in (("earlier", "latest"), ("latest", "earlier")):
            assert first[one] | read_numbers(tmp_path, other) >= set(range(1, epoch)), f"{one} first"
        first = {name: read_numbers(tmp_path, name) for name in first}
    opened = read_numbers(tmp_path, "latest")
    records.compact()
    assert opened | read_numbers(tmp_path, "earlier") == read_numbers(tmp_path, "latest") == set(range(1, 100))
    records.delete_copied()
    assert read_numbers(tmp_path, "latest") == set()
    assert len(pd.read_parquet(tmp_path / "epochs")) == 99


def read_numbers(folder: Path, name: str) -> set[int]:
    return set(pd.read_parquet(folder / "epochs" / f"{name}.parquet")["epoch"])


def test_copied_rows_are_dropped_after_a_while(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_table, "FLUSHES_PER_COPY", 8)
    write_epochs(records, range(1, 9))
    assert read_numbers(tmp_path, "latest") == read_numbers(tmp_path, "earlier") == set(range(1, 9))
    clock = time.monotonic()
    monkeypatch.setattr("study.records.parquet_table.time.monotonic", lambda: clock + 61)
    write_epochs(records, [9])
    assert read_numbers(tmp_path, "latest") == {9}
    assert len(records.epochs.read_rows()) == 9


def test_numbered_segments_of_earlier_versions_are_continued(tmp_path: Path) -> None:
    old = Records(tmp_path / "old", ["val/accuracy"])
    write_epochs(old, range(1, 4))
    (tmp_path / "epochs").mkdir()
    (tmp_path / "old" / "epochs" / "latest.parquet").rename(tmp_path / "epochs" / "00000012.parquet")
    records = Records(tmp_path, ["val/accuracy"])
    records.epochs.append(epoch_row("a", 3, 0.9))
    records.epochs.append(epoch_row("a", 4, 0.4))
    records.epochs.flush()
    wanted = [0.001, 0.002, 0.9, 0.4]
    assert [row["val/accuracy"] for row in records.epochs.read_rows()] == wanted
    records.compact()
    assert [row["val/accuracy"] for row in records.epochs.read_rows()] == wanted
    records.delete_copied()
    assert list(pd.read_parquet(tmp_path / "epochs")["val/accuracy"]) == wanted
    assert not (tmp_path / "epochs" / "00000012.parquet").exists()


def test_disk_that_takes_no_more_is_one_line_and_rows_stay_pending(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.epochs.append(epoch_row("a", 1, 0.1))
    records.epochs.flush()
    records.epochs.append(epoch_row("a", 2, 0.2))
    with monkeypatch.context() as full:
        full.setattr("study.records.parquet_table.pq.ParquetWriter.write_table", failing_write)
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
    segment = tmp_path / "epochs" / "latest.parquet"
    segment.write_bytes(segment.read_bytes()[:40])
    with pytest.raises(RecordsError, match=r"latest\.parquet cannot be read .* delete it"):
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


STRESS_SECONDS = 1.5

READERS = {
    "pandas": "pandas.read_parquet(folder)",
    "pandas, fastest columns": "pandas.read_parquet(folder, columns=['trial_id', 'epoch'])",
    "pyarrow table": "pyarrow.parquet.read_table(folder).to_pandas()",
    "pyarrow dataset": "pyarrow.dataset.dataset(folder).to_table().to_pandas()",
    "file by file, each opened once": "pandas.concat([pandas.read_parquet(io.BytesIO(file.read_bytes()))"
    " for file in sorted(Path(folder).glob('*.parquet'))])",
    "duckdb": "duckdb.sql(f\"select * from read_parquet('{folder}/*.parquet', union_by_name=true)\").df()",
}

FIRST = ("pandas", "pyarrow dataset")
"""Readers of the default run."""

READ = """
import io, sys, time, pandas, pyarrow, pyarrow.dataset, pyarrow.parquet
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


@pytest.mark.parametrize(
    "reader",
    [*FIRST, *(pytest.param(name, marks=pytest.mark.slow) for name in READERS if name not in FIRST)],
)
def test_others_read_a_growing_table_at_any_moment(
    records: Records, tmp_path: Path, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_table, "FLUSHES_PER_COPY", 8)
    if reader == "duckdb":
        pytest.importorskip("duckdb")
    done = tmp_path / "done"
    code = READ.replace("READER", READERS[reader])
    words = [sys.executable, "-c", code, str(tmp_path / "epochs"), str(done)]
    others = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    deadline, written = time.monotonic() + STRESS_SECONDS, 0
    while time.monotonic() < deadline or written <= 40:
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
    assert len(records.epochs.read_rows()) == written


def test_new_table_is_read_by_others_before_its_first_row(records: Records, tmp_path: Path) -> None:
    assert len(pd.read_parquet(tmp_path / "epochs")) == 0
    assert "trial_id" in pd.read_parquet(tmp_path / "trials").columns
    assert Records(tmp_path, ["val/accuracy"]).epochs.read_rows() == []


def test_copies_left_by_a_kill_change_nothing(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_table, "FLUSHES_PER_COPY", 8)
    for epoch in range(1, 30):
        records.epochs.append(epoch_row("a", epoch, epoch / 100))
        records.epochs.flush()
    records.epochs.append(epoch_row("a", 3, 0.9))
    records.epochs.flush()
    before = records.epochs.read_rows()
    again = Records(tmp_path, ["val/accuracy"])  # the first one was killed, with all it had copied on disk
    assert again.epochs.read_rows() == before
    again.epochs.append(epoch_row("a", 4, 0.8))
    again.compact()
    again.delete_copied()
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
