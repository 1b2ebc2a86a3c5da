"""list, show, resume, stop: on studies driven without Ray, and once on a real one from run to resume."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

import study as package
from study import Arm
from study.cli import list_studies as listing
from study.cli import resume as resuming
from study.cli import status as standing
from study.cli.main import main
from study.code_version import CodeVersion
from study.errors import InputError
from study.records.lock import is_stop_requested, lock_study
from study.records.parquet_table import list_parquet_files
from study.records.progress import read_shown_study
from study.records.study_json import build_study_json, read_study, write_study
from study.search.samplers import Grid
from study.space_file import Space
from study.study import Study
from tests.study.toy import BASELINE, drive, flush_each, open_coordinator, toy
from trainables.tasks.simulated import Fault, SimulatedLoss


def complete(*words: str) -> list[str]:
    """Return what a shell offers for the last word."""
    found = ShellComplete(main, {}, "kdstudy", "_KDSTUDY_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [item.value for item in found]


def test_shells_complete_commands_options_and_names_of_studies(tmp_path: Path) -> None:
    for name in ("toy", "toy-2", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text("{}")
    (tmp_path / "toys").mkdir()
    assert complete("sh") == ["show"]
    assert complete("show", "--wa") == ["--watch"]
    assert complete("ui", "--r") == ["--read-only"]  # the options of a command that is imported late
    assert complete("export", "") == ["best"]  # a group
    assert complete("export", "--h") == ["--help"]
    assert complete("export", "best", "--cell", "a", "--sp") == ["--space"]
    assert complete("show", "--storage-path", str(tmp_path), "to") == ["toy", "toy-2"]
    assert complete("stop", "--storage-path", str(tmp_path), "*") == []


CODE = CodeVersion({"space file": "0" * 16})


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


Shell = Callable[..., subprocess.CompletedProcess[str]]


def called(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def written(runs: Path, rows: int | None = None, study: Study | None = None, **provenance: Any) -> Path:
    """A study's folder below `runs`, as a driver leaves it after so many epochs."""
    study = study or toy()
    coordinator = open_coordinator(study, runs)
    coordinator.set_resources({"device": "cuda", "cpus": 1.0, "gpus": 0.5})
    whole = drive(coordinator, runs, rows)
    space = Space(study, package, Path("toy.py"), "", SPACE, CODE)
    told = build_study_json(study, space, {"data": {"fingerprint": "simulated"}}, None, COMMAND)
    told["provenance"] |= provenance
    write_study(runs / study.name, told | {"finished": whole})
    return runs / study.name


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


# -- list --------------------------------------------------------------------------------------------------------------


def test_list_tells_finished_unfinished_running_damaged_and_leaves_out_the_rest(runs: Path) -> None:
    written(runs)
    written(runs, 20, toy(name="halfway"))
    written(runs, 20, toy(name="held"))
    (runs / "teachers" / "abc").mkdir(parents=True)
    (runs / "torn").mkdir()
    (runs / "torn" / "study.json").write_text('{"schema": 1, ')
    with lock_study(runs / "held"):
        said = called("list", "--storage-path", runs)
        listed = {study["name"]: study for study in json.loads(called("list", "--storage-path", runs, "--json").stdout)}
    assert said.exit_code == 0
    assert list(listed) == ["halfway", "held", "torn", "toy"]
    assert [listed[name]["state"] for name in listed] == ["unfinished", "running", "damaged", "finished"]
    assert listed["held"]["by"] == f"{os.uname().nodename}:{os.getpid()}"
    assert (listed["toy"]["done"], listed["toy"]["planned"], listed["toy"]["cells"]) == (15, 15, 2)
    assert 0 < listed["halfway"]["done"] < 15
    assert f"torn: {runs / 'torn' / 'study.json'} is damaged" in said.stdout
    assert "teachers" not in said.stdout


