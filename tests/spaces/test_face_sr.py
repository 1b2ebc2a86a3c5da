"""The study of face super-resolution: who is compared with whom, and that its published figures are the paper's."""

from __future__ import annotations

from pathlib import Path

from reports.analysis import published
from study.space_file import load_space
from trainables.losses.features.adversarial_features import AdversarialFeatures
from trainables.losses.features.feature_matching import FeatureMatching
from trainables.losses.reconstruction import Reconstruction, ReconstructionAlone

SPACE = Path(__file__).parents[2] / "spaces" / "face_sr.py"
PAPER = load_space(SPACE, "paper", Path("data")).study
EMBEDDED = load_space(SPACE, "embedded", None).study


def test_yardsticks_are_trained_without_distillation_alone() -> None:
    matching = ["feature matching", "feature matching, tuned"]
    common = ["no distillation", *matching, "adversarial", "adversarial, searched"]
    printed = ["no distillation, as printed", "adversarial, as printed"]
    for study, extra, rivals in ((PAPER, printed, ["authors' loss"]), (EMBEDDED, [], [])):
        arms = {
            student.name: [cell.arm.name for cell in study.cells if cell.student is student]
            for student in study.students
        }
        student, *others = arms.values()
        assert student == common + extra
        assert others[:2] == [["no distillation", *rivals]] * 2
        assert others[2:] == ([["no distillation"]] if study is PAPER else [])


def test_objective_as_printed_has_norms_and_weights_of_one() -> None:
    arms = {arm.name: arm for arm in PAPER.arms}
    printed = Reconstruction("l2norm", 1.0, "l2norm", 1.0)
    assert arms["adversarial, as printed"].loss == AdversarialFeatures(1.0, reconstruction=printed)
    assert arms["adversarial, as printed"].versus == "no distillation, as printed"
    assert arms["no distillation, as printed"].loss == ReconstructionAlone(printed)


def test_rivals_are_also_trained_as_their_authors_do() -> None:
    arm = next(arm for arm in PAPER.arms if arm.name == "authors' loss")
    assert (arm.students, arm.published, arm.versus) == (("rcan", "srfbn"), "baseline", "no distillation")
    assert arm.loss.reconstruction == Reconstruction("l1", 1.0, perceptual_weight=0.0)


def test_teacher_has_a_control_of_its_size() -> None:
    control = PAPER.students[-1]
    assert (control.name, control.atoms) == ("vgg_sr-control", 0)


def test_adversary_has_plain_feature_matching_as_control() -> None:
    arms = {arm.name: arm for arm in PAPER.arms}
    assert isinstance(arms["feature matching"].loss, FeatureMatching)
    assert isinstance(arms["adversarial"].loss, AdversarialFeatures)
    tuned, searched = (cell for cell in PAPER.cells if cell.is_searched)
    assert [arm.name for arm in PAPER.find_comparisons(arms["adversarial"])] == ["no distillation", "feature matching"]
    assert tuned.arm in PAPER.find_comparisons(searched.arm)
    assert set(searched.first_points[0]) >= {"weight.start", "weight.end", "weight.stages"}


def test_papers_figures_stand_beside_its_nets() -> None:
    assert (PAPER.protocol, EMBEDDED.protocol) == ("P2", "")
    student, rcan, srfbn, _ = (net.name for net in PAPER.students)
    expected = {  # P2, table 1: PSNR, SSIM, LPIPS
        (student, "none"): (25.837, 0.75, 0.2746),
        (student, "adversarial_kd"): (26.623, 0.769, 0.2511),
        (PAPER.task.teacher.model.name, "teacher"): (26.74, 0.771, 0.2413),
        (rcan, "baseline"): (26.59, 0.779, 0.3191),
        (srfbn, "baseline"): (26.399, 0.761, 0.3944),
    }
    for (model, method), figures in expected.items():
        found = {row.metric: row.value for row in published.find_figures("P2", model, method)}
        assert tuple(found[name] for name in ("psnr", "ssim", "lpips")) == figures


def test_images_are_the_papers_size() -> None:
    assert (PAPER.task.data.size, PAPER.task.scale) == (256, 8)
