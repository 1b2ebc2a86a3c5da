"""The engine. `from study import …` gives what a space file needs."""

from study.cma import CmaEs
from study.samplers import Grid, Random, Tpe, WarmStart
from study.space import choice, integer, log_uniform, uniform
from study.stopping import Never, SuccessiveHalving
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
