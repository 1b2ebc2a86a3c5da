"""What --dry-run says of searches: spaces with few points, arms that are tuned alone, schedules that delay stopping."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from study import Arm, Budget, PopulationBased, choice, integer, uniform
from study.cli.dry_run.plan import _format_disk, format_plan
from study.study import Study
from tests.study.toy import BASELINE, open_coordinator, toy
from trainables import SimulatedLoss, Staircase

FEW = SimulatedLoss(x=choice(0.1, 0.5), y=Staircase(0.1, 0.6, stages=integer(1, 3)))


def plan(study: Study, tmp_path: Path) -> str:
    return "\n".join(format_plan(study, {}, study.task.list_preparations(tmp_path, study.plan)))


def with_trials(loss: SimulatedLoss, trials: int) -> Study:
    arms = (BASELINE, Arm("few", loss))
    return dataclasses.replace(toy(arms), budget=Budget(trials=trials, epochs=4, seeds=2))


def test_space_with_fewer_points_than_trials_is_named_and_tried_point_by_point(tmp_path: Path) -> None:
    study = with_trials(FEW, trials=20)
    assert "few has 6 distinct points to search, fewer than 20 trials: each is tried once" in plan(study, tmp_path)
    (search,) = (one.search for one in open_coordinator(study, tmp_path).cells.values() if one.search.trials)
    points = [tuple(sorted(search.propose().params.items())) for _ in range(search.trials)]
    assert len(points) == len(set(points)) == 6


def test_space_with_more_points_than_trials_is_not_named(tmp_path: Path) -> None:
    assert "distinct points" not in plan(with_trials(FEW, trials=6), tmp_path)
    assert "distinct points" not in plan(with_trials(SimulatedLoss(x=uniform(0, 1)), trials=20), tmp_path)


def test_arm_that_is_tuned_alone_and_one_that_is_judged_late_are_named(tmp_path: Path) -> None:
    said = plan(with_trials(FEW, trials=4), tmp_path)
    assert "few is searched, plain is not: a gain may come from tuning alone" in said
    assert "halving judges trials of few only after the schedules that they search have changed" in said
    tuned = dataclasses.replace(BASELINE, loss=SimulatedLoss(x=uniform(0, 1), needs_teacher=False))
    fair = dataclasses.replace(toy((tuned, Arm("constant", SimulatedLoss(x=uniform(0, 1))))))
    assert "tuning alone" not in plan(fair, tmp_path)
    assert "halving judges" not in plan(fair, tmp_path)


def test_population_is_planned_by_members_with_its_disk_and_an_unequal_price(tmp_path: Path) -> None:
    search = PopulationBased(population=8, interval_epochs=3)
    study = with_trials(SimulatedLoss(x=integer(0, 1)), trials=12)
    arms = (BASELINE, dataclasses.replace(study.arms[1], search=search))
    study = dataclasses.replace(study, arms=arms, budget=Budget(trials=12, epochs=10, seeds=2))
    said = plan(study, tmp_path)
    assert "student / few: search 8 members in 4 intervals, 32 trials, then confirm 2 seeds" in said
    assert "36 trials (32 search, 4 confirm), at most 120 epochs" in said
    assert "its 8 members may train 80 epochs, other searches up to 120; leave out population= for as many" in said
    assert "distinct points" not in said
    (disk,) = _format_disk(study, tmp_path)
    assert disk == (
        "student / few: up to 20 checkpoints on disk at once; 4 more for each further interval by which the slowest "
        "member is behind"
    )
    equal = dataclasses.replace(arms[1], search=PopulationBased(interval_epochs=3))
    assert "for as many" not in plan(dataclasses.replace(study, arms=(BASELINE, equal)), tmp_path)


def test_what_was_found_in_the_data_is_named_once(tmp_path: Path) -> None:
    equal = "1 image in two classes, such as ant/0.png (ant) and bee/0.png (bee), 3 links that lead nowhere left out"
    shared = "2 of 9 test images occur in training; 1 of 9 test images look like one in training"
    data = {"name": "insects", "note": f"{equal}; {shared}", "duplicates": shared}
    lines = format_plan(with_trials(FEW, trials=2), {"data": data}, [])
    assert lines[1:4] == [
        "data: insects",
        f"in these data: {equal}",
        f"images occur in more than one split: {shared}",
    ]
    assert format_plan(with_trials(FEW, trials=2), {"data": {"name": "insects", "note": ""}}, [])[2] == "cells:"


def test_images_in_several_splits_are_listed(tmp_path: Path) -> None:
    images = [
        {"split": "test", "image": f"test/{number}.png", "other": "train/7.png", "equal": number > 0}
        for number in range(22)
    ]
    data = {"name": "insects", "duplicates": "22 of 30 test images occur in training", "duplicate_images": images}
    data |= {"train": 1200, "val": 60, "test": 30, "class_names": ["ant", "bee"]}
    lines = format_plan(with_trials(FEW, trials=2), {"data": data}, [])
    assert lines[1:5] == [
        "data: insects, 1,200 training, 60 validation, 30 test samples, 2 classes: ant, bee",
        "images occur in more than one split: 22 of 30 test images occur in training",
        "  test/0.png is like train/7.png",
        "  test/1.png is train/7.png",
    ]
    assert lines[23] == "  and 2 more, in tables/duplicates.csv of the report"
