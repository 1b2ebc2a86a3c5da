"""Ablation of a search: a study whose arms lead from published to searched settings, one changed setting at a time.

The steps between both ends were not trained by the search, and a model of its few trials would only guess their
scores. They are therefore a study of their own: planned, resumed, capped and reported like any other, with the seeds of
the study they explain.
"""

from __future__ import annotations

from dataclasses import replace

from study.arm import Arm, Cell
from study.errors import InputError
from study.space.params import Params, format_setting
from study.study import Study


def make_ablation(study: Study, cell: str, params: Params, seeds: int | None = None) -> Study:
    """Return the study of the path from the first point of a cell, its published settings, to the settings `params`.

    Each arm changes one setting more, in the order of `params`, and is compared with the arm before it on the same
    seeds; `seeds` is their number, by default the study's. All train on the training split alone, so that each step is
    scored on validation, as in the search. A setting that the first point leaves to the sampler has its searched value
    in all arms. Raises InputError if there is no such path.
    """
    searched = _find_cell(study, cell)
    start = {**params, **searched.first_points[0]}
    changed = [name for name, value in params.items() if value != start[name]]
    if not changed:
        raise InputError(f"{cell}: its searched settings are those of its first point: name another cell")
    if students := [name for name in changed if name.startswith("student.")]:
        raise InputError(
            f"{cell}: {students[0]} makes another net, and an ablation is of one: name a cell of a fixed student"
        )
    arms = [_make_arm(searched, "published", start)]
    for number, name in enumerate(changed, 1):
        step = start | {done: params[done] for done in changed[:number]}
        label = f"{name} {format_setting(start[name])} → {format_setting(params[name])}"
        arms.append(replace(_make_arm(searched, label, step), baseline=False, versus=arms[-1].name))
    return replace(
        study,
        name=f"{study.name}-ablation",
        question=f"Which of the settings that were searched for {searched.arm.name!r} make the difference?",
        task=study.task.with_recipe(searched.configure(start).recipe),
        students=(searched.configure(start).student,),
        arms=tuple(arms),
        budget=replace(study.budget, trials=1, seeds=seeds or study.budget.seeds),
        confirm_on="train",
        objectives=(),
        confirm_front=None,
        constraints=None,
        warm_start=None,
        net_comparisons=(),
        protocol="",
    )


def _find_cell(study: Study, name: str) -> Cell:
    cells = {cell.name: cell for cell in study.cells if cell.first_points}
    if name not in cells:
        raise InputError(
            f"cell {name!r}: an ablation starts from the first point of a searched cell, Arm(…, first=(…,)); "
            f"those with one are: {', '.join(cells) or 'none'}"
        )
    return cells[name]


def _make_arm(cell: Cell, name: str, params: Params) -> Arm:
    configuration = cell.configure(params)
    return Arm(name, configuration.loss, baseline=True, recipe=configuration.recipe)
