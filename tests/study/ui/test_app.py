"""The pages of the live page over HTTP: the list, a study, its report, its failures and its buttons."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from reports.build import build
from study.cli.main import main
from study.records.lock import is_stop_requested, lock_study, read_skip_requests
from study.ui.app import LivePage
from study.ui.server import bind_loopback
from tests.reports.fake_study import Writer
from tests.study.ui.conftest import TOKEN

HOSTILE = "<script>alert(1)</script>"


def visit(storage: Path, read_only: bool = False) -> TestClient:
    """Return a visitor who has the token."""
    client = TestClient(LivePage(str(storage), read_only).make_app(TOKEN), "http://127.0.0.1", follow_redirects=False)
    client.headers["Authorization"] = f"token {TOKEN}"
    return client


def list_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_list_names_studies_with_their_state_and_progress(storage: Path) -> None:
    page = visit(storage).get("/").text
    assert '<a href="/study/fake"><b>fake</b></a>' in page
    assert "finished" in page
    assert "40 of 40" in page


def test_list_without_studies_says_that_they_will_appear(tmp_path: Path) -> None:
    assert "There is no study yet" in visit(tmp_path).get("/").text


def test_finished_study_shows_cells_verdicts_figures_and_trials(storage: Path) -> None:
    page = visit(storage).get("/study/fake").text
    assert "resnet8 / DKD + LP searched" in page
    assert '<span class="verdict better">better</span>' in page
    assert "unfinished" not in page
    for key in ("curves-0", "history-2", "search-curves-2"):
        assert f'data-figure="{key}"' in page
    assert "search 15" in page


def test_verdicts_of_an_unfinished_study_are_marked(writer: Writer) -> None:
    writer.study["finished"] = False
    writer.trials = [row for row in writer.trials if row["phase"] != "confirm" or row["number"] < 5]
    page = visit(writer.write().parent).get("/study/fake").text
    assert "Verdicts so far" in page
    assert "All figures and verdicts are provisional" in page
    assert "p values that are too small" in page


def test_nothing_is_compared_before_the_first_confirm_run(writer: Writer) -> None:
    writer.study["finished"] = False
    writer.trials = [row for row in writer.trials if row["phase"] != "confirm"]
    page = visit(writer.write().parent).get("/study/fake").text
    assert "nothing to compare" in page
    assert "seeds needed" not in page
    assert "0 of 24 confirm runs have a result" in page


def test_running_trials_are_listed_and_drawn(writer: Writer) -> None:
    last = next(row for row in reversed(writer.trials) if row["phase"] == "search")
    last |= {"state": "RUNNING", "ended": None, "epochs_done": 0, "worker": "node:7"}
    last.pop("val/accuracy", None)
    folder = writer.write()
    with lock_study(folder):
        client = visit(folder.parent)
        assert "Running now" in (page := client.get("/study/fake").text)
        assert "node:7" in page
        assert "running" in client.get("/").text
        state = LivePage(str(folder.parent), False)._read_study("fake")
    assert '"running"' in state.figures["search-curves-2"]


def test_failures_come_with_tracebacks_and_all_text_is_escaped(writer: Writer) -> None:
    failed = next(row for row in writer.trials if row["state"] == "FAILED")
    failed["reason"] = f"ValueError: {HOSTILE}"
    writer.study["question"] = HOSTILE
    folder = writer.write()
    traceback = folder / "checkpoints" / failed["trial_id"] / "traceback.txt"
    traceback.parent.mkdir(parents=True)
    traceback.write_text(f"Traceback …\nValueError: {HOSTILE}\n")
    client = visit(folder.parent)
    page = client.get("/study/fake").text
    assert "<h2>Failures</h2>" in page
    assert "2 trials, the last after epoch" not in page  # other reasons are apart
    assert page.count("ValueError: &lt;script&gt;") >= 2
    assert HOSTILE not in page + client.get("/").text


def test_pages_name_no_other_host(storage: Path) -> None:
    client = visit(storage)
    for address in ("/", "/study/fake", "/assets/ui.js", "/assets/ui.css", "/assets/page.js", "/assets/page.css"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert not re.search(
            r"(https?:)?//[\w.-]+\.\w+/|@import|url\(", re.sub(r"^\s*//.*", "", answer.text, flags=re.M)
        )


@pytest.mark.parametrize("name", ["absent", "%2e%2e", "..%2ffake", "%2e", ".", "fake%00", ""])
def test_only_studies_below_the_storage_path_are_served(storage: Path, name: str) -> None:
    (storage.parent / "study.json").write_text("{}")
    for end in ("", "/report", "/events"):
        answer = visit(storage).get(f"/study/{name}{end}")
        assert answer.status_code in (404, 307)
        assert "Cells" not in answer.text
    assert visit(storage).post(f"/study/{name}/stop").status_code in (404, 405)


def test_report_is_served_in_a_sandbox(storage: Path) -> None:
    client = visit(storage)
    assert client.get("/study/fake/report").status_code == 404
    assert "/study/fake/report" not in client.get("/study/fake").text
    build(storage / "fake")
    answer = client.get("/study/fake/report")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts ")
    assert "allow-same-origin" not in policy
    assert "/study/fake/report" in visit(storage).get("/study/fake").text
    data = client.get("/study/fake/figures/When-trials-ran.csv")
    assert data.headers["content-disposition"] == 'attachment; filename="When-trials-ran.csv"'
    assert data.text.startswith("trial_id,cell,")
    for name in ("nothing.csv", "..%2Fstudy.json", "..%2Freport.html"):
        assert client.get(f"/study/fake/figures/{name}").status_code == 404, name


def test_damaged_study_is_shown_with_its_problem(storage: Path) -> None:
    (storage / "fake" / "trials" / "part-00001.parquet").write_bytes(b"no parquet")
    client = visit(storage)
    assert "part-00001.parquet" in client.get("/study/fake").text
    assert "damaged" in client.get("/").text


def test_study_json_that_lacks_something_is_shown_as_damaged(writer: Writer) -> None:
    writer.study["cells"] = [{"cell": "a"}]
    folder = writer.write()
    (folder / "study.json").write_text((folder / "study.json").read_text().replace('"searched"', '"sought"'))
    client = visit(folder.parent)
    assert "damaged" in client.get("/").text
    assert "damaged" in client.get("/study/fake").text


def test_storage_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    client = visit(tmp_path / "runs")
    (tmp_path / "runs").rmdir()
    answer = client.get("/")
    assert answer.status_code == 503
    assert "no folder" in answer.text


def test_starting_study_is_shown_before_it_has_a_study_json(storage: Path) -> None:
    with lock_study(storage / "next"):
        client = visit(storage)
        assert "starting" in client.get("/").text
        assert "just being started" in client.get("/study/next").text


@pytest.mark.parametrize("end", ["", "/report", "/figures/a.csv", "/events"])
def test_driver_is_looked_for_in_a_thread(storage: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """On S3 that is a request, during which all other pages would wait."""
    in_loop = []

    def find_driver(_: Path) -> str:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            in_loop.append(False)
        else:
            in_loop.append(True)
        return ""

    monkeypatch.setattr("study.ui.app.remote.find_driver", find_driver)
    assert visit(storage).get(f"/study/starting{end}").status_code == 404
    assert in_loop == [False]


def test_reading_changes_nothing(storage: Path) -> None:
    build(storage / "fake")
    before = list_files(storage)
    client = visit(storage)
    for address in ("/", "/study/fake", "/study/fake/report"):
        assert client.get(address).status_code == 200
    assert list_files(storage) == before


def test_stop_button_writes_what_the_command_writes(storage: Path) -> None:
    folder = storage / "fake"
    client = visit(storage)
    assert "Stop the study" not in client.get("/study/fake").text
    assert client.post("/study/fake/stop").status_code == 409
    assert not is_stop_requested(folder)
    with lock_study(folder):
        client = visit(storage)
        assert "Stop the study" in client.get("/study/fake").text
        answer = client.post("/study/fake/stop", headers={"Origin": "http://127.0.0.1"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/study/fake")
        assert is_stop_requested(folder)
        page = client.get("/study/fake").text
        assert "is being stopped" in page
        assert "Stop the study" not in page


def test_read_only_page_has_no_buttons_and_stops_nothing(storage: Path) -> None:
    with lock_study(storage / "fake"):
        client = visit(storage, read_only=True)
        assert "<form" not in client.get("/study/fake").text
        answer = client.post("/study/fake/stop")
        assert answer.status_code == 403
        assert "--read-only" in answer.text
        assert not is_stop_requested(storage / "fake")


def start_search_trial(writer: Writer) -> str:
    """Let the study's last search trial run, and return its id."""
    last = next(row for row in reversed(writer.trials) if row["phase"] == "search")
    last |= {"state": "RUNNING", "ended": None, "epochs_done": 0}
    trial_id: str = last["trial_id"]
    return trial_id


