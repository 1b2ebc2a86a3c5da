"""Commands on a study that another machine drives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from reports import build, compare
from study.cli.main import main
from study.cli.resume import build_command_words
from study.records.lock import is_stop_requested
from study.records.progress import read_shown_study
from study.storage.lease import acquire_lease
from study.storage.locations import local_path, mirror_of
from study.ui.app import LivePage
from tests.study import s3
from tests.study.s3 import Copy
from tests.study.storage.test_lease import run


@pytest.mark.usefixtures("hurried")
def test_commands_show_stop_and_report_a_study_from_another_machine(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    address = f"s3://{s3.BUCKET}/{tmp_path.name}"
    call = CliRunner().invoke
    with acquire_lease(here / "toy"):
        run(here)
        s3.wait_until(lambda: mirror_of(here).read_text("toy/study.json") is not None)
        copy("other")
        (listed,) = json.loads(call(main, ["list", "--storage-path", address, "--json"]).stdout)
        assert (listed["name"], listed["state"], listed["done"]) == ("toy", "running", 15)
        assert "is being run already" in call(main, ["resume", f"{address}/toy"]).stderr
        asked = call(main, ["stop", "toy", "--storage-path", address, "--wait", "0"])
        assert asked.exit_code == 1, asked.output
        s3.wait_until(lambda: is_stop_requested(here / "toy"))
    told = json.loads(call(main, ["show", f"{address}/toy", "--json"]).stdout)
    assert (told["state"], told["next"]) == ("finished", f"write its report: python -m reports.build {address}/toy")
    folder = local_path(address) / "toy"
    assert build_command_words(folder, read_shown_study(folder), []) == ["toy.py", "--storage-path", address]
    page = call(build.main, [f"{address}/toy"])
    assert page.stdout == f"{address}/toy/report.html\n", page.output
    assert "report.html" in s3.objects(endpoint, f"{tmp_path.name}/toy")
    run(tmp_path / "folder")
    beside = call(
        compare.main, [f"{address}/toy", str(tmp_path / "folder" / "toy"), "--out", str(tmp_path / "page.html")]
    )
    assert beside.exit_code == 0, beside.output
    assert (tmp_path / "page.html").is_file()
    nothing = call(main, ["show", f"{address}/nothing"])
    assert nothing.exit_code == 2
    assert nothing.stderr.startswith(f"error: no study 'nothing' below {address} (there are: toy)")


@pytest.mark.usefixtures("hurried")
def test_live_page_shows_and_stops_a_study_that_another_machine_drives(copy: Copy, tmp_path: Path) -> None:
    here = copy()
    with acquire_lease(here / "toy"):
        run(here)
        s3.wait_until(lambda: mirror_of(here).read_text("toy/study.json") is not None)
        copy("other")
        page = LivePage(f"s3://{s3.BUCKET}/{tmp_path.name}", False).make_app("secret")
        visitor = TestClient(page, "http://127.0.0.1", headers={"Authorization": "token secret"})
        assert "/study/toy" in visitor.get("/").text
        assert "student / searched" in (shown := visitor.get("/study/toy").text)
        assert "running" in shown
        assert visitor.post("/study/toy/stop", follow_redirects=False).status_code == 303
        s3.wait_until(lambda: is_stop_requested(here / "toy"))
