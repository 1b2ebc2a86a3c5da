"""The report of a study that searches recipe and student, trained by the engine on real nets."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from reports.analysis.comparison import compare_arms, to_dataframe
from reports.analysis.search import find_search_domains
from reports.analysis.verdicts import compare_cells
from reports.build import build
from reports.figures.importance import get_distributions
from reports.load import StudyRecords, load_study
from reports.tables.comparison import make_comparison_table
from reports.tables.costs import make_tables as make_cost_tables
from reports.tables.search import make_search_table
from reports.text.sanity import list_warnings
from reports.text.summary import summarize_comparison
from study.engine.model_costs import add_model_costs, list_students
from study.preflight import check_inputs
from study.records.paths import StudyPaths
from study.records.study_json import build_study_json, write_study
from study.space_file import load_space
from tests.study.toy import drive, open_coordinator
from trainables.export.restore import TrainedTrial, restore_student
from trainables.models.resnet_cifar import ResNet

SPACE = """
from study import Arm, Budget, Study, Never, integer, log_uniform, uniform
from trainables import KD, Classification, Cosine, CropFlip, Digits, NoDistillation, Recipe, ResNet, Teacher

fixed = Recipe(32, Cosine(0.05))
study = Study(
    name="widths",
    question="How wide must the student be?",
    task=Classification(Digits(train=60), Teacher(ResNet(8, 4), fixed, 1), fixed, CropFlip(1, flip=False), 0.2),
    students=(ResNet(8, width=integer(2, 8)),),
    arms=(
        Arm("none", NoDistillation(), baseline=True),
        Arm("KD", KD(uniform(1, 8))),
        Arm("KD, own recipe", KD(), recipe=Recipe(16, Cosine(log_uniform(0.01, 0.3))), versus="KD"),
    ),
    budget=Budget(trials=4, epochs=1, seeds=2),
    stopping=Never(),
    confirm_on="train",
)
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> StudyRecords:
    folder = tmp_path_factory.mktemp("searched")
    (folder / "space.py").write_text(SPACE)
    space = load_space(folder / "space.py", None, None)
    study, inputs = space.study, check_inputs(space.study, folder)
    coordinator = open_coordinator(study, folder)
    assert drive(coordinator, folder)
    assert coordinator.done, coordinator.problems
    students = list_students(coordinator)
    summary = add_model_costs(study, students, study.task.describe_models(students, folder), folder, print)
    document = build_study_json(study, space, inputs, None, "command") | summary | {"finished": True}
    write_study(folder / study.name, document)
    return load_study(folder / study.name)


def chosen_widths(records: StudyRecords) -> dict[str, int]:
    runs = records.confirmed.drop_duplicates("arm")
    return {run["arm"]: json.loads(run["params"])["student.width"] for _, run in runs.iterrows()}


def count_parameters(width: int) -> int:
    net = ResNet(8, width).build(channels=1, classes=10)
    return sum(parameter.numel() for parameter in net.parameters())


def test_search_table_has_the_student_of_each_trial_and_its_size(records: StudyRecords) -> None:
    for cell in records.cells:
        table = make_search_table(records, cell)
        width, size = table.columns.index("student.width"), table.columns.index("parameters")
        assert len(table.rows) == 4
        assert len(table.align) == len(table.columns) == len(table.rows[0])
        for row in table.rows:
            assert row[size] == f"{count_parameters(int(row[width])):,}"


def test_comparison_has_the_size_of_the_net_that_each_arm_chose(records: StudyRecords) -> None:
    (comparison,) = compare_arms(records)
    table = make_comparison_table(comparison)
    teacher, *arms = table.rows
    assert table.columns[:2] == ("arm", "parameters")
    assert len(table.align) == len(table.columns) == len(teacher) == len(arms[0])
    assert {row[0]: row[1] for row in arms} == {
        arm: f"{count_parameters(width):,}" for arm, width in chosen_widths(records).items()
    }
    assert list(to_dataframe((comparison,))["parameters"]) == [int(row[1].replace(",", "")) for row in arms]


