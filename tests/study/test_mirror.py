"""A storage on S3 and its copies: what is moved, in which order, who may write, and what a kill leaves."""

from __future__ import annotations

import http.server
import json
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import study as package
from reports.build import main as build
from study.__main__ import main
from study.commands import listing
from study.commands.resuming import words_to_go_on
from study.errors import InputError
from study.flow import Flow
from study.folder import document, stop_requested
from study.loading import Space
from study.records import Records, write_study
from study.storage import elsewhere, exchange, lease
from study.storage.dataset import DataSet, copied
from study.storage.lease import held
from study.storage.mirror import DamagedCopyError, Mirror, StorageError
from study.storage.places import located, mirror_of, shown
from study.study import Study
from tests.study import s3
from tests.study.test_records import epoch_row
from tests.study.toy import drive, job_of, open_flow, toy

Copy = Callable[..., Path]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3.server() as address:
        yield address


@pytest.fixture
def copy(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """Of this test's own storage, the copy that a machine has; another name is another machine."""
    for name, value in (s3.KEYS | {"AWS_ENDPOINT_URL": endpoint}).items():
        monkeypatch.setenv(name, value)

    def of_machine(machine: str = "here") -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        return located(f"s3://{s3.BUCKET}/{tmp_path.name}")

    return of_machine


def content(folder: Path) -> dict[str, bytes]:
    """The files of a copy, without those that stay."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if "/." not in f"/{name}"}


def put(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


# -- there and back ----------------------------------------------------------------------------------------------------


def test_storage_path_of_a_folder_is_that_folder_and_its_mirror_moves_nothing(tmp_path: Path) -> None:
    assert located(str(tmp_path / "x" / ".." / "runs")) == tmp_path / "runs"
    mirror = mirror_of(tmp_path)
    put(tmp_path, a="1")
    mirror.push("", sweep=True)
    mirror.pull("", sweep=True)
    mirror.remove("a")
    assert content(tmp_path) == {"a": b"1"}
    assert shown(tmp_path / "a") == str(tmp_path / "a")


def test_files_are_the_same_on_another_machine(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    put(here, toy__a="1", toy__deep__b="22", toy__empty="", beside="no")
    mirror_of(here).push("toy")
    other = copy("other")
    assert other != here
    mirror_of(other).pull("toy/deep", "toy/a", "toy/empty", "toy/nowhere")
    assert content(other) == {"toy/a": b"1", "toy/deep/b": b"22", "toy/empty": b""}
    assert content(other) == s3.objects(endpoint, tmp_path.name), "plain objects, for any other tool"


def test_only_what_has_changed_is_moved(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    here, moved = copy(), []
    for step in ("_send", "_fetch"):
        original = getattr(Mirror, step)
        monkeypatch.setattr(Mirror, step, lambda self, *what, of=original: (moved.append(what[-1]), of(self, *what)))
    put(here, toy__a="1", toy__b="22")
    mirror = mirror_of(here)
    mirror.push("toy")
    mirror.push("toy")
    mirror.pull("toy")
    assert sorted(moved) == [here / "toy" / "a", here / "toy" / "b"]
    put(here, toy__b="33")  # of the same size
    moved.clear()
    mirror.push("toy")
    assert moved == [here / "toy" / "b"]


def test_names_that_begin_with_a_dot_stay(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    put(here, toy__a="1")
    put(here / "toy", **{".lock": "me", ".deep__b": "2"})
    mirror_of(here).push("toy")
    assert set(s3.objects(endpoint, f"{tmp_path.name}/toy")) == {"a"}
    mirror_of(here).pull("toy", sweep=True)
    assert (here / "toy" / ".lock").is_file()


def test_sweep_removes_on_the_other_side_what_is_gone_on_this(copy: Copy) -> None:
    here = copy()
    put(here, toy__a="1", toy__b="2")
    mirror_of(here).push("toy")
    other = copy("other")
    mirror_of(other).pull("toy")
    (here / "toy" / "a").unlink()
    mirror_of(here).push("toy")
    mirror_of(other).pull("toy", sweep=True)
    assert set(content(other)) == {"toy/a", "toy/b"}
    mirror_of(here).push("toy", sweep=True)
    mirror_of(other).pull("toy", sweep=True)
    assert set(content(other)) == {"toy/b"}


# -- rows, whatever happens meanwhile ----------------------------------------------------------------------------------


def told(records: Records, number: int) -> None:
    """A trial of two epochs, flushed after each."""
    trial = {"trial_id": f"t{number}", "cell": "s / a", "phase": "search", "state": "RUNNING", "epochs_done": 0}
    for epoch in (1, 2):
        records.epochs.append(epoch_row(f"t{number}", epoch, number / 10))
        records.trials.append(trial | ({"state": "COMPLETE", "epochs_done": 2} if epoch == 2 else {}))
        records.flush()


def is_consistent(storage: Path, trials: int) -> None:
    """At least so many trials, and of each that has ended all epochs."""
    mirror_of(storage).pull("toy", sweep=True)
    records = Records(storage / "toy", ["val/accuracy"])
    ended = [row["trial_id"] for row in records.trials.rows() if row["state"] == "COMPLETE"]
    epochs = [(row["trial_id"], row["epoch"]) for row in records.epochs.rows()]
    assert ended[:trials] == [f"t{number}" for number in range(trials)]
    assert all((trial, epoch) in epochs for trial in ended for epoch in (1, 2))


ROWS = ("toy/epochs", "toy/trials")


@pytest.mark.parametrize("steps", [0, 1, 3, 7, 8, 10, 14])
def test_push_that_is_cut_anywhere_leaves_all_rows_that_were_there(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Of each table the eight segments become one here; there it is sent, and then the six that had arrived go."""
    here = copy()
    records, left = Records(here / "toy", ["val/accuracy"]), iter(range(steps))
    for number in range(3):
        told(records, number)
    mirror_of(here).push(*ROWS, sweep=True)
    told(records, 3)

    def counted(of: Callable[..., None]) -> Callable[..., None]:
        def step(self: Mirror, what: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            of(self, what)

        return step

    with monkeypatch.context() as cut:
        for name in ("_send", "discard"):
            cut.setattr(Mirror, name, counted(getattr(Mirror, name)))
        with suppress(KeyboardInterrupt) if steps < 14 else nullcontext():
            mirror_of(here).push(*ROWS, sweep=True)
    assert next(left, None) is None, "these are all steps"
    is_consistent(copy("other"), 4 if steps == 14 else 3)
    mirror_of(here).push(*ROWS, sweep=True)
    is_consistent(copy("third"), 4)
    assert len(list((here / "toy" / "epochs").iterdir())) == 1


def test_rows_written_during_a_push_never_end_a_trial_before_its_epochs(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    records, numbers = Records(here / "toy", ["val/accuracy"]), iter(range(100))

    def busy(of: Callable[..., Any]) -> Callable[..., Any]:
        def listed(self: Mirror, place: str) -> Any:
            told(records, next(numbers))
            return of(self, place)

        return listed

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Mirror, "files", busy(Mirror.files))
        for _ in range(6):
            mirror_of(here).push(*ROWS, sweep=True)
    pushed = next(numbers)
    assert pushed >= 12
    is_consistent(copy("other"), pushed - 2)


# -- what trials share -------------------------------------------------------------------------------------------------


def is_fine(path: Path) -> bool:
    return path.read_text().startswith("fine")


def test_shared_files_are_fetched_and_verified_once(copy: Copy) -> None:
    here = copy()
    put(here, outputs__a="fine 1", outputs__b="fine 2")
    mirror_of(here).push("outputs")
    other, looked_at = copy("other"), []

    def looked(path: Path) -> bool:
        looked_at.append(path.name)
        return is_fine(path)

    mirror = mirror_of(other)
    threads = [threading.Thread(target=mirror.fetch, args=(("outputs",), looked)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(looked_at) == ["a", "b"]
    assert content(other) == {"outputs/a": b"fine 1", "outputs/b": b"fine 2"}


def test_damaged_copy_is_fetched_again_and_a_damaged_original_is_named(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    put(here, outputs__a="fine")
    mirror_of(here).push("outputs")
    other, fetch, broken = copy("other"), Mirror._fetch, iter(["once"])

    def torn(self: Mirror, info: Any, path: Path) -> None:
        fetch(self, info, path)
        if next(broken, None):
            path.write_text("torn")

    monkeypatch.setattr(Mirror, "_fetch", torn)
    mirror_of(other).fetch(("outputs",), is_fine)
    assert content(other) == {"outputs/a": b"fine"}
    put(here, outputs__a="damaged")
    mirror_of(here).push("outputs")
    with pytest.raises(DamagedCopyError, match=r"s3://bucket/.*/outputs/a is damaged: delete it there"):
        mirror_of(other).fetch(("outputs",), is_fine)


@pytest.fixture
def data(copy: Copy, tmp_path: Path) -> DataSet:
    """As the driver has read it, on its way to a node that has nothing of it."""
    copy()
    address = f"s3://{s3.BUCKET}/{tmp_path.name}-data"
    put(located(address, "data"), train__a="1", train__b="2", note="3")
    mirror_of(located(address, "data")).push("")
    found = copied(address)
    assert found is not None
    shutil.rmtree(found.mirror.here)
    return pickle.loads(pickle.dumps(found))


def test_data_set_is_fetched_once_and_verified_against_what_the_driver_has_read(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(data.mirror.here, train__c="of an earlier edition")
    data.fetch()
    assert content(data.mirror.here) == {"train/a": b"1", "train/b": b"2", "note": b"3"}
    monkeypatch.setattr(Mirror, "_there", lambda self, place: pytest.fail("asked again"))
    data.fetch()


@pytest.mark.parametrize(("change", "message"), [("9", "/note is damaged"), (None, "/note is gone since")])
def test_data_set_that_has_changed_since_the_driver_has_read_it_is_refused(
    data: DataSet, change: str | None, message: str
) -> None:
    data.mirror.discard("note")
    if change:
        data.mirror.write("note", change)
    with pytest.raises(DamagedCopyError, match=message):
        data.fetch()


def test_profile_of_a_data_set_on_s3_gets_a_folder_and_nothing_is_downloaded_for_one_in_a_folder(
    data: DataSet, tmp_path: Path
) -> None:
    space = tmp_path / "toy.py"
    space.write_text(PROFILES)
    for given in (data.mirror.uri, str(data.fetch() or data.mirror.here)):
        words = ["run", str(space), "--data-dir", given, "--storage-path", str(tmp_path / "runs"), "--dry-run"]
        said = CliRunner().invoke(main, words)
        assert "question: 3" in said.output, said.output
    assert copied(str(data.mirror.here)) is None


PROFILES = """
from study import Arm, Budget, Study
from trainables.simulated import Simulated, SimulatedLoss, SimulatedStudent

study = {"read": lambda data_dir: Study(
    name="toy", question="question: " + (data_dir / "note").read_text(), task=Simulated(),
    students=(SimulatedStudent(),), arms=(Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True),),
    budget=Budget(trials=1, epochs=1, seeds=1),
)}
"""


# -- who drives --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLED_SECONDS", 0.0)
    monkeypatch.setattr(lease, "PUSH_SECONDS", 0.05)


def rows(storage: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    records = Records(storage / "toy", toy().task.metrics)
    return records.trials.rows(), records.epochs.rows()


def run(storage: Path, count: int | None = None) -> Flow:
    """A run of the toy study, of so many epochs."""
    flow = open_flow(toy(), storage)
    flow.flush_seconds = 60.0
    whole = drive(flow, storage, count)
    flow.flush()
    write_study(storage / "toy", described(toy(), whole))
    return flow


def described(study: Study, finished: bool) -> dict[str, Any]:
    space = Space(study, package, Path("toy.py"), "", "")
    inputs = {"data": {"fingerprint": "simulated"}}
    return document(study, space, inputs, None, "python -m study.run toy.py") | {"finished": finished}


@pytest.mark.usefixtures("hurried")
def test_second_driver_is_refused_for_as_long_as_the_lease_is_fresh(
    copy: Copy,
) -> None:
    here = copy()
    with held(here / "toy"):
        run(here, 5)
        other = copy("other")
        refused = pytest.raises(InputError, match=r"s3://.*/toy is being run by .*:\d+: .* wait 1[12]\d s")
        with refused, held(other / "toy"):
            pass
        assert elsewhere.driver(other / "toy")
        with pytest.raises(InputError, match="by another process of this machine"), held(here / "toy"):
            pass
    assert not elsewhere.driver(other / "toy")
    with held(other / "toy"):
        assert rows(other) == rows(here)


def killed(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs, of which the second one is killed before anything of it has arrived."""
    with held(storage / "toy"):
        run(storage, 5)
    with monkeypatch.context() as cut:
        cut.setattr(lease.Keeper, "_round", lambda keeper: None)
        cut.setattr(lease.Keeper, "_end", lambda keeper: None)
        with held(storage / "toy"):
            run(storage, 3)


@pytest.mark.usefixtures("hurried")
def test_driver_that_was_killed_goes_on_at_once_where_it_was_with_rows_that_never_arrived(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    killed(here, monkeypatch)
    kept = rows(here)
    assert len(kept[1]) == 8
    with held(here / "toy"):
        assert rows(here) == kept
    other = copy("other")
    with held(other / "toy"):
        assert rows(other) == kept


@pytest.mark.usefixtures("hurried")
def test_driver_that_was_killed_is_followed_elsewhere_when_its_lease_is_over(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    killed(here, monkeypatch)
    other = copy("other")
    with pytest.raises(InputError, match="is being run by"), held(other / "toy"):
        pass
    with monkeypatch.context() as later:
        later.setattr(lease, "STALE_SECONDS", 0.0)
        with held(other / "toy"):
            assert len(rows(other)[1]) == 5
            run(other, 2)
    whole = rows(other)
    with held(here / "toy"):
        assert rows(here) == whole, "another machine has gone on: what never arrived counts no more"


@pytest.mark.usefixtures("hurried")
def test_driver_whose_lease_was_taken_stops_and_writes_nothing_more(
    copy: Copy, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    monkeypatch.setattr(lease, "RENEWED_SECONDS", 0.0)
    lost = pytest.raises(StorageError, match="toy is now run by other:1")
    with lost, held(here / "toy"):
        mirror_of(here).write("toy/.lease", json.dumps({"by": "other:1", "mark": "another"}))
        waited(lambda: stop_requested(here / "toy"))
        put(here, toy__report="mine")
    assert not s3.objects(endpoint, f"{tmp_path.name}/toy")


@pytest.mark.usefixtures("hurried")
def test_driver_hears_a_request_to_stop_from_elsewhere(copy: Copy) -> None:
    here = copy()
    with held(here / "toy"):
        elsewhere.ask_to_stop(copy("other") / "toy")
        waited(lambda: stop_requested(here / "toy"))
    assert mirror_of(here).read("toy/stop") is None


@pytest.mark.usefixtures("hurried")
def test_storage_that_answers_no_more_stops_the_study_and_what_is_here_goes_there_later(
    copy: Copy, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(lease, "LAST_SECONDS", 0.1)
    with monkeypatch.context() as broken:
        ended = pytest.raises(StorageError, match=r"takes no more .*no answer.*all rows are in")
        with ended, held(here / "toy"):
            broken.setattr(Mirror, "_send", lambda self, path: (_ for _ in ()).throw(OSError("curlCode: 7")))
            run(here, 5)
            waited(lambda: stop_requested(here / "toy"))
        kept = rows(here)
    with held(here / "toy"):
        pass
    assert rows(here) == kept
    assert "study.json" in s3.objects(endpoint, f"{tmp_path.name}/toy")


def waited(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


# -- a trial on one node after another ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurried")
def test_trial_goes_on_from_its_checkpoint_on_another_node(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here, node = copy(), copy("node")
    mirror, flow = mirror_of(node), open_flow(toy(), here)
    teacher, trial = flow.next(), flow.next()
    assert teacher
    assert trial
    for run, epochs in ((teacher, 2), (trial, 3)):
        job = job_of(flow.study, run, node)
        exchange.fetch(mirror, job)
        for row, _ in zip(
            job.task.prepare(job) if run is teacher else job.task.train(job), range(epochs), strict=False
        ):
            exchange.leave(mirror, job, whole=row["epoch"] == run.trial.epochs)
        exchange.tidy(mirror, job.checkpoint)
        assert not job.checkpoint.exists()
    there = s3.objects(endpoint, tmp_path.name)
    assert there == {
        "teachers/simulated/made": b"",
        f"toy/checkpoints/{teacher.trial.id}/trained_epochs": b"..",
        f"toy/checkpoints/{trial.trial.id}/trained_epochs": b"...",
    }
    other = copy("other")
    job = job_of(flow.study, trial, other)
    put(other, **{f"toy__checkpoints__{trial.trial.id}__trained_epochs": "."})  # of an earlier visit
    exchange.fetch(mirror_of(other), job)
    assert (job.checkpoint / "trained_epochs").read_bytes() == b"..."
    exchange.clear(mirror, node / "toy" / "checkpoints" / trial.trial.id)
    exchange.fetch(mirror_of(other), job)
    assert not (job.checkpoint / "trained_epochs").exists(), "it is to start over"


@pytest.mark.usefixtures("hurried")
def test_checkpoint_of_a_trial_that_has_ended_goes_once_that_is_known_there(
    copy: Copy, endpoint: str, tmp_path: Path
) -> None:
    here = copy()
    put(here, toy__checkpoints__over__state="1", toy__checkpoints__on__state="2")
    mirror = mirror_of(here)
    mirror.push("toy/checkpoints")
    exchange.forget(mirror, here / "toy" / "checkpoints" / "over")
    assert len(s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")) == 2
    with held(here / "toy"):
        pass
    assert set(s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")) == {"on/state"}
    exchange.clear(mirror, here / "toy" / "checkpoints" / "on")
    assert not s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurried")
def test_commands_look_at_a_study_from_another_machine(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    address = f"s3://{s3.BUCKET}/{tmp_path.name}"
    call = CliRunner().invoke
    with held(here / "toy"):
        run(here)
        waited(lambda: mirror_of(here).read("toy/study.json") is not None)
        copy("other")
        (listed,) = json.loads(call(main, ["list", "--storage-path", address, "--json"]).stdout)
        assert (listed["name"], listed["state"], listed["done"]) == ("toy", "running", 15)
        assert "is being run already" in call(main, ["resume", f"{address}/toy"]).stderr
        asked = call(main, ["stop", "toy", "--storage-path", address, "--wait", "0"])
        assert asked.exit_code == 1, asked.output
        waited(lambda: stop_requested(here / "toy"))
    told = json.loads(call(main, ["show", f"{address}/toy", "--json"]).stdout)
    assert (told["state"], told["next"]) == ("finished", f"write its report: python -m reports.build {address}/toy")
    folder = located(address) / "toy"
    assert words_to_go_on(folder, listing.described(folder), []) == ["toy.py", "--storage-path", address]
    page = call(build, [f"{address}/toy"])
    assert page.stdout == f"{address}/toy/report.html\n", page.output
    assert "report.html" in s3.objects(endpoint, f"{tmp_path.name}/toy")
    nothing = call(main, ["show", f"{address}/nothing"])
    assert nothing.exit_code == 2
    assert nothing.stderr.startswith(f"error: no study 'nothing' below {address} (there are: toy)")


# -- what the user can mend --------------------------------------------------------------------------------------------


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server that lets nobody in."""

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    do_GET = do_PUT = do_HEAD  # noqa: N815

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("address", "server", "message"),
    [
        ("s3://nowhere/x", "moto", "s3://nowhere/x at http://.*: there is no such bucket: create it"),
        ("s3://bucket/x", "refusing", "s3://bucket/x at http://.*: access is denied: set AWS_ACCESS_KEY_ID"),
        ("s3://bucket/x", "http://127.0.0.1:9", "s3://bucket/x at http://127.0.0.1:9: no answer: check the network"),
        ("gs://bucket/x", "moto", "'gs://bucket/x': allowed are a folder, local or shared, and s3://BUCKET/PREFIX"),
        ("s3://", "moto", "'s3://': allowed are a folder"),
    ],
)
def test_storage_that_cannot_be_used_is_told_in_a_line_and_soon(
    copy: Copy, refusing: str, monkeypatch: pytest.MonkeyPatch, address: str, server: str, message: str
) -> None:
    if server != "moto":
        monkeypatch.setenv("AWS_ENDPOINT_URL", refusing if server == "refusing" else server)
    began = time.monotonic()
    with pytest.raises(InputError, match=message) as told:
        located(address)
    assert "\n" not in str(told.value)
    assert time.monotonic() - began < 15