def test_grid_smaller_than_the_budget_is_planned_and_searched_to_its_end(runs: Path) -> None:
    folder = written(runs, study=toy(sampler=Grid(points=5)))  # of the budget's 9
    (seen,) = listing.list_studies(runs)
    assert (seen.done, seen.planned) == (11, 11)
    plain, searched = standing.read_status(folder).cells
    assert (plain.searched, plain.to_search) == (0, 0)
    assert (searched.searched, searched.to_search, searched.phase) == (5, 5, "confirmed")


def test_older_study_without_trials_by_cell_is_counted_by_its_budget(runs: Path) -> None:
    folder = written(runs, 20)
    told = json.loads((folder / "study.json").read_text())
    told["cells"] = [{name: cell[name] for name in cell if name != "trials"} for cell in told["cells"]]
    (folder / "study.json").write_text(json.dumps(told))
    assert listing.list_studies(runs)[0].planned == 15
    assert [cell.to_search for cell in standing.read_status(folder).cells] == [0, 9]


def test_list_names_a_damaged_segment_and_shows_the_other_studies(runs: Path) -> None:
    folder = written(runs)
    written(runs, study=toy(name="sound"))
    segment = list_parquet_files(folder / "trials")[-1]
    segment.write_bytes(b"no parquet")
    said = called("list", "--storage-path", runs)
    assert f"toy: {segment} cannot be read" in said.stdout
    assert "15/15" in said.stdout


def test_list_of_a_study_whose_json_lacks_parts_names_them(runs: Path) -> None:
    folder = written(runs)
    told = json.loads((folder / "study.json").read_text())
    del told["budget"]["seeds"], told["question"]
    (folder / "study.json").write_text(json.dumps(told))
    assert "it lacks question" in called("list", "--storage-path", runs).stdout
    (folder / "study.json").write_text(json.dumps(told | {"question": "?"}))
    assert "it lacks a part of its budget or cells ('seeds')" in called("list", "--storage-path", runs).stdout


def test_folder_without_studies_and_no_folder_are_told_apart(tmp_path: Path) -> None:
    assert called("list", "--storage-path", tmp_path).stdout == f"no studies below {tmp_path}\n"
    refused = called("list", "--storage-path", tmp_path / "nowhere")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)


# -- show --------------------------------------------------------------------------------------------------------------


def test_show_gives_each_cells_numbers_as_pandas_finds_them(runs: Path) -> None:
    folder = written(runs)
    told = json.loads(called("show", "toy", "--storage-path", runs, "--json").stdout)
    trials = pd.read_parquet(folder / "trials").drop_duplicates("trial_id", keep="last")
    for cell in told["cells"]:
        here = trials[trials.cell == cell["cell"]]
        tests = here[here.phase == "confirm"]["test/accuracy"]
        assert (cell["test_mean"], cell["test_std"]) == pytest.approx((tests.mean(), tests.std()))
        assert cell["phase"] == "confirmed"
    searched = trials[(trials.phase == "search") & (trials.state == "COMPLETE")]
    best = searched.loc[searched["val/accuracy"].idxmax()]
    assert told["cells"][1]["best"] == best["val/accuracy"]
    assert told["cells"][1]["best_params"] == json.loads(best.params)
    assert told["cells"][1]["stopped"] == (trials.state == "PRUNED").sum()
    epochs = pd.read_parquet(folder / "epochs").drop_duplicates(["trial_id", "epoch"])
    assert told["used"]["epochs"] == len(epochs)
    assert "report" in told["next"]


def test_show_of_a_lower_is_better_study_takes_the_lowest(runs: Path) -> None:
    folder = written(runs)
    told = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(told | {"direction": "min"}))
    scores = pd.read_parquet(folder / "trials").query("phase == 'search' and state == 'COMPLETE'")["val/accuracy"]
    assert standing.read_status(folder).cells[1].best == scores.min()


