"""Warnings before all results: a useless teacher, labels in another order, images in several splits."""

from __future__ import annotations

import numpy as np
import pytest

from reports.build import build
from reports.load import load_study
from reports.tables.terminal import format_comparisons
from reports.text.sanity import list_warnings
from tests.reports.fake_study import NONE, Writer

ADVICE = "Check the file resnet20.pth, the normalisation of its inputs and the order of its labels."


@pytest.fixture
def weak(writer: Writer) -> Writer:
    """A study whose teacher, from a file, is worse than the student without it."""
    writer.study["teacher"] = {"name": "resnet20", "source": "file resnet20.pth", "metrics": {"test/accuracy": 0.6}}
    return writer


def warnings(writer: Writer) -> list[str]:
    return list_warnings(load_study(writer.fill().write()))


def test_a_sound_study_has_no_warning(writer: Writer) -> None:
    assert warnings(writer) == []


def test_a_teacher_below_the_lone_student_is_named_with_both_scores(weak: Writer) -> None:
    expected = f"60.00 % against {100 * np.mean(NONE):.2f} % test accuracy (none). {ADVICE}"
    assert warnings(weak) == [f"The teacher scores worse than resnet8 without it: {expected}"]


def test_a_teacher_that_was_trained_here_is_to_be_trained_longer(weak: Writer) -> None:
    weak.study["teacher"]["source"] = "trained here"
    (line,) = warnings(weak)
    assert line.endswith("Train it longer, or by another recipe, before students learn from it.")


