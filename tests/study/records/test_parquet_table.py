"""Tables: whole at any moment, each row once, the last one counts, compaction loses nothing, damage is named."""

from __future__ import annotations

import errno
import shutil
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
from study.records import part_file
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


def test_compaction_leaves_each_row_in_its_place(records: Records, tmp_path: Path) -> None:
    write_epochs(records, range(1, 6))
    before = records.epochs.read_rows()
    records.compact()
    assert pq.read_metadata(tmp_path / "epochs" / "part-00001.parquet").num_row_groups == 1
    assert records.epochs.read_rows() == before
    write_epochs(records, [6])
    assert [row["epoch"] for row in records.epochs.read_rows()] == [1, 2, 3, 4, 5, 6]


def write_epochs(records: Records, epochs: Iterable[int]) -> None:
    for epoch in epochs:
        records.epochs.append(epoch_row("a", epoch, epoch / 1000))
        records.epochs.flush()


def test_a_row_is_replaced_also_by_one_that_was_appended_with_it(records: Records, tmp_path: Path) -> None:
    for score in (0.1, 0.2):
        records.epochs.append(epoch_row("a", 1, score))
    records.epochs.flush()
    assert list(pd.read_parquet(tmp_path / "epochs")["val/accuracy"]) == [0.2]


@pytest.mark.parametrize("flushes", [7, 8, 9, 23, 24, 25])
def test_a_table_is_few_files_in_the_order_of_writing(
    records: Records, tmp_path: Path, flushes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, "ROWS_PER_PART", 8)
    write_epochs(records, range(1, flushes + 1))
    files = sorted(path.name for path in (tmp_path / "epochs").iterdir())
    assert files == [f"part-{number:05}.parquet" for number in range(1, (flushes - 1) // 8 + 2)]
    again = Records(tmp_path, ["val/accuracy"])
    assert [row["epoch"] for row in again.epochs.read_rows()] == list(range(1, flushes + 1))
    again.epochs.append(epoch_row("b", 1, 0.5))
    again.compact()
    assert list(pd.read_parquet(tmp_path / "epochs")["epoch"]) == [*range(1, flushes + 1), 1]


@pytest.mark.parametrize("reopened", [True, False])
def test_rows_are_replaced_in_whichever_file_they_are(
    records: Records, tmp_path: Path, reopened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, "ROWS_PER_PART", 5)
    write_epochs(records, range(1, 41))
    if reopened:
        records = Records(tmp_path, ["val/accuracy"])
    for epoch in (2, 41, 40, 13, 2):
        records.epochs.append(epoch_row("a", epoch, 0.9 if epoch != 13 else 0.8))
    records.epochs.append(epoch_row("b", 2, 0.7))
    records.epochs.flush()
    wanted = {epoch: epoch / 1000 for epoch in range(1, 41)} | {2: 0.9, 13: 0.8, 40: 0.9, 41: 0.9}
    found = pd.read_parquet(tmp_path / "epochs")
    assert list(zip(found["epoch"], found["val/accuracy"], strict=True)) == [*wanted.items(), (2, 0.7)]


def test_a_large_file_is_followed_by_another(records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_file, "MAX_BYTES", 20_000)
    write_epochs(records, range(1, 61))
    sizes = [path.stat().st_size for path in sorted((tmp_path / "epochs").iterdir())]
    assert len(sizes) > 2
    assert max(sizes) < 24_000
    assert list(pd.read_parquet(tmp_path / "epochs")["epoch"]) == [*range(1, 61)]


OLD_FILES = {"segments": ("00000003", "00000012"), "two files": ("earlier", "latest")}


@pytest.mark.parametrize("names", OLD_FILES.values(), ids=OLD_FILES)
def test_files_of_earlier_versions_are_continued(tmp_path: Path, names: tuple[str, ...]) -> None:
    """In which a row may be repeated; they are read as they are, and replaced by the first write."""
    (tmp_path / "epochs").mkdir()
    for name, epochs in zip(names, ((1, 2), (2, 3)), strict=True):
        old = Records(tmp_path / name, ["val/accuracy"])
        write_epochs(old, epochs)
        (tmp_path / name / "epochs" / "part-00001.parquet").rename(tmp_path / "epochs" / f"{name}.parquet")
    records = Records(tmp_path, ["val/accuracy"])
    assert [row["val/accuracy"] for row in records.epochs.read_rows()] == [0.001, 0.002, 0.003]
    records.epochs.append(epoch_row("a", 3, 0.9))
    records.epochs.append(epoch_row("a", 4, 0.4))
    records.epochs.flush()
    assert list(pd.read_parquet(tmp_path / "epochs")["val/accuracy"]) == [0.001, 0.002, 0.9, 0.4]
    assert [path.name for path in (tmp_path / "epochs").iterdir()] == ["part-00001.parquet"]


@pytest.mark.parametrize("deleted", [0, 1])
def test_kill_while_old_files_are_replaced_loses_and_doubles_nothing(
    tmp_path: Path, deleted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Records(tmp_path / "old", ["val/accuracy"])
    write_epochs(old, range(1, 6))
    (tmp_path / "epochs").mkdir()
    for name in ("earlier", "latest"):
        shutil.copy(tmp_path / "old" / "epochs" / "part-00001.parquet", tmp_path / "epochs" / f"{name}.parquet")
    unlink, left = Path.unlink, iter(range(deleted))

    def cut(path: Path, **options: Any) -> None:
        if path.suffix == ".parquet" and next(left, None) is None:
            raise KeyboardInterrupt
        unlink(path, **options)

    with monkeypatch.context() as kill:
        kill.setattr(Path, "unlink", cut)
        with pytest.raises(KeyboardInterrupt):
            Records(tmp_path, ["val/accuracy"]).compact()
    records = Records(tmp_path, ["val/accuracy"])
    assert [row["epoch"] for row in records.epochs.read_rows()] == [1, 2, 3, 4, 5]
    records.compact()
    assert list(pd.read_parquet(tmp_path / "epochs")["epoch"]) == [1, 2, 3, 4, 5]


def test_files_without_a_column_of_this_version_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_file, "ROWS_PER_PART", 2)
    write_epochs(Records(tmp_path, ["val/accuracy"]), range(1, 6))
    write_epochs(records := Records(tmp_path, ["val/accuracy", "val/f1"]), [6])
    rows = pd.read_parquet(tmp_path / "epochs")
    assert list(rows["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert rows["val/f1"].isna().all()
    assert len(records.epochs.read_rows()) == 6


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


def test_half_written_segment_is_not_seen(records: Records, tmp_path: Path) -> None:
    (tmp_path / "epochs" / ".part-00001.parquet.7.tmp").write_bytes(b"PAR1 half")
    assert records.epochs.read_rows() == []


def test_damaged_segment_is_named(records: Records, tmp_path: Path) -> None:
    records.epochs.append(epoch_row("a", 1, 0.1))
    records.epochs.flush()
    segment = tmp_path / "epochs" / "part-00001.parquet"
    segment.write_bytes(segment.read_bytes()[:40])
    with pytest.raises(RecordsError, match=r"part-00001\.parquet cannot be read .* delete it"):
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


STRESS_SECONDS = 1.0

READERS = {
    "pandas": "pandas.read_parquet(folder)",
    "pandas, fastest columns": "pandas.read_parquet(folder, columns=['trial_id', 'epoch'])",
    "pandas, file by file": "pandas.concat([pandas.read_parquet(file) for file in sorted(Path(folder).iterdir())"
    " if file.name[0] != '.'])",
    "pyarrow table": "pyarrow.parquet.read_table(folder).to_pandas()",
    "pyarrow dataset": "pyarrow.dataset.dataset(folder).to_table().to_pandas()",
    "pyarrow dataset, scanned later": "scan_later(pyarrow.dataset.dataset(folder)).to_pandas()",
    "duckdb": "duckdb.sql(f\"select * from '{folder}/*.parquet'\").df()",
    "duckdb, by name": "duckdb.sql(f\"select * from read_parquet('{folder}/*.parquet', union_by_name=true)\").df()",
    "polars": "polars.read_parquet(folder + '/*.parquet').to_pandas()",
    "polars, lazily": "polars.scan_parquet(folder + '/*.parquet').collect().to_pandas()",
}

GROUPS = {
    "pandas": ["pandas"],
    **{f"{library}, in turns": [name for name in READERS if name.startswith(library) and name != "pandas"]
       for library in ("pandas", "pyarrow", "duckdb", "polars")},
}  # fmt: skip
"""Readers that take turns in one process; the first group is the default run's."""

READ = """
import sys, time, pandas, pyarrow, pyarrow.dataset, pyarrow.parquet
from pathlib import Path
try:
    import LIBRARY
except ImportError:
    sys.exit("not installed")
def scan_later(dataset):
    fragments = [fragment for fragment in dataset.get_fragments() if fragment.metadata]
    time.sleep(0.05)
    return pyarrow.concat_tables(fragment.to_table(schema=dataset.schema) for fragment in fragments)
folder, done, reads = sys.argv[1], Path(sys.argv[2]), 0
readers = {READERS}
print("ready", flush=True)
while not done.exists() or not reads:
    for name, read in readers.items():
        began = int(done.with_suffix(".progress").read_text() or 0) if done.with_suffix(".progress").exists() else 0
        rows = read()
        assert len(rows) >= began, f"{name}: {len(rows)} rows of {began}"
        assert not rows.duplicated(["trial_id", "epoch"]).any(), f"{name}: rows twice"
    reads += 1
print(reads)
"""


@pytest.mark.parametrize(
    "group", [name if name in READERS else pytest.param(name, marks=pytest.mark.slow) for name in GROUPS]
)
def test_others_read_a_growing_table_at_any_moment(
    records: Records, tmp_path: Path, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, "ROWS_PER_PART", 300)
    library = group.split(",")[0]
    pytest.importorskip(library)
    done = tmp_path / "done"
    readers = ", ".join(f"{name!r}: lambda: {READERS[name]}" for name in GROUPS[group])
    code = READ.replace("READERS", readers).replace("LIBRARY", library)
    words = [sys.executable, "-c", code, str(tmp_path / "epochs"), str(done)]
    others = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n", other.communicate()[1][-800:]
    deadline, written = time.monotonic() + STRESS_SECONDS, 0
    while time.monotonic() < deadline or written <= 100:  # so that rows were replaced once
        written += 1
        records.epochs.append(epoch_row("a", written, 0.1))
        records.epochs.flush()
        with atomic_write(done.with_suffix(".progress")) as progress:
            progress.write_text(str(written))
        if written % 97 == 0:
            records.epochs.append(epoch_row("a", written // 2, 0.2))
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
