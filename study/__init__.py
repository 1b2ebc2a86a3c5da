"""The engine. `from study import …` gives what a space file needs."""

from study.search import Random, Tpe
from study.space import choice, integer, log_uniform, uniform
from study.stopping import Never, SuccessiveHalving
from study.study import Arm, Budget, Study

__all__ = [
    "Arm",
    "Budget",
    "Never",
    "Random",
    "Study",
    "SuccessiveHalving",
    "Tpe",
    "choice",
    "integer",
    "log_uniform",
    "uniform",
]
