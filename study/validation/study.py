"""Validation of a Study: each refusal is one line that states what was given, what is allowed and the way out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from study.errors import InputError, check_positive, check_whole_number
from study.search.halving import Never, SuccessiveHalving
from study.search.samplers import CmaEs, Grid, Random, Tpe
from study.space.domains import find_domains
from study.validation.arms import check_arms, check_corners, check_workers
from study.validation.search import check_search, check_selection

if TYPE_CHECKING:
    from study.study import Study


SEARCHABLE = re.compile(r"(students\.\d+|arms\.\d+\.(loss|recipe)|task\.recipe)(\.|$)")
"""The parts of a study that may contain domains."""

SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Halves of characters, as of file names that are not UTF-8: no file of the study can contain them."""


def check_study(study: Study) -> None:
    """Check that a study is fair and can run. Raises InputError for the first problem found."""
    _check_name(study)
    _check_domains(study)
    _check_types(study)
    check_arms(study)
    check_selection(study)
    check_positive("hang_seconds", study.hang_seconds, "a number of seconds above 0")
    if study.test not in ("sign-flip", "sign"):
        raise InputError(f"test is {study.test!r}; allowed are 'sign-flip' and 'sign'")
    if study.confirm_on not in ("train+val", "train"):
        raise InputError(f"confirm_on is {study.confirm_on!r}; allowed are 'train+val' and 'train'")
    for cell in study.cells:
        check_corners(study, cell)
        check_search(study, cell)
    check_workers(study)


def _check_name(study: Study) -> None:
    if not isinstance(study.name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", study.name, re.ASCII):
        raise InputError(f"study name {study.name!r}: use letters, digits, '.', '_' and '-', at most 100 of them")
    if study.name in ("teachers", "outputs"):
        raise InputError(
            f"study name {study.name!r} is reserved for the folder of teachers or of their outputs; choose another"
        )


def _check_domains(study: Study) -> None:
    for path, domain in find_domains(study):
        if not SEARCHABLE.match(path):
            raise InputError(
                f"{path} is a domain, {domain!r}, and cannot be searched; losses, students and the recipe of students "
                "can: write a single value there"
            )


def _check_types(study: Study) -> None:
    """Check the types that a comma or a pair of brackets too few changes, before anything iterates over them."""
    for name in ("students", "arms", "assumptions", "net_comparisons"):
        if not isinstance(getattr(study, name), tuple | list):
            raise InputError(f"{name} is {getattr(study, name)!r}; write a tuple: {name}=(…,)")
    for name, allowed in (("sampler", (Tpe, Random, Grid, CmaEs)), ("stopping", (SuccessiveHalving, Never))):
        if not isinstance(getattr(study, name), allowed):
            known = ", ".join(f"{kind.__name__}(…)" for kind in allowed)
            raise InputError(f"{name} is {getattr(study, name)!r}; allowed are {known}")
    check_whole_number("workers_per_trial", study.workers_per_trial)
    check_whole_number("reproducible_search", study.reproducible_search, or_none=True)
    if not isinstance(study.seed, int):
        raise InputError(f"seed is {study.seed!r}; allowed is a whole number")
    for text in (study.question, *study.assumptions):
        if not isinstance(text, str) or SURROGATE.search(text):
            raise InputError(f"{text!r} among question and assumptions: allowed is text, without lone surrogates")