def test_of_errors_the_larger_is_worse(weak: Writer) -> None:
    weak.study["direction"] = "min"
    weak.study["metrics"] = {"test/accuracy": {"direction": "min", "unit": "", "digits": 2, "label": "error"}}
    assert not any("teacher" in line for line in warnings(weak))
    weak.trials.clear(), weak.epochs.clear()
    weak.study["teacher"]["metrics"] = {"test/accuracy": 0.99}
    assert warnings(weak)[0].startswith(
        "The teacher scores worse than resnet8 without it: 0.99 against 0.91 test error"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_teacher_without_a_finite_score_is_named(weak: Writer, value: float) -> None:
    weak.study["inputs"]["data"] |= {"classes": 10, "test": 899}
    weak.study["teacher"]["metrics"] = {"test/accuracy": value}
    assert f"The teacher's test accuracy is {value}, no finite number. {ADVICE}" in warnings(weak)


def test_a_teacher_is_compared_with_each_student_that_learned_alone(weak: Writer) -> None:
    weak.study["teacher"]["metrics"] = {"test/accuracy": float(np.mean(NONE))}
    assert warnings(weak) == [], "as good as the student, and not worse"
    weak.trials.clear(), weak.epochs.clear()
    weak.study["teacher"]["metrics"] = {}
    assert warnings(weak) == [], "a teacher whose score is unknown is not judged"


@pytest.mark.parametrize(("accuracy", "near"), [(0.08, True), (0.13, True), (0.14, False)])
def test_a_teacher_near_chance_is_named(weak: Writer, accuracy: float, near: bool) -> None:
    # of 10 classes on 899 samples: 0.1 + 3·√(0.1·0.9/899) = 0.130
    weak.study["inputs"]["data"] |= {"classes": 10, "test": 899}
    weak.study["teacher"]["metrics"] = {"test/accuracy": accuracy}
    lines = [line for line in warnings(weak) if "near chance" in line]
    expected = [f"The teacher scores near chance: {100 * accuracy:.2f} % test accuracy, of 10 classes. {ADVICE}"]
    assert lines == (expected if near else [])


@pytest.mark.parametrize(("best", "near"), [(0.13, True), (0.14, False)])
def test_students_near_chance_in_all_runs_are_named(writer: Writer, best: float, near: bool) -> None:
    writer.study["inputs"]["data"] |= {"classes": 10, "test": 899}
    writer.fill()
    for row in writer.trials:
        if row["cell"] == "resnet8 / none" and row["phase"] == "confirm":
            row["test/accuracy"] = best if row["number"] == 1 else 0.1
    lines = list_warnings(load_study(writer.write()))
    assert lines == near * [
        "The students of resnet8 / none score near chance in every run, on data of 10 classes: a comparison with them "
        "says nothing. Train them longer, or with another learning rate."
    ]


def test_labels_in_another_order_are_named(writer: Writer) -> None:
    order = {"moved": [[0, 3], [3, 0]], "classes": 10, "accuracy": 0.7712, "accuracy_in_order": 0.9699}
    writer.study["teacher"] |= {"label_order": order}
    assert warnings(writer) == [
        "The teacher's labels are in another order than the data's: it predicts 2 of 10 classes as another one, such "
        "as class 0 as 3, and would have 96.99 instead of 77.12 % validation accuracy in the right one. Reorder its "
        "last layer."
    ]


def test_classes_are_named_where_the_data_have_names(writer: Writer) -> None:
    writer.study["teacher"] |= {
        "label_order": {"moved": [[0, 1], [1, 0]], "classes": 2, "accuracy": 0.7712, "accuracy_in_order": 0.9699}
    }
    writer.study["inputs"]["data"] |= {"class_names": ["ant", "bee"]}
    assert "such as class 0 (ant) as 1 (bee), and" in warnings(writer)[0]


def test_warnings_stand_before_all_results_on_page_and_terminal(weak: Writer) -> None:
    weak.study["inputs"]["data"]["duplicates"] = "14 of 14 test images occur in training or validation"
    image = {"split": "test", "image": "test/a, b.png", "other": "train/c.png", "equal": True}
    weak.study["inputs"]["data"]["duplicate_images"] = [image, image | {"equal": False}]
    folder = weak.fill().write()
    lines = list_warnings(load_study(folder))
    assert lines[1] == (
        "Images occur in more than one split: 14 of 14 test images occur in training or validation. Scores on them are "
        "too good. tables/duplicates.csv lists them."
    )
    page, text = build(folder).read_text(encoding="utf-8"), " ".join(format_comparisons(folder).split())
    assert (folder / "tables" / "duplicates.csv").read_text(encoding="utf-8").splitlines() == [
        "image,split,what,image of an earlier split",
        '"test/a, b.png",test,equals,train/c.png',
        '"test/a, b.png",test,looks like,train/c.png',
    ]
    assert page.count("test/a, b.png") == 0  # as long a list as there may be stands in its file
    for line in lines:
        assert page.index(line) < page.index('<div class="answer">')
        assert text.index(f"warning: {line}") < text.index("────")


def searching(writer: Writer, **domain: object) -> Writer:
    """A study that searches the temperature, of which its best trial, number 9, took 5.248."""
    loss = {"is": "KD", "logits": {"temperature": {"is": "Uniform", "log": False, **domain}}}
    writer.study["study"] = {"arms": [{"name": "DKD + LP searched", "loss": loss}]}
    return writer


@pytest.mark.parametrize(
    ("low", "high", "log", "at_edge"),
    [
        (1, 20, False, False),
        (1, 5.3, False, True),
        (5.2, 20, False, True),
        (1, 5.5, True, False),
        (1, 5.3, True, True),
        (0, 5.3, False, True),
        (0, 500, False, False),
    ],
)
def test_a_search_that_ends_at_the_edge_is_named(
    writer: Writer, low: float, high: float, log: bool, at_edge: bool
) -> None:
    found = warnings(searching(writer, low=low, high=high, log=log))
    expected = f"logits.temperature = 5.248, searched from {low:g} to {high:g}. Better values may lie beyond."
    start = "The search of resnet8 / DKD + LP searched found its best at the edge of its space: "
    assert found == ([start + expected] if at_edge else [])


def test_students_that_learn_nothing_are_named(writer: Writer) -> None:
    writer.fill()
    for row in writer.epochs:
        if row["cell"] == "resnet8 / DKD" and row["phase"] == "confirm":
            row["train/loss"] = 2.3
    assert list_warnings(load_study(writer.write())) == [
        "The students of resnet8 / DKD learned nothing: their training loss never changes. Check rate and loss."
    ]
