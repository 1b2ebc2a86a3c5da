from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports.analysis.comparison import Comparison, compare_arms
from reports.analysis.search import find_best_trial, rank_trials
from reports.build import write_tables
from reports.format.metrics import format_duration, format_number, make_metric, shorten
from reports.format.settings import find_domains, list_settings
from reports.format.table import Table, to_csv, to_markdown, to_text
from reports.load import load_study
from reports.tables import search as search_results
from reports.tables.comparison import (
    format_comparisons,
    make_comparison_table,
    make_failures_table,
    make_provenance_table,
)
from reports.tables.search import make_search_table
from reports.text import summary as headline
from tests.reports.fake_study import DKD, NONE, SEARCHED, Writer


def only(folder: Path) -> Comparison:
    (comparison,) = compare_arms(load_study(folder))
    return comparison


def test_comparison_equals_hand_computation(study: Path) -> None:
    none, dkd, searched = only(study).rows
    difference = np.subtract(SEARCHED, DKD)
    assert none.paired is None
    assert none.mean is not None
    assert none.mean.mean == pytest.approx(np.mean(NONE))
    assert dkd.paired is not None
    assert dkd.paired.difference == pytest.approx(np.mean(DKD) - np.mean(NONE))
    assert dkd.p == 2 * 2 / 2**8
    assert dkd.verdict == "better"
    assert searched.paired is not None
    assert searched.paired.sd == pytest.approx(difference.std(ddof=1))
    assert searched.p == searched.paired.p > 0.05
    assert searched.verdict == "undecided"
    assert searched.seeds_needed is not None
    assert searched.seeds_needed > 8


def test_comparison_table_writes_percent_and_points(study: Path) -> None:
    table = make_comparison_table(only(study))
    cells = dict(zip(table.columns, table.rows[2], strict=True))
    half = stats.t.ppf(0.975, 7) * np.std(DKD, ddof=1) / np.sqrt(8)
    assert table.rows[0][:3] == ("teacher: resnet20", "1", "96.99")
    assert cells["test accuracy, %"] == f"{100 * np.mean(DKD):.2f} ± {100 * half:.2f}"
    assert cells["difference, points"].startswith("+3.05 [")
    assert cells["p"] == "0.016"
    assert "published" not in table.columns


def test_a_metric_to_be_minimised_turns_the_verdict(writer: Writer) -> None:
    writer.study["metrics"] = {**writer.study["metrics"], "test/accuracy": "min"}
    assert only(writer.fill().write()).rows[1].verdict == "worse"


def test_holm_counts_a_comparison_that_has_no_runs_yet(writer: Writer) -> None:
    writer.fill()
    writer.trials = [
        row for row in writer.trials if not (row["phase"] == "confirm" and row["arm"] == "DKD + LP searched")
    ]
    comparison = only(writer.write())
    assert comparison.comparisons == 2
    assert comparison.rows[1].p == 2 * 2 / 2**8
    assert comparison.rows[2].verdict is None
    assert "no result" in headline.summarize_comparison(comparison)


def test_arms_are_paired_over_shared_seeds_only(writer: Writer) -> None:
    writer.fill()
    dropped = [row for row in writer.trials if row["phase"] == "confirm" and row["arm"] == "none"][:3]
    writer.trials = [row for row in writer.trials if row not in dropped]
    paired = only(writer.write()).rows[1].paired
    assert paired is not None
    assert paired.n == 5
    assert paired.difference == pytest.approx(np.mean(DKD[3:]) - np.mean(NONE[3:]))


def test_runs_of_equal_number_but_other_seed_are_not_paired(writer: Writer) -> None:
    writer.fill()
    for row in writer.trials:
        if row["phase"] == "confirm" and row["arm"] == "none":
            row["seed"] += 50
    assert only(writer.write()).rows[1].paired is None


def test_each_student_has_its_own_table(writer: Writer) -> None:
    writer.students = ["resnet8", "resnet20"]
    comparisons = compare_arms(load_study(writer.fill().write()))
    assert [comparison.student for comparison in comparisons] == ["resnet8", "resnet20"]
    assert all(comparison.comparisons == 2 for comparison in comparisons)


