"""The live page in a headless Chromium: what it requests and draws, updates by events, and the buttons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.build import build
from study.records.lock import is_stop_requested, lock_study, read_skip_requests
from tests.reports.fake_study import Writer
from tests.reports.page.browser import CHROMIUM, Browser
from tests.reports.page.test_browser import DRAWN, OVERFLOW
from tests.study.ui.conftest import TOKEN

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the page")]

LOADED = """(async () => {
  const plots = () => [...document.querySelectorAll(".plot")];
  for (let wait = 0; wait < 600 && plots().some((plot) => !plot.querySelector(".main-svg .xy")); wait++)
    await new Promise((go) => setTimeout(go, 100));
})()"""
"""Figures of the live page come by the first event, which a busy machine sends late."""
WAIT = """(async () => {
  for (let wait = 0; wait < 300 && !document.body.innerText.includes(%r); wait++)
    await new Promise((go) => setTimeout(go, 100));
  return document.body.innerText;
})()"""
PRESS = """(() => {
  window.confirm = () => true;
  document.querySelector(%r).click();
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def running(writer: Writer) -> str:
    """The id of the study's running search trial."""
    last = next(row for row in reversed(writer.trials) if row["phase"] == "search")
    last |= {"state": "RUNNING", "ended": None, "epochs_done": 0}
    trial_id: str = last["trial_id"]
    return trial_id


def test_study_is_drawn_and_follows_its_buttons_without_other_requests(
    browser: Browser, running: str, storage: Path, address: str
) -> None:
    folder = storage / "fake"
    with lock_study(folder):
        skip, stop = PRESS % f'[data-key="skip-{running}"]', PRESS % '[data-key="stop"]'
        steps = [
            LOADED,
            DRAWN,
            skip,
            WAIT % "skipped after this epoch",
            stop,
            WAIT % "is being stopped",
            DRAWN,
            "location.href",
        ]
        seen = browser.visit(f"{address}/study/fake?token={TOKEN}", steps)
        assert read_skip_requests(folder) == {running}
        assert is_stop_requested(folder)
    _, drawn, _, skipped, _, stopped, drawn_again, location = seen.results
    assert seen.errors == []
    assert {url for url in seen.requests if not url.startswith((f"{address}/", "data:", "blob:"))} == set()
    assert len(drawn) == 3
    assert [title for title, marks in drawn + drawn_again if not marks] == []
    assert "skipped after this epoch" in skipped
    assert "is being stopped" in stopped
    assert location == f"{address}/study/fake"  # updated in place, without the token


FAIL = """(() => {
  window.alert = (problem) => (window.problem = problem);
  window.fetch = () => Promise.reject(new TypeError("Failed to fetch"));
})()"""
PROBLEM = """(async () => {
  for (let wait = 0; wait < 300 && !window.problem; wait++) await new Promise((go) => setTimeout(go, 100));
  return [window.problem, document.querySelector('[data-key="stop"]').disabled];
})()"""


HIDDEN = """(() => {
  const box = document.querySelector("#cells .scroll");
  return [document.querySelector("#cells small").textContent, box.scrollWidth - box.clientWidth];
})()"""


def test_columns_are_not_hidden_and_a_button_can_be_pressed_again_if_no_answer_comes(
    browser: Browser, storage: Path, address: str
) -> None:
    with lock_study(storage / "fake"):
        steps = [LOADED, HIDDEN, FAIL, PRESS % '[data-key="stop"]', PROBLEM]
        seen = browser.visit(f"{address}/study/fake?token={TOKEN}", steps, 1000)
    settings, hidden = seen.results[1]
    assert len(settings) > 80
    assert hidden <= 0
    problem, is_disabled = seen.results[-1]
    assert "`kdstudy ui` does not answer" in problem
    assert not is_disabled
    assert seen.errors == []


PAGES = (("", "light"), ("", "dark"), ("study/fake", "light"), ("study/fake", "dark"), ("study/fake/report", "dark"))
"""Pages and themes. The report is a file, which tests/reports/page/test_browser.py opens in both."""


def test_pages_fit_on_a_phone(browser: Browser, storage: Path, address: str) -> None:
    build(storage / "fake")
    for page, scheme in PAGES:
        seen = browser.visit(f"{address}/{page}?token={TOKEN}", [LOADED, DRAWN, OVERFLOW], 390, scheme)
        _, drawn, overflow = seen.results
        assert seen.errors == [], (page, scheme)
        assert [title for title, marks in drawn if not marks] == [], (page, scheme)
        assert overflow <= 0, (page, scheme)