def test_show_says_what_runs_and_how_to_go_on(runs: Path) -> None:
    folder = written(runs, 20)
    rows = pd.read_parquet(folder / "trials").drop_duplicates("trial_id", keep="last")
    running = rows[rows.state == "RUNNING"].trial_id.item()
    reached = pd.read_parquet(folder / "epochs").query("trial_id == @running").epoch.max()
    (shown,) = standing.read_status(folder).running
    assert (shown.trial, shown.epoch, shown.epochs) == (running, reached, 6)
    assert standing.read_status(folder).cells[1].phase == "searching"
    assert standing.read_status(folder).cells[1].test_mean is None
    cut_off = called("show", folder)
    assert "resumed first" in cut_off.stdout
    assert f"continue it: python -m study resume {folder}" in cut_off.stdout
    with lock_study(folder):
        shown_running = called("show", folder).stdout
    assert "running now" in shown_running
    assert running in shown_running
    assert f"stop it: python -m study stop {folder}" in shown_running


def test_running_trial_is_shown_with_its_first_start_and_no_duration(runs: Path) -> None:
    """Which would count the time between the runs of a resumed one."""
    folder = written(runs, 20)
    coordinator = open_coordinator(toy(), runs)
    run = coordinator.next_trial()  # the one cut off
    assert run is not None
    coordinator.writer.flush()
    with lock_study(folder):
        said = called("show", folder).stdout
        shown = json.loads(called("show", folder, "--json").stdout)["running"]
    (line,) = [line for line in said.splitlines() if line.startswith(run.trial.id)]
    assert line.rstrip().endswith(f"started {listing.format_time(run.started)}")
    assert [datetime.fromisoformat(trial["started"]) for trial in shown] == [run.started]


def test_show_names_failures_with_their_tracebacks(runs: Path) -> None:
    folder = written(runs, study=toy((BASELINE, Arm("breaks", SimulatedLoss(fault=Fault("exception", epoch=2))))))
    failed = standing.read_status(folder).failed
    assert len(failed) == 3
    path = folder / "checkpoints" / failed[0].trial / "traceback.txt"
    path.write_text("Traceback")
    said = called("show", folder).stdout
    assert f"{failed[0].trial}  student / breaks, confirm 0, epoch 1/6: planted failure in epoch 2" in said
    assert str(path) in said
    assert standing.read_status(folder).cells[1].phase == "failed"


def test_superseded_confirm_runs_count_for_nothing(runs: Path) -> None:
    folder = written(runs)
    coordinator = open_coordinator(toy(), runs)
    row = next(row for row in coordinator.writer.records.trials.read_rows() if row["phase"] == "confirm")
    coordinator.writer.records.trials.append(row | {"state": "SUPERSEDED"})
    coordinator.writer.flush()
    assert sum(cell.confirmed for cell in standing.read_status(folder).cells) == 5
    assert listing.list_studies(runs)[0].done == 14


def test_gpu_hours_weigh_a_trials_share_of_a_gpu(runs: Path) -> None:
    folder = written(runs, 20)
    coordinator = open_coordinator(toy(), runs)
    for row in coordinator.writer.records.epochs.read_rows():
        coordinator.writer.records.epochs.append(row | {"seconds": 3600.0})
    coordinator.writer.flush()
    used = standing.read_status(folder).used
    assert used.gpu_hours == pytest.approx(20 * 0.5)
    assert (used.usd, "USD" in called("show", folder).stdout) == (None, False)
    document = read_study(folder)
    document["budget"]["usd_per_hour"] = 0.4
    write_study(folder, document)
    assert standing.read_status(folder).used.usd == pytest.approx(4.0)
    assert "10.00 GPU hours, 4.00 USD" in called("show", folder).stdout


def test_show_reads_while_a_driver_writes_and_merges(runs: Path) -> None:
    """The rows of all earlier readings are in every later one, and no segment that was merged away is complained of."""
    written(runs, 1)
    coordinator = open_coordinator(toy(budget=package.Budget(trials=60, epochs=6, seeds=3)), runs)
    driver = threading.Thread(target=lambda: drive(coordinator, runs, each=flush_each(coordinator)))
    driver.start()
    counts = []
    while driver.is_alive():
        seen = standing.read_status(runs / "toy")
        counts.append((seen.used.epochs, sum(cell.searched + cell.confirmed for cell in seen.cells)))
    driver.join()
    assert len(counts) > 5
    assert counts == sorted(counts)
    assert counts[-1][0] > counts[0][0]