def test_skip_button_asks_the_driver_to_end_a_running_search_trial(writer: Writer) -> None:
    trial_id, folder = start_search_trial(writer), writer.write()
    with lock_study(folder):
        client = visit(folder.parent)
        assert f'action="/study/fake/skip/{trial_id}"' in client.get("/study/fake").text
        assert client.post(f"/study/fake/skip/{trial_id}").status_code == 303
        assert read_skip_requests(folder) == {trial_id}
        page = client.get("/study/fake").text
        assert "skipped after this epoch" in page
        assert "/skip/" not in page


def test_only_running_search_trials_are_skipped(writer: Writer) -> None:
    trial_id, confirm = start_search_trial(writer), next(row for row in writer.trials if row["phase"] == "confirm")
    ended = next(row["trial_id"] for row in writer.trials if row["phase"] == "search")
    confirm |= {"state": "RUNNING", "ended": None}
    folder = writer.write()
    assert visit(folder.parent).post(f"/study/fake/skip/{trial_id}").status_code == 409  # no driver
    with lock_study(folder):
        client = visit(folder.parent)
        assert client.get("/study/fake").text.count("/skip/") == 1
        for other in (confirm["trial_id"], ended, "absent"):
            answer = client.post(f"/study/fake/skip/{other}")
            assert answer.status_code == 409
            assert "no running search trial" in answer.text
        assert visit(folder.parent, read_only=True).post(f"/study/fake/skip/{trial_id}").status_code == 403
    assert not read_skip_requests(folder)


def test_a_link_presses_no_button(storage: Path) -> None:
    with lock_study(storage / "fake"):
        assert visit(storage).get("/study/fake/stop").status_code == 405
        assert not is_stop_requested(storage / "fake")


def test_command_names_what_is_wrong_with_its_storage_or_port(tmp_path: Path) -> None:
    answer = CliRunner().invoke(main, ["ui", str(tmp_path / "absent"), "--port", "0"])
    assert answer.exit_code == 2
    assert "no folder" in answer.output
    with bind_loopback(0) as taken:
        taken.listen()
        answer = CliRunner().invoke(main, ["ui", str(tmp_path), "--port", str(taken.getsockname()[1])])
    assert answer.exit_code == 2
    assert "give another with --port" in answer.output


def test_page_is_bound_to_loopback_alone() -> None:
    with bind_loopback(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
