from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reports.analysis.comparison import Comparison, compare_arms
from reports.load import load_study
from reports.tables.comparison import make_comparison_table
from reports.text import summary
from reports.text.few_seeds import warn_of_few_seeds
from tests.reports.fake_study import DKD, SEARCHED, Writer


def only(folder: Path) -> Comparison:
    (comparison,) = compare_arms(load_study(folder))
    return comparison


@pytest.mark.parametrize(("seeds", "warning"), [(3, "at least 7 seeds"), (6, "at least 7 seeds"), (7, None), (0, None)])
def test_warns_beforehand_if_the_seeds_cannot_decide(study: Path, seeds: int, warning: str | None) -> None:
    line = warn_of_few_seeds(seeds, only(study).tests)
    assert (line is None) if warning is None else (line is not None and warning in line)


def test_problems_name_an_unfinished_study(writer: Writer) -> None:
    writer.study["finished"] = False
    writer.fill()
    writer.trials = [row for row in writer.trials if row["phase"] != "confirm" or row["number"] < 2]
    lines = summary.list_problems(load_study(writer.write()))
    assert lines[0].startswith("This study is not finished: 6 of 24 confirm runs have a result.")
    assert lines[1] == "2 trials failed (2 in search)."


def test_problems_count_trials_that_were_skipped_by_hand(writer: Writer) -> None:
    writer.fill()
    stopped = [row for row in writer.trials if row["state"] == "PRUNED"]
    for row in stopped[:2]:
        row["reason"] = "skipped by hand after epoch 3"
    lines = summary.list_problems(load_study(writer.write()))
    assert lines[-1].startswith("Search trials were skipped by hand: 2 of resnet8 / DKD + LP searched.")


def test_summary_follows_the_verdicts(study: Path) -> None:
    comparison = only(study)
    assert summary.summarize_comparison(comparison).startswith(
        "resnet8: DKD + LP searched against DKD is undecided (+0.17 points"
    )
    assert (
        summary.summarize_baselines(comparison)
        == "resnet8, among the baselines: DKD is better than none (+3.05 points accuracy)."
    )


def test_search_that_chose_the_settings_of_its_reference_is_reported_as_equal(writer: Writer) -> None:
    writer.arms["DKD + LP searched"] = DKD
    comparison = only(writer.fill().write())
    assert (
        summary.summarize_comparison(comparison) == "resnet8: DKD + LP searched and DKD gave the same with every seed."
    )
    table = make_comparison_table(comparison)
    assert table.rows[-1][table.columns.index("seeds needed")] == "–"  # no number of them would decide it


def test_many_undecided_arms_share_one_phrase(writer: Writer) -> None:
    for name in ("a", "b"):
        writer.arms[name] = SEARCHED
        writer.versus[name], writer.published[name] = ["DKD"], None
        writer.searched.add(name)
    sentence = summary.summarize_comparison(only(writer.fill().write()))
    assert sentence.startswith("resnet8: DKD + LP searched, a and b against DKD are undecided (between +0.17 and +0.17")


def test_first_line_names_the_data_and_the_protocol(writer: Writer) -> None:
    records = load_study(writer.write())
    line = summary.describe_data(records)
    assert line.startswith(
        "Data: digits (scikit-learn), 8×8 grey, 10 classes: 300 training, 60 validation and 899 test"
    )
    assert line.endswith("the data and protocol of any paper; published figures are not shown next to measured ones.")
    under = replace(records, study={**records.study, "protocol": "P1"})
    assert "Data and protocol of P1, as far as the paper gives it; the assumptions name" in summary.describe_data(under)