def test_show_space_prints_the_recorded_file_to_the_letter(runs: Path) -> None:
    assert called("show", "toy", "--space", "--storage-path", written(runs).parent).stdout == SPACE


def test_unknown_study_is_one_line_naming_those_there_are(runs: Path) -> None:
    written(runs)
    for command in ("show", "stop", "resume"):
        refused = called(command, "tyo", "--storage-path", runs)
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
        assert "there are: toy" in refused.stderr


def test_watch_without_a_terminal_is_refused(runs: Path) -> None:
    refused = called("show", written(runs), "--watch")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)


def test_watch_draws_until_ctrl_c(runs: Path) -> None:
    folder = written(runs, 20)
    terminal, ours = pty.openpty()
    words = [sys.executable, "-m", "study", "show", str(folder), "--watch"]
    process = subprocess.Popen(words, stdout=ours, stderr=subprocess.PIPE, start_new_session=True)
    os.close(ours)
    drawn = b""
    until = time.monotonic() + 60
    while b"continue it" not in drawn:
        assert time.monotonic() < until
        drawn += os.read(terminal, 10_000)
    process.send_signal(signal.SIGINT)
    while process.poll() is None:  # who draws on a terminal that nobody reads stands still
        assert time.monotonic() < until
        with suppress(OSError):
            os.read(terminal, 10_000)
    assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    os.close(terminal)


# -- resume and stop ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], ["toy.py", "--trials", "9", "--max-concurrent", "2"]),
        (["--trials", "40"], ["toy.py", "--trials", "40", "--max-concurrent", "2"]),
        (["--trials=40"], ["toy.py", "--trials", "40", "--max-concurrent", "2"]),
        (["--retry-failed"], ["toy.py", "--trials", "9", "--max-concurrent", "2", "--retry-failed"]),
        (["--teacher-store", "off"], ["toy.py", "--trials", "9", "--max-concurrent", "2", "--teacher-store", "off"]),
    ],
)
def test_resume_puts_new_options_in_the_place_of_recorded_ones(
    runs: Path, more: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs.parent)
    folder = written(runs, 20)
    assert resuming.build_command_words(folder, read_shown_study(folder), more) == words


@pytest.mark.parametrize(
    ("more", "logs"),
    [([], ["--log", "tensorboard", "--log", "wandb"]), (["--log", "mlflow"], ["--log", "mlflow"])],
)
def test_resume_keeps_a_repeated_option_until_it_is_given_anew(
    runs: Path, more: list[str], logs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs.parent)
    command = "python -m study.run toy.py --log tensorboard -v --log wandb"
    folder = written(runs, 20, command=command)
    assert resuming.build_command_words(folder, read_shown_study(folder), more) == [
        "toy.py",
        *logs,
        "--verbose",
    ]


def test_resume_of_a_study_that_was_moved_stays_where_it_is(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.parent)
    folder = written(runs.parent / "archive", 20)
    assert resuming.build_command_words(folder, read_shown_study(folder), [])[-2:] == [
        "--storage-path",
        str(folder.parent),
    ]


