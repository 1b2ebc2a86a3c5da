"""A population's chains in the report: the winner's table, who copied whom, and the schedules found."""

from __future__ import annotations

import json

import pytest

from reports.analysis.population import find_best_chain, list_values
from reports.figures.population import draw_population
from reports.load import StudyRecords, load_study
from reports.tables.population import make_chain_table
from study.records.study_json import describe_metric
from tests.study.engine.test_population_cell import drive, make_study, open_coordinator
from trainables.tasks.moving import MovingOptimum


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> StudyRecords:
    folder, study = tmp_path_factory.mktemp("population"), make_study(seed=5)  # whose best chain copies twice
    coordinator = open_coordinator(study, folder)
    drive(coordinator, folder)
    coordinator.writer.flush()
    document = {
        "schema": 2,
        "name": "toy",
        "metric": "val/accuracy",
        "test_metric": "test/accuracy",
        "direction": "max",
        "metrics": {name: describe_metric(metric) for name, metric in MovingOptimum.metrics.items()},
        "budget": {"trials": 5, "epochs": 8, "seeds": 2},
        "cells": [
            {"cell": "student / plain", "student": "student", "arm": "plain", "baseline": True},
            {
                "cell": "student / dynamic",
                "student": "student",
                "arm": "dynamic",
                "searched": True,
                "population": 5,
                "parameters": ["x", "y"],
            },
        ],
    }
    (folder / "toy" / "study.json").write_text(json.dumps(document))
    return load_study(folder / "toy")


def test_chain_is_that_of_the_schedule_that_confirm_trained(records: StudyRecords) -> None:
    chain = find_best_chain(records, records.cells[1])
    assert chain["start_epoch"].tolist() == [0, 3, 6]
    confirmed = json.loads(records.confirmed[records.confirmed["arm"] == "dynamic"]["params"].iloc[0])
    for name, values in list_values(chain).items():
        assert confirmed[name] == [values[0]] * 3 + [values[1]] * 3 + [values[2]] * 2
    assert records.confirmed["params.x"].isna().all()


def test_table_names_copies_and_the_price(records: StudyRecords) -> None:
    table = make_chain_table(records, records.cells[1])
    assert table.columns == ("epochs", "trial", "member", "", "x", "y", "validation accuracy, %")
    assert [row[0] for row in table.rows] == ["1–3", "4–6", "7–8"]
    copies = [row[3] for row in table.rows if row[3]]
    assert copies
    assert all(text.startswith("a copy of ") for text in copies)
    assert table.notes == ("The search trained 40 of at most 40 epochs. Every search may train as many.",)


def test_figure_has_a_line_for_each_link_and_a_schedule_for_each_setting(records: StudyRecords) -> None:
    chains, *schedules = draw_population(records, records.cells[1])
    assert chains.name == "chains"
    others, best, ends = chains.figure.data
    assert (list(others.x).count(None), list(best.x).count(None), len(ends.x)) == (12, 3, 15)
    jumps = [(a, b) for a, b in zip(best.y, best.y[1:], strict=False) if None not in (a, b) and a != b]
    assert jumps, "the best chain copied"
    assert [figure.name for figure in schedules] == ["schedule0", "schedule1"]
    assert list(schedules[0].figure.data[0].x) == [0, 3, 3, 6, 6, 8]
