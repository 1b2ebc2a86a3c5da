"""The rows of a study as data frames, whichever version of kdstudy wrote them; files that cannot be read are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.records.columns import EPOCH_COLUMNS, KEYS, SETTING_PREFIX, TRIAL_COLUMNS
from study.records.parquet_table import RecordsError, list_parquet_files, open_once
from study.records.paths import StudyPaths

YOUNGER_COLUMNS = {"code": "", "member": None, "start_epoch": None, "end_epoch": None, "parent": None, "point": None}
"""Columns that files of earlier versions lack: those of schema 1 `code`, and all of before 0.2 the others."""


def read_trials(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the last row of each trial, with a column for each setting, and warnings of files left out."""
    trials, warnings = _read_parquet_table(StudyPaths(folder).trials, TRIAL_COLUMNS)
    _fill_settings(trials)
    return trials, warnings


def read_epochs(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the last row of each epoch, and warnings of files left out."""
    return _read_parquet_table(StudyPaths(folder).epochs, EPOCH_COLUMNS)


def _read_parquet_table(folder: Path, columns: tuple[tuple[str, pa.DataType], ...]) -> tuple[pd.DataFrame, list[str]]:
    tables, warnings = [pa.schema(columns).empty_table()], []
    for path in list_parquet_files(folder):
        try:
            tables.append(_cast_columns(pq.read_table(open_once(path), partitioning=None), columns))
        except (OSError, pa.ArrowException, RecordsError) as error:
            reason = str(error).splitlines()[0]
            warnings.append(f"{folder.name}/{path.name} cannot be read and is left out: {reason}")
    frame = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    if "code" in frame:
        frame["code"] = frame["code"].fillna("")
    return frame.drop_duplicates(list(KEYS[folder.name]), keep="last", ignore_index=True), warnings


def _cast_columns(table: pa.Table, columns: tuple[tuple[str, pa.DataType], ...]) -> pa.Table:
    """Return a file's rows with typed columns; further columns are settings and metrics.

    Columns that are younger than the file are filled. Raises RecordsError if another one is missing.
    """
    for name, value in YOUNGER_COLUMNS.items():
        if name in dict(columns) and name not in table.column_names:
            table = table.append_column(name, pa.array([value] * table.num_rows, dict(columns)[name]))
    missing = [name for name, _ in columns if name not in table.column_names]
    if missing:
        raise RecordsError(f"it lacks the columns {', '.join(missing)}")
    further = [name for name in table.column_names if name not in dict(columns)]
    kinds = (table.schema.field(name).type if name.startswith(SETTING_PREFIX) else pa.float64() for name in further)
    schema = pa.schema([*columns, *zip(further, kinds, strict=True)])
    return table.select(schema.names).cast(schema)


def _fill_settings(trials: pd.DataFrame) -> None:
    """Fill the columns of searched settings in rows that were written without them, before version 0.2."""
    given = trials["params"].map(parse_json_object)
    for name in dict.fromkeys(name for params in given for name in params):
        values, column = given.map(lambda params, name=name: params.get(name)), SETTING_PREFIX + name
        texts = column in trials and not pd.api.types.is_numeric_dtype(trials[column])
        texts = texts or any(isinstance(value, str | bool) for value in values)
        values = values.mask(values.map(lambda value: isinstance(value, list)), None)  # a schedule of several values
        trials[column] = values.map(str, na_action="ignore") if texts else pd.to_numeric(values)


def parse_json_object(text: Any) -> dict[str, Any]:
    """Return the object in a cell of a JSON column such as `params`; empty if there is none."""
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
