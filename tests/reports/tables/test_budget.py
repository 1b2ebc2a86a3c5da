from __future__ import annotations

from pathlib import Path

import pytest

from reports.format.values import format_duration
from reports.load import load_study
from reports.tables.budget import audit_budget, make_tables
from tests.reports.fake_study import EPOCHS, TRIALS, Writer

SEARCHED = "resnet8 / DKD + LP searched"


def test_budget_separates_search_from_confirm_runs(writer: Writer) -> None:
    table = make_tables(load_study(writer.fill().write()))[0]
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    mine = [row for row in writer.trials if row["arm"] == "DKD + LP searched"]
    searched = sum(row["epochs_done"] for row in mine if row["phase"] == "search")
    row = rows[SEARCHED]
    assert [row[name] for name in ("search trials", "complete", "stopped", "failed")] == ["16", "10", "4", "2"]
    assert (row["search epochs"], row["confirm runs"], row["confirm epochs"]) == (str(searched), "8", str(8 * EPOCHS))
    assert row["all epochs"] == str(searched + 8 * EPOCHS)
    assert row["time"] == format_duration(sum(trial["seconds"] for trial in mine))
    assert rows["resnet8 / DKD"]["search epochs"] == "–"
    assert rows["prepare: teacher"]["all epochs"] == "8"


def test_budget_ends_with_the_sum_of_all(writer: Writer) -> None:
    for row in writer.fill().trials:
        row["gpus"] = 0.5
    table = make_tables(load_study(writer.write()))[0]
    total = dict(zip(table.columns, table.rows[-1], strict=True))
    seconds = sum(row["seconds"] for row in writer.trials)
    assert (total["cell"], table.kinds[-1]) == ("all", "total")
    assert total["all epochs"] == f"{sum(row['epochs_done'] for row in writer.trials):,}"
    assert (total["confirm runs"], total["time"]) == ("24", format_duration(seconds))
    assert total["GPU hours"] == f"{seconds * 0.5 / 3600:.2f}"
    assert len(table.notes) == 1


def test_cost_follows_the_audit_if_the_price_is_on_record(writer: Writer) -> None:
    for row in writer.fill().trials:
        row |= {"gpus": 0.5, "seconds": 0.0}
    writer.trials[0]["seconds"] = 7200.0
    writer.study["budget"]["usd_per_hour"] = 0.8
    assert make_tables(load_study(writer.write()))[0].notes[1] == "1.00 GPU hours cost 0.80 USD at 0.8 USD an hour."


def test_audit_of_equal_budgets_reports_them_as_equal(study: Path) -> None:
    audit = audit_budget(load_study(study))
    assert audit.startswith(f"Equal: every cell was confirmed on the same 8 seeds, {EPOCHS} epochs a run.")
    assert f"The searched cell had {TRIALS} search trials of at most {EPOCHS} epochs besides." in audit
    assert audit.endswith("Cells with fixed settings had no search.")


def test_audit_names_the_cell_that_lacks_seeds(writer: Writer) -> None:
    writer.fill()
    writer.trials = [
        row for row in writer.trials if not (row["phase"] == "confirm" and row["arm"] == "DKD" and row["number"] == 5)
    ]
    audit = audit_budget(load_study(writer.write()))
    assert audit.startswith("Not equal: confirm runs by seed (8 runs: resnet8 / none, resnet8 / DKD + LP searched; ")
    assert "7 runs: resnet8 / DKD)" in audit


def test_audit_detects_different_seeds_of_equal_number(writer: Writer) -> None:
    for row in writer.fill().trials:
        row["seed"] += 1 if row["arm"] == "DKD" else 0
    assert audit_budget(load_study(writer.write())).startswith("Not equal: confirm runs by seed")


@pytest.mark.parametrize(("phase", "word"), [("confirm", "a confirm run"), ("search", "a search trial")])
def test_audit_detects_different_epochs(writer: Writer, phase: str, word: str) -> None:
    writer.searched = {"DKD", "DKD + LP searched"}
    for row in writer.fill().trials:
        row["epochs"] += 2 if row["arm"] == "DKD" and row["phase"] == phase else 0
    audit = audit_budget(load_study(writer.write()))
    assert f"Not equal: epochs of {word} (" in audit
    assert f"{EPOCHS + 2}: resnet8 / DKD" in audit


def test_audit_detects_searches_of_different_length(writer: Writer) -> None:
    writer.searched = {"DKD", "DKD + LP searched"}
    writer.fill()
    gone = [row for row in writer.trials if row["phase"] == "search" and row["arm"] == "DKD" and row["number"] > 8]
    writer.trials = [row for row in writer.trials if row not in gone]
    assert f"Not equal: search trials (9: resnet8 / DKD; {TRIALS}: {SEARCHED})." in audit_budget(
        load_study(writer.write())
    )


def test_audit_without_any_rows(writer: Writer) -> None:
    assert "No arm has a confirm run yet." in audit_budget(load_study(writer.write()))
    assert make_tables(load_study(writer.folder))[0].rows[-1][0] == "all"
