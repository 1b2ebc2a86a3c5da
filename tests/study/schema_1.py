"""A study as kdstudy wrote it before schema 2, made from one of today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from study.records.parquet_table import list_parquet_files
from study.records.study_json import read_study, write_study


def downgrade(folder: Path) -> None:
    """Rewrite a study in schema 1: classes named with their module, no version of the code in any row or run."""
    study = read_study(folder)
    study["schema"] = 1
    del study["code"]
    study["provenance"]["versions"] = {"kdstudy": "0.1.0"}
    for run in study["provenance"].get("runs", []):
        del run["code"]
    for cell in study["cells"]:
        cell["versus"] = next(iter(cell["versus"]), None)
        del cell["margin"]
    study["study"] = _with_modules(study["study"])
    write_study(folder, study)
    for path in list_parquet_files(folder / "trials"):
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns("code"), path)


def _with_modules(described: Any) -> Any:
    if isinstance(described, list):
        return [_with_modules(item) for item in described]
    if not isinstance(described, dict):
        return described
    parts = {key: _with_modules(item) for key, item in described.items()}
    return parts | {"from": f"{parts['from']}.some.module"} if "from" in parts else parts