def test_published_figures_stand_beside_measured_ones_under_the_papers_protocol(writer: Writer) -> None:
    writer.study["protocol"] = "P1"
    folder = writer.fill().write()
    searched = only(folder).rows[2]
    assert searched.published is not None
    assert searched.published.value == pytest.approx(0.0064)
    table = make_comparison_table(only(folder))
    assert [row[-1] for row in table.rows] == ["–", "–", "–", "+0.64"]
    assert any("difference to dkd published in P1" in note for note in table.notes)
    assert headline.explain_unpublished(load_study(folder)) is None


@pytest.mark.parametrize("complete", [True, False])
def test_published_figures_are_shown_only_beside_complete_data(writer: Writer, complete: bool) -> None:
    writer.study["protocol"] = "P4"
    writer.study["inputs"] = {"data": {"name": "ShanghaiTech A", "complete": complete}}
    writer.study["teacher"] = {"name": "m_sfanet", "metrics": {}}
    writer.study |= {"test_metric": "test/mae", "metrics": {"test/mae": "min"}}
    writer.students = ["mcnn"]
    writer.published = {"DKD": "kd alpha=0.1"}
    records = load_study(writer.fill().write())
    (comparison,) = compare_arms(records)
    assert comparison.teacher is not None
    figures = [figure.value for figure in (comparison.teacher.published, comparison.rows[1].published) if figure]
    assert figures == ([57.55, 90.86] if complete else [])
    line, why = headline.describe_data(records), headline.explain_unpublished(records)
    if complete:
        assert line.endswith("Data and protocol of P4.")
        assert why is None
    else:
        assert line.endswith(
            "Not P4's data: images are missing or added; published figures are not shown beside measured ones."
        )
        assert why is not None
        assert "runs on ShanghaiTech A (images are missing or added), not under P4's protocol" in why


def test_a_published_difference_to_another_arm_is_not_shown(writer: Writer) -> None:
    writer.study["protocol"] = "P1"
    writer.versus["DKD + LP searched"] = "none"
    assert only(writer.fill().write()).rows[2].published is None


def test_the_best_validation_epoch_stands_beside_the_last_one(writer: Writer) -> None:
    folder = writer.fill().write()
    rows = pd.read_parquet(folder / "trials")
    rows["test_at_best_val/accuracy"] = rows["test/accuracy"] + 0.01
    rows.to_parquet(folder / "trials" / "00000001.parquet")
    comparison = only(folder)
    table = make_comparison_table(comparison)
    assert table.rows[2][table.columns.index("at best validation epoch")].startswith("95.21")
    assert comparison.rows[1].mean is not None
    assert comparison.rows[1].mean.mean == pytest.approx(np.mean(DKD))


def test_search_ranks_completed_trials_before_stopped_and_failed(study: Path) -> None:
    records = load_study(study)
    cell = records.cells[2]
    ranked = rank_trials(records, cell)
    states = list(ranked["state"])
    assert states == sorted(states, key=["COMPLETE", "PRUNED", "FAILED"].index)
    scores = ranked[ranked["state"] == "COMPLETE"]["val/accuracy"]
    assert scores.is_monotonic_decreasing
    best = find_best_trial(records, cell)
    assert best is not None
    assert best["trial_id"] == ranked.iloc[0]["trial_id"]
    table = make_search_table(records, cell)
    assert len(table.rows) == 10
    assert table.kinds[0] == "best"
    assert table.notes == ("6 more in trials/.",)


def test_of_equal_scores_the_earlier_trial_wins_as_in_the_engine(writer: Writer) -> None:
    writer.fill()
    for row in writer.trials:
        if row["phase"] == "search" and row["state"] == "COMPLETE":
            row["val/accuracy"] = 0.5
    records = load_study(writer.write())
    best = find_best_trial(records, records.cells[2])
    assert best is not None
    assert best["number"] == 0


