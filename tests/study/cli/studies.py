"""Studies on disk, driven without Ray, and calls of the commands on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from study.cli.main import main
from study.code_version import CodeVersion
from study.records.study_json import build_study_json, write_study
from study.space_file import Space
from study.study import Study
from tests.study.toy import drive, open_coordinator, toy
from trainables.tasks import simulated

COMMAND = "python -m study.run toy.py --trials 9 --retry-failed --max-concurrent 2"

SPACE = """
# a study on the simulated task
from study import Arm, Budget, Study, SuccessiveHalving, uniform
from trainables import Simulated, SimulatedLoss, SimulatedStudent

study = Study(
    name="toy", question="Does the gain show?", task=Simulated(seconds_per_epoch=0.2),
    students=(SimulatedStudent(),),
    arms=(
        Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True),
        Arm("searched", SimulatedLoss(x=uniform(0, 1), gain=0.05)),
    ),
    budget=Budget(trials=3, epochs=5, seeds=2),
)
"""


def called(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def written(runs: Path, rows: int | None = None, study: Study | None = None, **provenance: Any) -> Path:
    """A study's folder below `runs`, as a driver leaves it after so many epochs."""
    study = study or toy()
    coordinator = open_coordinator(study, runs)
    coordinator.resources = {"device": "cuda", "cpus": 1.0, "gpus": 0.5}
    whole = drive(coordinator, runs, rows)
    space = Space(study, simulated, Path("toy.py"), "", SPACE, CodeVersion({"space file": "0" * 16}))
    told = build_study_json(study, space, {"data": {"fingerprint": "simulated"}}, None, COMMAND)
    told["provenance"] |= provenance
    write_study(runs / study.name, told | {"finished": whole})
    return runs / study.name
