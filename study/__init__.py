"""The engine. `from study import …` gives what a space file needs."""

from study.search.cma import CmaEs
from study.search.halving import Never, SuccessiveHalving
from study.search.samplers import Grid, Random, Tpe, WarmStart
from study.space.domains import choice, integer, log_uniform, uniform
from study.study import Arm, Budget, Study

__all__ = [
    "Arm",
    "Budget",
    "CmaEs",
    "Grid",
    "Never",
    "Random",
    "Study",
    "SuccessiveHalving",
    "Tpe",
    "WarmStart",
    "choice",
    "integer",
    "log_uniform",
    "uniform",
]