def test_nets_are_listed_by_cell_with_the_chosen_student(records: StudyRecords) -> None:
    (table,) = make_cost_tables(records)
    assert [row[:2] for row in table.rows[1:]] == [
        (f"resnet8w{{2..8}} / {arm}: resnet8w{width}", f"{count_parameters(width):,}")
        for arm, width in chosen_widths(records).items()
    ]
    assert all(row[2] != "–" for row in table.rows)


def test_domains_of_every_part_are_known_by_the_names_of_the_trials(records: StudyRecords) -> None:
    expected = {"none": [], "KD": ["temperature"], "KD, own recipe": ["recipe.learning_rate.start"]}
    for cell in records.cells:
        names = [*expected[cell.arm], "student.width"]
        assert list(find_search_domains(records, cell)) == names == list(cell.parameters)
        assert list(get_distributions(records, cell)) == names
    assert find_search_domains(records, records.cells[2])["recipe.learning_rate.start"]["log"] is True


def test_recipe_tuned_alone_and_recipes_that_differ_are_named(records: StudyRecords) -> None:
    (comparison,) = compare_arms(records)
    found = {row.arm: row.contrasts[0] for row in comparison.rows if row.contrasts}
    assert (found["KD"].tuning_alone, found["KD"].recipes_differ) == (False, False)
    assert (found["KD, own recipe"].tuning_alone, found["KD, own recipe"].recipes_differ) == (True, True)
    notes = " ".join(make_comparison_table(comparison).notes)
    assert "Trained by different recipes: KD, own recipe and KD." in notes
    assert "Compared only with arms that were not searched alike: KD, own recipe." in notes


def test_arms_that_chose_different_students_are_named(records: StudyRecords) -> None:
    widths = {"none": 4, "KD": 4, "KD, own recipe": 8}
    trials = records.trials.copy()
    for arm, width in widths.items():
        runs = (trials["arm"] == arm) & (trials["phase"] == "confirm")
        trials.loc[runs, "params"] = json.dumps({"student.width": width, "temperature": float(width)})
    (comparison,) = compare_arms(replace(records, trials=trials))
    assert {one.arm: one.students_differ for one in comparison.contrasts} == {"KD": False, "KD, own recipe": True}
    (note,) = [note for note in make_comparison_table(comparison).notes if note.startswith("Chose different students")]
    assert note.startswith("Chose different students: KD, own recipe and KD. Their differences are of student and")
    assert summarize_comparison(comparison).count("their students differ") == 1


def test_arms_without_runs_on_test_are_not_said_to_differ_in_their_student(records: StudyRecords) -> None:
    none, kd, _ = records.cells
    searched = records.trials[~((records.trials["arm"] == "none") & (records.trials["phase"] == "confirm"))]
    (contrast,) = compare_cells(replace(records, trials=searched), kd, [none], {})
    assert not contrast.students_differ


def test_arms_alike_in_their_recipe_are_not_named(records: StudyRecords) -> None:
    none, kd, _ = records.cells
    (contrast,) = compare_cells(records, kd, [none], {})
    assert not contrast.recipes_differ


def test_page_is_built(records: StudyRecords) -> None:
    page = build(records.folder).read_text(encoding="utf-8")
    assert "student.width" in page
    assert "recipe.learning_rate.start" in page
    assert list_warnings(records) is not None


def test_confirmed_student_is_rebuilt_from_its_row(records: StudyRecords) -> None:
    for _, run in records.confirmed.iterrows():
        checkpoint = StudyPaths(records.folder).checkpoint(run["trial_id"])
        config = json.loads(run["config"])
        config["inputs"]["data"] = records.section("inputs", "data")["fingerprint"]  # the coordinator has a toy's
        trained = TrainedTrial(config, checkpoint, {"test/accuracy": run["test/accuracy"]})
        restored = restore_student(trained, None)
        assert restored.parameters == run["student/parameters"]