def test_resume_takes_relative_paths_from_where_the_study_was_started(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, started = tmp_path / "elsewhere", tmp_path / "started"
    elsewhere.mkdir()
    started.mkdir()
    folder = written(started / "runs", 20, cwd=str(started))
    monkeypatch.chdir(elsewhere)
    words = resuming.build_command_words(folder, read_shown_study(folder), ["--data-dir", "data"])
    assert words[0] == str(started / "toy.py")
    assert words[-2:] == ["--data-dir", str(elsewhere / "data")]
    assert "--storage-path" not in words


@pytest.mark.parametrize("option", [["--fresh"], ["--name", "other"], ["other.py"]])
def test_resume_refuses_what_would_be_another_study(runs: Path, option: list[str]) -> None:
    refused = called("resume", written(runs, 20), *option)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "does not go with resume" in refused.stderr


def test_resume_of_a_renamed_folder_says_what_it_was_called(runs: Path) -> None:
    folder = written(runs, 20).rename(runs / "renamed")
    assert "holds the study 'toy'" in called("resume", folder).stderr


def test_space_file_gone_changed_or_only_commented(runs: Path, tmp_path: Path) -> None:
    folder, path = written(runs, 20), tmp_path / "toy.py"
    with pytest.raises(InputError, match=rf"is gone: write it back with: .*show {folder} --space > {path}"):
        resuming.check_space(folder, read_shown_study(folder), path)
    path.write_text(SPACE.replace("trials=3", "trials=5"))
    with pytest.raises(InputError, match=r"first in line 13: .*trials=3.* → .*trials=5.*--space"):
        resuming.check_space(folder, read_shown_study(folder), path)
    path.write_text(SPACE.replace("# a study", "# the study"))
    resuming.check_space(folder, read_shown_study(folder), path)


def test_resume_of_a_running_study_says_who_runs_it(runs: Path) -> None:
    folder = written(runs, 20)
    with lock_study(folder):
        refused = called("resume", folder)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert f"is being run already, by {os.uname().nodename}:{os.getpid()}" in refused.stderr


def test_stop_of_what_does_not_run_says_so_and_asks_nobody(runs: Path) -> None:
    folder = written(runs, 20)
    said = called("stop", folder)
    assert said.exit_code == 0
    assert said.stdout == f"toy does not run; continue with: python -m study resume {folder}\n"
    assert not is_stop_requested(folder)


def test_stop_waits_until_the_lock_is_free(runs: Path) -> None:
    folder = written(runs, 20)
    with ExitStack() as stack:
        stack.enter_context(lock_study(folder))
        too_long = called("stop", folder, "--wait", "0.3")
        assert too_long.exit_code == 1
        assert "still runs it after 0.3 s" in too_long.stderr
        assert is_stop_requested(folder)
        threading.Timer(0.5, stack.pop_all().close).start()
        said = called("stop", folder)
    assert said.exit_code == 0
    assert said.stdout.startswith("toy stopped after ")


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.1)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "study", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.mark.slow
def test_real_study_is_run_shown_stopped_and_resumed_with_more_trials(tmp_path: Path, runs: Path, shell: Shell) -> None:
    (tmp_path / "toy.py").write_text(SPACE)
    words = [sys.executable, "-m", "study", "run", "toy.py", "--max-concurrent", "2"]
    process = subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: (runs / "toy" / "study.json").is_file() and standing.read_status(runs / "toy").used.epochs > 2)
    seen = standing.read_status(runs / "toy")
    assert (seen.state, seen.by) == ("running", f"{os.uname().nodename}:{process.pid}")
    assert len(seen.running) in (1, 2)

    stopped = called("stop", runs / "toy")
    assert stopped.exit_code == 0, stopped.stderr
    assert f"continue with: python -m study resume {runs / 'toy'}" in stopped.stdout
    process.communicate(timeout=30)
    assert process.returncode not in (0, 1, 2)

    resumed = shell("resume", "toy", "--trials", "4")
    assert resumed.returncode == 0, resumed.stderr
    after = standing.read_status(runs / "toy")
    assert after.state == "finished"
    assert after.command == "python -m study.run toy.py --trials 4 --max-concurrent 2"
    assert after.cells[1].searched == 4


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "run", "list", "show", "resume", "stop", "doctor"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_explains_itself_with_examples(command: str, option: str) -> None:
    said = called(*([command] if command else []), option)
    assert said.exit_code == 0
    assert "Examples:\n" in said.stdout
    assert f"python -m study{'.run' if command == 'run' else ''}" in said.stdout.split("Examples:")[1]
