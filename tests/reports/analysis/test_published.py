from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from reports.analysis import published


def test_finds_the_figure_of_a_paper() -> None:
    # P1: LP from 0 to 40 % gains 0.64 points over DKD on ResNet-8.
    (found,) = published.find_figures("P1", "resnet8", "dkd+lp")
    assert (found.value, found.versus, found.setting) == (0.64, "dkd", "0 to 40 %")
    assert found.is_of_metric("accuracy")
    assert not found.is_of_metric("loss")


def test_finds_the_figure_of_one_of_several_settings() -> None:
    assert len({row.setting for row in published.find_figures("P4", "mcnn", "kd")}) > 1
    figures = {row.metric: row.value for row in published.find_figures("P4", "mcnn", "kd alpha=0.1")}
    assert figures == {"mae": 90.86, "rmse": 172.99, "size_mb": 0.543}


@pytest.mark.parametrize(
    ("paper", "student", "method"), [("P2", "resnet8", "dkd+lp"), ("P1", "resnet9", "dkd+lp"), ("P1", "resnet8", None)]
)
def test_finds_nothing_for_another_paper_student_or_method(paper: str, student: str, method: str | None) -> None:
    assert published.find_figures(paper, student, method) == ()


def test_every_row_of_the_file_is_read() -> None:
    assert len(published.load_figures()) == 62
    assert {row.paper for row in published.load_figures()} == {"P0", "P1", "P2", "P4"}


def test_figures_are_printed_as_in_the_file() -> None:
    with (Path(published.__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        written = [row["value"] for row in csv.DictReader(file)]
    assert [figure.text.lstrip("+") for figure in published.load_figures()] == written
    (gain,) = published.find_figures("P1", "resnet8", "dkd+dat")
    assert gain.text == "+0.5"


def test_every_figure_names_its_epoch() -> None:
    assert {row.selection for row in published.load_figures()} <= {"last epoch", "best test epoch", "not stated"}
    figure = published.load_figures()[0]
    assert figure.epoch == "epoch not stated"
    assert replace(figure, selection="best test epoch").epoch == "best test epoch"


def test_reason_names_the_data_and_the_paper() -> None:
    line = published.explain_absence("", "digits", ("resnet8",), ("dkd+lp", None))
    assert (
        line
        == "Published figures are not shown next to measured ones: this study runs on digits, not under P1's protocol."
    )


def test_reason_without_any_published_method() -> None:
    line = published.explain_absence("", "digits", ("resnet8",), (None,))
    assert line is not None
    assert "not under any paper's protocol" in line


def test_no_reason_is_given_under_the_papers_protocol() -> None:
    assert published.explain_absence("P1", "CIFAR-100", ("resnet8",), ("dkd+lp",)) is None
    assert "reports none" in (published.explain_absence("P1", "CIFAR-100", ("vgg8",), ("dkd+lp",)) or "")
