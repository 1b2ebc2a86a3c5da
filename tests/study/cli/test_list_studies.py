"""list: on studies driven without Ray."""

from __future__ import annotations

import json
import os
from pathlib import Path

from study.cli.list_studies import list_studies
from study.cli.status import read_status
from study.records.lock import lock_study
from study.records.parquet_table import list_parquet_files
from study.search.samplers import Grid
from tests.study.cli.studies import called, written
from tests.study.toy import toy


def test_list_tells_finished_unfinished_running_damaged_and_leaves_out_the_rest(runs: Path) -> None:
    written(runs)
    written(runs, 20, toy(name="halfway"))
    written(runs, 20, toy(name="held"))
    (runs / "teachers" / "abc").mkdir(parents=True)
    (runs / "torn").mkdir()
    (runs / "torn" / "study.json").write_text('{"schema": 1, ')
    with lock_study(runs / "held"):
        said = called("list", "--storage-path", runs)
        listed = {study["name"]: study for study in json.loads(called("list", "--storage-path", runs, "--json").stdout)}
    assert said.exit_code == 0
    assert list(listed) == ["halfway", "held", "torn", "toy"]
    assert [listed[name]["state"] for name in listed] == ["unfinished", "running", "damaged", "finished"]
    assert listed["held"]["by"] == f"{os.uname().nodename}:{os.getpid()}"
    assert (listed["toy"]["done"], listed["toy"]["planned"], listed["toy"]["cells"]) == (15, 15, 2)
    assert 0 < listed["halfway"]["done"] < 15
    assert f"torn: {runs / 'torn' / 'study.json'} is damaged" in said.stdout
    assert "teachers" not in said.stdout


def test_grid_smaller_than_the_budget_is_planned_and_searched_to_its_end(runs: Path) -> None:
    folder = written(runs, study=toy(sampler=Grid(points=5)))  # of the budget's 9
    (seen,) = list_studies(runs)
    assert (seen.done, seen.planned) == (11, 11)
    plain, searched = read_status(folder).cells
    assert (plain.searched, plain.to_search) == (0, 0)
    assert (searched.searched, searched.to_search, searched.phase) == (5, 5, "confirmed")


def test_older_study_without_trials_by_cell_is_counted_by_its_budget(runs: Path) -> None:
    folder = written(runs, 20)
    told = json.loads((folder / "study.json").read_text())
    told["cells"] = [{name: cell[name] for name in cell if name != "trials"} for cell in told["cells"]]
    (folder / "study.json").write_text(json.dumps(told))
    assert list_studies(runs)[0].planned == 15
    assert [cell.to_search for cell in read_status(folder).cells] == [0, 9]


def test_list_names_a_damaged_segment_and_shows_the_other_studies(runs: Path) -> None:
    folder = written(runs)
    written(runs, study=toy(name="sound"))
    segment = list_parquet_files(folder / "trials")[-1]
    segment.write_bytes(b"no parquet")
    said = called("list", "--storage-path", runs)
    assert f"toy: {segment} cannot be read" in said.stdout
    assert "15/15" in said.stdout


def test_list_of_a_study_whose_json_lacks_parts_names_them(runs: Path) -> None:
    folder = written(runs)
    told = json.loads((folder / "study.json").read_text())
    del told["budget"]["seeds"], told["question"]
    (folder / "study.json").write_text(json.dumps(told))
    assert "it lacks question" in called("list", "--storage-path", runs).stdout
    (folder / "study.json").write_text(json.dumps(told | {"question": "?"}))
    assert "it lacks a part of its budget or cells ('seeds')" in called("list", "--storage-path", runs).stdout


def test_folder_without_studies_and_no_folder_are_told_apart(tmp_path: Path) -> None:
    assert called("list", "--storage-path", tmp_path).stdout == f"no studies below {tmp_path}\n"
    refused = called("list", "--storage-path", tmp_path / "nowhere")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
