"""Studies as the tables of papers read them."""

from __future__ import annotations

import pandas as pd

from reports.format.table import Table
from reports.load import StudyRecords, load_study
from tests.reports.fake_study import Writer


def written(writer: Writer, **further: str) -> StudyRecords:
    """The study as it is read, with its test metric also under other names."""
    folder = writer.fill().write()
    rows = pd.read_parquet(folder / "trials").rename(columns={"test/accuracy": writer.study["test_metric"]})
    for column, shift in further.items():
        rows[column.replace("__", "/")] = rows[writer.study["test_metric"]] + float(shift)
    rows.to_parquet(folder / "trials" / "part-00001.parquet")
    return load_study(folder)


def rows_of(table: Table) -> dict[str, tuple[str, ...]]:
    rows = {row[0]: row[1:] for row in table.rows}
    assert len(rows) == len(table.rows)
    return rows
