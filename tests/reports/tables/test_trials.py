"""The tables of failed trials, and of all trials."""

from __future__ import annotations

from pathlib import Path

from reports.load import load_study
from reports.page.blocks import FilteredTable, encode_column
from reports.tables.trials import MAX_REASON, make_tables, make_trial_table
from tests.reports.fake_study import SEEDS, TRIALS, Writer


def test_failures_show_every_failed_trial_with_its_reason(study: Path) -> None:
    rows = make_tables(load_study(study))[0].rows
    assert [(row[2], row[3], row[-1]) for row in rows] == [
        ("search", "4", "the loss is not finite in epoch 3"),
        ("search", "11", "the loss is not finite in epoch 3"),
    ]


def test_table_has_each_search_and_confirm_trial_in_the_studys_order(study: Path) -> None:
    table = make_trial_table(load_study(study))
    assert len(table.rows) == 3 * SEEDS + TRIALS
    phases = [row[:4] for row in table.rows]
    assert phases[0] == ("resnet8", "none", "confirm", "0")
    assert phases[2 * SEEDS] == ("resnet8", "DKD + LP searched", "search", "0")
    assert phases[-1] == ("resnet8", "DKD + LP searched", "confirm", "7")


def test_row_has_state_scores_settings_and_reason(study: Path) -> None:
    table = make_trial_table(load_study(study))
    rows = {row[2:4]: dict(zip(table.columns, row, strict=True)) for row in table.rows if "searched" in row[1]}
    stopped = rows["search", "1"]
    assert stopped["state"] == "stopped"
    assert (stopped["epochs"], stopped["time"]) == ("4 of 8", "2.8 s")
    assert stopped["settings"].startswith("logits.prune.end 0.085, logits.prune.stages 3, ")
    assert stopped["reason"] == "rung 4: below the best third"
    assert rows["search", "4"]["validation accuracy, %"] == "–"
    assert rows["confirm", "0"]["test accuracy, %"] == "94.66"


def test_long_reasons_are_cut(writer: Writer) -> None:
    for row in writer.fill().trials:
        row["reason"] = "x" * 1000
    table = make_trial_table(load_study(writer.write()))
    assert {len(row[-1]) for row in table.rows} == {MAX_REASON}


def test_columns_list_repeated_words_once() -> None:
    assert encode_column(("a", "b", "a")) == {"words": ["a", "b"], "places": [0, 1, 0]}
    assert encode_column(("b", "a")) == {"words": ["b", "a"]}


def test_menus_are_those_of_columns_with_several_words(study: Path) -> None:
    block = FilteredTable(make_trial_table(load_study(study)), ("student", "arm", "state"))
    assert block.menus == (
        (1, "arm", ("none", "DKD", "DKD + LP searched")),
        (4, "state", ("complete", "stopped", "failed")),
    )
