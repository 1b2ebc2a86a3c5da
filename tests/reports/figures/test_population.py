"""A population's chains in the report: the winner's table, who copied whom, and the schedules found."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from reports.analysis.population import find_best_chain, find_published_values, list_values
from reports.figures.population import draw_population
from reports.figures.search import draw_search_so_far
from reports.load import StudyRecords, load_study
from reports.tables.population import make_chain_table
from study.records.study_json import describe_metric
from tests.study.engine.test_population_progress import drive, make_study, open_coordinator
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
    assert table.columns == ("epochs", "trial", "member", "", "validation accuracy, %", "x", "y")
    assert [row[0] for row in table.rows] == ["1–3", "4–6", "7–8"]
    copies = [row[3] for row in table.rows if row[3]]
    assert copies
    assert all(text.startswith("a copy of ") for text in copies)
    assert table.notes == ("The search trained 40 of at most 40 epochs. Every search may train as many.",)


def test_price_that_is_not_equal_is_named(records: StudyRecords) -> None:
    budget = {"trials": 6, "epochs": 8, "seeds": 2}
    larger = dataclasses.replace(records, study={**records.study, "budget": budget})
    assert make_chain_table(larger, records.cells[1]).notes == (
        "The search trained 40 of at most 40 epochs. Not equal: the other searches may train 48.",
    )
    cells = [{**listed, "searched": True} for listed in records.study["cells"]]
    fewer = dataclasses.replace(records, study={**records.study, "cells": cells})
    assert make_chain_table(fewer, fewer.cells[1]).notes == (
        "The search trained 40 of at most 40 epochs, compared with 0 for plain. Every search may train as many; trials "
        "that were stopped or failed trained fewer.",
    )


def with_first_points(records: StudyRecords, *arms: str) -> StudyRecords:
    """Return the records of a study whose arms name the loss of their trial 0 as their first point."""
    rows = records.trials[records.trials["number"] == 0]
    losses = {arm: json.loads(rows[rows["arm"] == arm]["config"].iloc[0])["loss"] for arm in arms}
    listed = [{"name": arm, "first": [loss]} for arm, loss in losses.items()]
    return dataclasses.replace(records, study={**records.study, "study": {"arms": listed}})


def with_schedules(records: StudyRecords, arm: str, **values: Any) -> StudyRecords:
    """Return the records with values of a schedule in each epoch of an arm's trials."""
    trials, epochs = records.trials[records.trials["arm"] == arm]["trial_id"], records.epochs.copy()
    of_arm = epochs["trial_id"].isin(trials)
    texts = [json.dumps({name: of[int(epoch) - 1] for name, of in values.items()}) for epoch in epochs["epoch"]]
    epochs.loc[of_arm, "schedules"] = [text for text, mine in zip(texts, of_arm, strict=True) if mine]
    return dataclasses.replace(records, epochs=epochs)


def test_published_values_are_those_of_first_points_a_schedule_before_a_constant(records: StudyRecords) -> None:
    cell, falling = records.cells[1], [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    assert find_published_values(records, cell, "x") == []
    constant = with_first_points(records, "dynamic")
    links = records.get_search_trials(cell)
    assert find_published_values(constant, cell, "x") == [json.loads(links["params"].iloc[0])["x"]] * 8
    moving = with_schedules(with_first_points(records, "dynamic", "plain"), "plain", x=falling, y=falling)
    assert find_published_values(moving, cell, "x") == falling
    *_, schedule, _ = draw_population(moving, cell)
    lines = {line.name: line for line in schedule.figure.data}
    assert lines.keys() == {"best chain", "published", "plain"}
    assert list(lines["published"].x) == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8]
    assert list(lines["published"].y)[::2] == falling


def test_live_page_draws_chains_up_to_the_last_epoch_on_record(records: StudyRecords) -> None:
    trials = records.trials.copy()
    running = (trials["member"] == 4) & (trials["end_epoch"] == 8)
    trials.loc[running, ["state", "val/accuracy"]] = ["RUNNING", float("nan")]
    epochs = records.epochs[
        ~((records.epochs["trial_id"] == trials[running]["trial_id"].iloc[0]) & (records.epochs["epoch"] == 8))
    ]
    chains, *_ = draw_search_so_far(dataclasses.replace(records, trials=trials, epochs=epochs), records.cells[1])
    assert chains.name == "chains"
    others, best, ends = chains.figure.data
    assert len(ends.x) == 14
    lines = [[x for x, y in zip(line.x, line.y, strict=True) if y == 4 and x is not None] for line in (others, best)]
    assert max(max(line, default=0) for line in lines) == 7


def test_figure_has_a_line_for_each_link_and_a_schedule_for_each_setting(records: StudyRecords) -> None:
    chains, *schedules = draw_population(records, records.cells[1])
    assert chains.name == "chains"
    others, best, ends = chains.figure.data
    assert (list(others.x).count(None), list(best.x).count(None), len(ends.x)) == (12, 3, 15)
    jumps = [(a, b) for a, b in zip(best.y, best.y[1:], strict=False) if None not in (a, b) and a != b]
    assert jumps, "the best chain copied"
    assert [figure.name for figure in schedules] == ["schedule0", "schedule1"]
    assert list(schedules[0].figure.data[0].x) == [0, 3, 3, 6, 6, 8]
