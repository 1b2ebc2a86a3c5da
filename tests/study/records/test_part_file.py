"""Files that grow: a program that has looked at a version finds its rows in the versions of the next minute."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study.records import part_file
from study.records.part_file import PartFile

SCHEMA = pa.schema(
    [("trial_id", pa.string()), ("epoch", pa.int32()), ("score", pa.float64()), ("note", pa.string())],
)
KEY = ("trial_id", "epoch")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, which tests set."""
    now = [1000.0]
    monkeypatch.setattr("study.records.part_file.time.monotonic", lambda: now[0])
    return now


def make_row(number: int, score: float = 0.5) -> dict[str, Any]:
    return {"trial_id": "a", "epoch": number, "score": score, "note": f"{random.Random(number).random()}"}


def create(folder: Path) -> PartFile:
    return PartFile(folder / "part-00001.parquet", SCHEMA, KEY, pa.Table.from_batches([], SCHEMA))


def read(content: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.ParquetFile(pa.BufferReader(content)).read().to_pylist()
    return rows


def test_each_version_begins_with_the_bytes_of_the_one_before(tmp_path: Path) -> None:
    file = create(tmp_path)
    before = file.path.read_bytes()
    for number in range(40):
        file.write([make_row(number)])
        now = file.path.read_bytes()
        assert now.startswith(before)
        assert [row["epoch"] for row in read(now)] == [*range(number + 1)]
        before = now


def write_for_long(file: PartFile, clock: list[float], flushes: int) -> Iterator[bytes]:
    """Write new rows and some again, once a second; yield each version of the file."""
    draw = random.Random(0)
    for number in range(flushes):
        clock[0] += 1
        again = [make_row(draw.randrange(max(0, number - 30), number), draw.random())] if number % 5 == 4 else []
        file.write([*again, make_row(number)])
        yield file.path.read_bytes()


def test_rows_of_each_version_stay_for_a_minute(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For programs that have its size only, until the file is cut, and for those that have read its footer, always."""
    monkeypatch.setattr(part_file, "MIN_OLD_FOOTERS", 2**15)
    monkeypatch.setattr(part_file, "FOOTERS_KEPT", 0)
    file, recent, cuts, largest = create(tmp_path), list[tuple[int, Any, Any]](), 0, 0
    for content in write_for_long(file, clock, 200):
        for size, footer, rows in (recent[0], recent[len(recent) // 2], recent[-1]) if recent else ():
            assert pq.ParquetFile(pa.BufferReader(content), metadata=footer).read().equals(rows)
            if size <= len(content):
                assert pq.read_table(pa.BufferReader(content[:size])).equals(rows)
        if recent and len(content) < recent[-1][0]:
            cuts, recent = cuts + 1, [(2**40, footer, rows) for _, footer, rows in recent]
        largest = max(largest, len(content))
        whole = pq.ParquetFile(pa.BufferReader(content))
        recent = [*recent[-58:], (len(content), whole.metadata, whole.read())]
    assert cuts >= 1
    assert largest < 2**15 + 2**18
    assert [row["epoch"] for row in read(content)] == [*range(200)]


def test_file_has_few_row_groups(tmp_path: Path) -> None:
    file = create(tmp_path)
    for number in range(200):
        file.write([make_row(number)])
        assert pq.read_metadata(file.path).num_row_groups <= 6


def test_row_takes_the_place_of_the_one_with_its_key(tmp_path: Path) -> None:
    file = create(tmp_path)
    for number in range(30):
        file.write([make_row(number)])
    file.write([make_row(3, 0.3), make_row(29, 0.1), make_row(30), make_row(29, 0.9)])
    scores = [row["score"] for row in read(file.path.read_bytes())]
    assert scores == [0.5] * 3 + [0.3] + [0.5] * 25 + [0.9, 0.5]
    file.merge()
    assert [row["score"] for row in read(file.path.read_bytes())] == scores
    assert pq.read_metadata(file.path).num_row_groups == 1


def test_file_of_an_earlier_process_is_continued_in_place(tmp_path: Path) -> None:
    file = create(tmp_path)
    for number in range(10):
        file.write([make_row(number)])
    before = file.path.read_bytes()
    again = PartFile(file.path, SCHEMA, KEY, pq.ParquetFile(file.path).read())
    again.write([make_row(4, 0.4)])
    again.write([make_row(10)])
    now = file.path.read_bytes()
    assert now.startswith(before)
    assert [row["score"] for row in read(now)] == [0.5] * 4 + [0.4] + [0.5] * 6


def test_file_with_other_columns_gets_those_of_this_version(tmp_path: Path) -> None:
    file = create(tmp_path)
    file.write([make_row(1)])
    schema = SCHEMA.append(pa.field("test/accuracy", pa.float64()))
    rows = pq.read_table(file.path, schema=schema)
    before = file.path.read_bytes()
    PartFile(file.path, schema, KEY, rows).write([make_row(2) | {"test/accuracy": 0.9}])
    assert file.path.read_bytes().startswith(before)
    assert [row["test/accuracy"] for row in read(file.path.read_bytes())] == [None, 0.9]


def test_write_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = create(tmp_path)
    file.write([make_row(1)])
    before = file.path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", fail)
        with pytest.raises(OSError, match="No space left"):
            file.write([make_row(1, 0.1), make_row(2)])
    assert file.path.read_bytes() == before
    file.write([make_row(2)])
    assert [row["score"] for row in read(file.path.read_bytes())] == [0.5, 0.5]


def test_many_rows_are_smaller_with_dictionaries(tmp_path: Path) -> None:
    file = create(tmp_path)
    file.write([make_row(number) | {"note": "long and often the same " * 4} for number in range(2000)])
    group = pq.read_metadata(file.path).row_group(0)
    assert "RLE_DICTIONARY" in group.column(3).encodings
    assert group.column(1).statistics.max == 1999


def test_rows_written_again_in_a_file_that_was_opened_leave_it_small(tmp_path: Path, clock: list[float]) -> None:
    """As of a resumed study, whose running trials stand in the middle of many that have ended."""
    rows = [make_row(number) for number in range(4 * part_file.MAX_GROUP_ROWS)]
    create(tmp_path).write(rows)
    path = tmp_path / "part-00001.parquet"
    size, file = path.stat().st_size, PartFile(path, SCHEMA, KEY, pq.read_table(path))
    for number in range(50):
        clock[0] += 1
        file.write([make_row(10, number)])
    assert path.stat().st_size < 20 * size, "not a copy of all rows for each version"
    assert read(path.read_bytes()) == [*rows[:10], make_row(10, 49), *rows[11:]]
