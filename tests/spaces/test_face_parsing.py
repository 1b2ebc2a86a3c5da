"""The study of face parsing: what is compared with what, and that its published figures are the paper's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reports.analysis import published
from study.space_file import load_space
from trainables.losses.pixels.ldt import LDT
from trainables.losses.pixels.pixel_kd import PixelKD

SPACE = Path(__file__).parents[2] / "spaces" / "face_parsing.py"
PAPER = load_space(SPACE, "paper", Path("data")).study
EMBEDDED = load_space(SPACE, "embedded", None).study
DKD = load_space(SPACE, "dkd", None).study


def test_claims_are_compared_with_plain_distillation_and_searches_with_searches() -> None:
    versus = {arm.name: [against.name for against in PAPER.find_comparisons(arm)] for arm in PAPER.arms}
    assert versus == {
        "no distillation": [],
        "KD": ["no distillation"],
        "KD, tuned": ["no distillation"],
        "KD-STD": ["KD", "no distillation"],
        "LDT": ["KD"],
        "LDT, searched": ["KD, tuned"],
        "DKD, tuned": ["no distillation"],
        "DKD + LDT, tuned": ["DKD, tuned"],
    }


def test_seeds_can_decide_all_comparisons() -> None:
    for study, tests in ((EMBEDDED, 6), (DKD, 2), (PAPER, 8)):
        assert study.max_tests == tests
        assert tests * 2 / 2**study.budget.seeds <= 0.05


def test_ldt_over_dkd_is_searched_as_dkd_alone() -> None:
    alone, with_ldt = (DKD.find_arm(name).loss for name in ("DKD, tuned", "DKD + LDT, tuned"))
    assert replace(alone, transform="ldt") == with_ldt
    assert all(arm in PAPER.arms for arm in DKD.arms)


def test_search_begins_with_the_published_settings() -> None:
    for study in (PAPER, EMBEDDED):
        student = study.students[0]
        tuned, searched = (
            cell for cell in study.cells if cell.student == student and cell.is_searched and "DKD" not in cell.arm.name
        )
        assert (tuned.arm.first, searched.arm.first) == ((PixelKD(),), (LDT(),))
        assert tuned.first_points == searched.first_points == [{"temperature": 1.0, "weight": 1.0}]


def test_papers_figures_stand_beside_its_students_and_its_teacher() -> None:
    assert (PAPER.protocol, EMBEDDED.protocol, PAPER.confirm_on) == ("P0", "", "train")
    # P0, tables 2 and 3: mean F1 and pixel accuracy of ResNet-18 under each method
    expected = {"none": (73.41, 91.56), "kd": (74.51, 92.53), "kd_std": (67.3, 91.15), "ldt": (75.01, 92.56)}
    assert [arm.published for arm in PAPER.arms if arm.published] == list(expected)
    for method, figures in expected.items():
        found = {row.metric: row.value for row in published.find_figures("P0", "resnet18_fcn", method)}
        assert (found["f1"], found["accuracy"]) == figures
    for model in (*PAPER.students, PAPER.task.teacher.model):
        assert published.find_figures("P0", model.name, "none") or published.find_figures("P0", model.name, "teacher")


def test_paper_trains_as_given() -> None:
    for recipe in (PAPER.task.recipe, PAPER.task.teacher.recipe):
        assert (recipe.batch_size, recipe.learning_rate.start) == (5, 0.01)
    assert PAPER.budget.epochs == PAPER.task.teacher.epochs == 100
    assert PAPER.task.data.size == 512
