"""Each claim of the papers is a planned comparison of a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.space_file import load_space
from study.study import Study

SPACES = Path(__file__).parents[2] / "spaces"

CLAIMS = [
    ("P0: KD improves on no distillation", "face_parsing", "KD", "no distillation"),
    ("P0: standardised KD is below KD", "face_parsing", "KD-STD", "KD"),
    ("P0: standardised KD is below no distillation", "face_parsing", "KD-STD", "no distillation"),
    ("P0: LDT improves on KD", "face_parsing", "LDT", "KD"),
    ("P1: EAT improves on DKD, +0.55 for ResNet-8", "eat_cifar", "DKD + EAT, r = 0.4", "DKD"),
    ("P1: a smaller change is best for ResNet-20", "eat_cifar", "DKD + EAT, r = 0.2", "DKD"),
    ("P1: DAT improves on DKD", "dat_cifar", "DKD + DAT, published", "DKD"),
    ("P1: LP improves on DKD", "lp_cifar", "DKD + LP, published", "DKD"),
    ("P1: pruning 20 % throughout improves on DKD", "lp_cifar", "DKD + LP, 20 % throughout", "DKD"),
    ("P1, future work: all three together", "joint_cifar", "all three, r = 0.4", "DKD"),
    ("P2: the adversary improves on no distillation", "face_sr", "adversarial", "no distillation"),
    ("P2: as printed", "face_sr", "adversarial, as printed", "no distillation, as printed"),
    *(
        (f"P4: alpha {a} improves on none", "crowd_alpha", f"alpha {a}", "no distillation")
        for a in (0.1, 0.3, 0.5, 0.7)
    ),
    *((f"P4: alpha 0.1 is better than {a}", "crowd_alpha", "alpha 0.1", f"alpha {a}") for a in (0.3, 0.5, 0.7)),
]


def paper(name: str) -> Study:
    return load_space(SPACES / f"{name}.py", "paper", Path("data")).study


@pytest.mark.parametrize(("claim", "space", "arm", "versus"), CLAIMS, ids=[claim for claim, *_ in CLAIMS])
def test_claim_is_a_planned_comparison_of_all_students_it_is_about(
    claim: str, space: str, arm: str, versus: str
) -> None:
    study = paper(space)
    assert versus in [other.name for other in study.find_comparisons(study.find_arm(arm))]


def test_p2s_student_is_compared_with_its_rivals_by_both_metrics() -> None:
    (comparison,) = paper("face_sr").net_comparisons
    assert comparison.cell == "vgg_sr / adversarial"
    assert comparison.versus == ("rcan / no distillation", "srfbn / no distillation")
    assert comparison.metrics == ("test/psnr", "test/lpips")
