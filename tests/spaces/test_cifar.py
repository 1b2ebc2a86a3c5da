"""The studies in spaces/: that each can decide what it asks, and that its published figures are the papers'."""

from __future__ import annotations

import html
from pathlib import Path

import cifar_profiles
import pytest

from reports.analysis import published
from reports.build import build
from study import Budget
from study.space.domains import find_domains, resolve_corners
from study.space_file import load_space
from study.study import Study
from tests.study.toy import train_without_ray
from trainables.losses.logits.dkd import DKD
from trainables.training.schedules import Progress, value_at

FILES = sorted(set((Path(__file__).parents[2] / "spaces").glob("*.py")) - {Path(cifar_profiles.__file__)})
OF_NO_PAPER = ("own_images", "first_study", "baselines_cifar")
FILES = [path for path in FILES if path.stem not in OF_NO_PAPER]


def studies(paths: list[Path], *profiles: str) -> pytest.MarkDecorator:
    loaded = [
        pytest.param(load_space(path, profile, Path("data")).study, id=f"{path.stem}-{profile}")
        for path in paths
        for profile in profiles
    ]
    return pytest.mark.parametrize("study", loaded)


CIFAR = [path for path in FILES if path.stem.endswith("_cifar")]
every_study = studies(FILES, "embedded", "paper")
every_cifar_study = studies(CIFAR, "embedded", "cifar10", "paper")


@every_study
def test_seeds_can_decide_all_comparisons_of_a_student(study: Study) -> None:
    # The sign-flip test's smallest p is 2/2^n; Holm multiplies it by the number of comparisons.
    assert study.max_tests * 2 / 2**study.budget.seeds <= 0.05


@every_study
def test_every_searched_method_is_compared_with_an_arm_that_was_searched_alike(study: Study) -> None:
    alone = [arm.name for arm in study.arms if not arm.baseline and study.is_tuned_alone(arm)]
    # what crowd_alpha searches is the weight of distillation itself, which its control does not have
    assert alone == (["alpha searched"] if study.name.startswith("crowd_alpha") else [])


@every_study
def test_study_states_its_assumptions(study: Study) -> None:
    assert study.assumptions
    for assumption in study.assumptions:
        assert assumption.endswith(".")


@every_cifar_study
def test_arms_match_the_assumptions(study: Study) -> None:
    losses = [loss for arm in study.arms for loss in resolve_corners(arm.loss) if loss.needs_teacher]
    fixed_losses = [arm.loss for arm in study.arms if not study.is_searched(arm)]
    if cifar_profiles.DKD_ASSUMPTION in study.assumptions:
        settings = {(loss.alpha, loss.beta, loss.warmup) for loss in fixed_losses if isinstance(loss, DKD)}
        assert settings == {(1, 2, 20 / 240)}
    if cifar_profiles.DAT_ASSUMPTION in study.assumptions:
        assert {loss.adaptive.ranked_at for loss in losses if loss.adaptive} == {None}
    if cifar_profiles.STANDARDISED_ASSUMPTION in study.assumptions:
        assert {loss.weight for loss in losses if loss.standardise} == {9}
    if cifar_profiles.LP_STAGES_ASSUMPTION in study.assumptions:
        fixed = {
            arm.name: arm.loss.pruning for arm in study.arms if not study.is_searched(arm) and arm.loss.needs_teacher
        }
        (published,) = {share for name, share in fixed.items() if share and name not in OTHER_LP}
        values = [published.value_at(Progress(epoch, 4)) for epoch in range(4)]
        assert values == pytest.approx([0, 0.1333, 0.2667, 0.4], abs=1e-4)


OTHER_LP = {"DKD + LP, 20 % throughout": 4 * [0.2], "DKD + LP, round steps": [0.0, 0.1, 0.2, 0.4]}
"""The pruning ratios of each quarter of the run in arms that read P1's text in another way."""


def test_lp_in_the_paper_profile_also_has_the_other_readings_of_its_text() -> None:
    arms = {arm.name: arm for arm in load_space(FILES[0].parent / "lp_cifar.py", "paper", None).study.arms}
    for name, expected in OTHER_LP.items():
        assert (arms[name].versus, arms[name].published) == ("DKD", None)
        assert [value_at(arms[name].loss.pruning, Progress(epoch, 4)) for epoch in range(4)] == expected


@studies(FILES, "paper")
def test_paper_profile_names_what_the_paper_gives_and_what_is_chosen(study: Study) -> None:
    for start in ("Given by the paper: ", "Chosen here: "):
        assert len([line for line in study.assumptions if line.startswith(start)]) == 1


@every_study
def test_every_domain_has_a_name_of_its_own(study: Study) -> None:
    for arm in study.arms:
        names = [name for name, _ in find_domains(arm.loss)]
        assert len(set(names)) == len(names)
        assert all(next(find_domains(loss), None) is None for loss in resolve_corners(arm.loss))


@every_cifar_study
def test_published_methods_are_in_the_table_of_figures(study: Study) -> None:
    for arm in study.arms:
        if arm.published:
            assert any(published.find_figures("P1", student, arm.published) for student in ("resnet8", "resnet20")), (
                arm.name
            )


@pytest.mark.parametrize("method", ["eat", "dat", "lp"])
def test_paper_profile_shows_one_published_figure_for_each_student(method: str) -> None:
    study = load_space(FILES[0].parent / f"{method}_cifar.py", "paper", None).study
    for student in study.students:
        found = [figure for arm in study.arms for figure in published.find_figures("P1", student.name, arm.published)]
        assert len(found) == 1
        assert found[0].method == f"dkd+{method}"


def test_joint_study_makes_the_assumptions_of_the_single_ones() -> None:
    folder = FILES[0].parent
    joint = set(load_space(folder / "joint_cifar.py", "paper", None).study.assumptions)
    for method in ("eat", "dat", "lp"):
        assert set(load_space(folder / f"{method}_cifar.py", "paper", None).study.assumptions) <= joint


def test_joint_study_publishes_what_the_single_ones_do() -> None:
    folder = FILES[0].parent
    together = {arm.name: arm.loss for arm in load_space(folder / "joint_cifar.py", "paper", None).study.arms}
    for ratio in ("0.4", "0.2"):
        apart = {
            method: {arm.name: arm.loss for arm in load_space(folder / f"{method}_cifar.py", "paper", None).study.arms}
            for method in ("eat", "dat", "lp")
        }
        loss = together[f"all three, r = {ratio}"]
        assert loss.temperature == apart["eat"][f"DKD + EAT, r = {ratio}"].temperature
        assert loss.adaptive == apart["dat"]["DKD + DAT, published"].adaptive
        assert loss.pruning == apart["lp"]["DKD + LP, published"].pruning


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage for all studies: the first trains the teacher."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.slow
@pytest.mark.xdist_group("teacher of the embedded profile")
@pytest.mark.parametrize("path", CIFAR, ids=lambda path: path.stem)
def test_embedded_study_trains_all_its_arms_and_is_reported(path: Path, storage: Path, digests_once: None) -> None:
    space = load_space(path, None, None)
    page = build(train_without_ray(space, storage, Budget(trials=2, epochs=1, seeds=1)))
    content = page.read_text(encoding="utf-8")
    assert all(html.escape(arm.name) in content for arm in space.study.arms)