def test_a_search_that_minimises_ranks_the_smallest_first(writer: Writer) -> None:
    writer.study["metrics"] = {**writer.study["metrics"], "val/accuracy": "min"}
    records = load_study(writer.fill().write())
    ranked = rank_trials(records, records.cells[2])
    assert ranked[ranked["state"] == "COMPLETE"]["val/accuracy"].is_monotonic_increasing


def test_failures_show_every_failed_trial_with_its_reason(study: Path) -> None:
    rows = make_failures_table(load_study(study)).rows
    assert [(row[2], row[3], row[-1]) for row in rows] == [
        ("search", "4", "the loss is not finite in epoch 3"),
        ("search", "11", "the loss is not finite in epoch 3"),
    ]


def test_provenance_holds_commit_versions_machine_seeds_and_hashes(study: Path) -> None:
    facts = dict(make_provenance_table(load_study(study)).rows)
    assert facts["commit"].endswith("with uncommitted changes")
    assert facts["version of torch"] == "2.9.0"
    assert facts["machine cores"] == "2"
    assert facts["confirm seeds"].startswith("1000, 1001")
    assert (facts["data fingerprint"], facts["teacher fingerprint"]) == ("5f1c0a9be2d34471", "9d2e6c11aa07f3b5")


@pytest.mark.parametrize("width", [80, 110])
def test_comparison_text_fits_its_width(writer: Writer, width: int) -> None:
    writer.study["protocol"] = "P1"
    writer.arms["x" * 300] = [0.9] * 8
    writer.versus["x" * 300] = "DKD + LP searched"
    text = format_comparisons(writer.fill().write(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert ("[+2.74, +3.30]" in text) == (width == 110)
    assert "DKD" in text
    assert "better" in text


@pytest.mark.parametrize(("seeds", "says"), [(3, "at least 7 seeds"), (6, "at least 7 seeds"), (7, None), (0, None)])
def test_seeds_line_says_beforehand_when_seeds_cannot_decide(study: Path, seeds: int, says: str | None) -> None:
    line = headline.seeds_line(replace(only(study), seeds=seeds))
    assert (line is None) if says is None else (line is not None and says in line)


def test_headline_of_an_unfinished_study_says_so(writer: Writer) -> None:
    writer.study["finished"] = False
    writer.fill()
    writer.trials = [row for row in writer.trials if row["phase"] != "confirm" or row["number"] < 2]
    lines = headline.list_problems(load_study(writer.write()))
    assert lines[0].startswith("This study is not finished: 6 of 24 confirm runs have a result.")
    assert lines[1] == "2 trials failed (2 in search)."


def test_headline_answers_from_the_verdicts(study: Path) -> None:
    comparison = only(study)
    assert headline.summarize_comparison(comparison).startswith(
        "resnet8: DKD + LP searched against DKD is undecided (+0.17 points"
    )
    assert (
        headline.summarize_baselines(comparison)
        == "resnet8, among the baselines: DKD is better than none (+3.05 points accuracy)."
    )


def test_search_that_chose_what_it_is_compared_with_is_told_as_such(writer: Writer) -> None:
    writer.arms["DKD + LP searched"] = DKD
    comparison = only(writer.fill().write())
    assert (
        headline.summarize_comparison(comparison) == "resnet8: DKD + LP searched and DKD gave the same with every seed."
    )
    table = make_comparison_table(comparison)
    assert table.rows[-1][table.columns.index("seeds needed")] == "–"  # no number of them would decide it


def test_headline_tells_many_undecided_arms_in_one_phrase(writer: Writer) -> None:
    for name in ("a", "b"):
        writer.arms[name] = SEARCHED
        writer.versus[name], writer.published[name] = "DKD", None
        writer.searched.add(name)
    said = headline.summarize_comparison(only(writer.fill().write()))
    assert said.startswith("resnet8: DKD + LP searched, a and b against DKD are undecided (between +0.17 and +0.17")


def test_data_line_says_whether_it_is_a_papers_protocol(writer: Writer) -> None:
    records = load_study(writer.write())
    line = headline.describe_data(records)
    assert line.startswith(
        "Data: digits (scikit-learn), 8×8 grey, 10 classes: 300 training, 60 validation and 899 test"
    )
    assert line.endswith("the data and protocol of any paper; published figures are not shown beside measured ones.")
    under = replace(records, study={**records.study, "protocol": "P1"})
    assert headline.describe_data(under).endswith("Data and protocol of P1.")


def test_comparison_csv_holds_unrounded_numbers(study: Path) -> None:
    write_tables(load_study(study))
    rows = pd.read_csv(study / "tables" / "comparison.csv").set_index("arm")
    assert rows.loc["DKD", "mean"] == pytest.approx(np.mean(DKD), abs=1e-12)
    assert rows.loc["DKD", "verdict"] == "better"
    assert (study / "tables" / "comparison.md").read_text().count("\n| DKD ") == 2


def test_table_forms_keep_hostile_cells_in_their_place() -> None:
    table = Table("t", "a|b", ("name", "value"), "lr", (("x|y\n<b>", "1"), ('say "hi", you', "2")))
    markdown = to_markdown(table).splitlines()
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in markdown if line.startswith("|"))
    assert "<b>" not in to_markdown(table)
    assert to_csv(table) == 'name,value\n"x|y\n<b>",1\n"say ""hi"", you",2\n'
    assert len(to_text(table).splitlines()) == 4


def test_domains_are_named_as_trials_record_them(writer: Writer) -> None:
    loss = writer.study["study"]["arms"][2]["loss"]
    found = dict(find_domains(loss))
    assert list(found) == ["logits.temperature", "logits.prune.end", "logits.prune.stages", "logits.prune.shape"]
    nested = {
        "is": "Choice",
        "labels": ["off", "on"],
        "options": [0.0, {"is": "Stages", "end": found["logits.prune.end"]}],
    }
    assert [name for name, _ in find_domains({"p": nested})] == ["p", "p.on.end"]


def test_settings_name_arms_and_say_what_is_searched(writer: Writer) -> None:
    task, arms, *_ = list_settings(writer.study["study"])
    assert task.text == "Digits (train_samples 300, views CropFlip (padding 1))"
    assert [arm.name for arm in arms.parts] == ["none", "DKD", "DKD + LP searched"]
    (loss,) = [part for part in arms.parts[2].parts if part.name == "loss"]
    temperature = loss.parts[0].parts[0]
    assert temperature.text == "searched: 1 to 20, logarithmic"


@pytest.mark.parametrize(
    ("name", "value", "text", "signed"),
    [
        ("test/accuracy", 0.95321, "95.32", "+95.32"),
        ("test/accuracy", -0.00001, "0.00", "+0.00"),
        ("test/psnr", -26.5904, "−26.590", "−26.590"),
        ("test/mae", float("nan"), "–", "–"),
        ("odd", 0.5, "0.5000", "+0.5000"),
    ],
)
def test_metric_writes_its_values(name: str, value: float, text: str, signed: str) -> None:
    assert (make_metric(name).format(value), make_metric(name).format_signed(value)) == (text, signed)


def test_written_forms_of_numbers_and_names() -> None:
    assert format_number(-0.001, 2) == "0.00"
    assert [format_duration(s) for s in (0.71, 48, 200, 7500)] == ["0.7 s", "48 s", "3 min 20 s", "2 h 05 min"]
    assert shorten("a" * 300, 11) == "aaaaa…aaaaa"
    assert make_metric("val/accuracy").label == "validation accuracy, %"


def test_many_conditional_settings_share_one_column():
    names = tuple(f"KD.setting{n}" for n in range(20))
    assert search_results._proposed({"KD.setting3": 0.5, "KD.setting7": "cosine"}, names) == (
        "KD.setting3 0.5, KD.setting7 cosine",
    )
    assert search_results._proposed({"a": 1}, ("a", "b")) == ("1", "–")
