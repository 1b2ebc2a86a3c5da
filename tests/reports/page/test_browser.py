"""The page opened from disk in a headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.build import build
from tests.reports.fake_study import METRICS, Writer
from tests.reports.page.browser import CHROMIUM, Browser, Visit

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the page")]

HOSTILE = 'DKD <img src=x onerror=alert(1)><script>alert(1)</script> </title> & "x" %{y}'
DRAWN = """(async () => {
  const plots = [...document.querySelectorAll(".plot")];
  for (let wait = 0; wait < 300 && plots.some((plot) => !plot.querySelector(".main-svg .xy")); wait++)
    await new Promise((go) => setTimeout(go, 100));
  await new Promise((go) => setTimeout(go, 500));
  const marks = ".js-line[d^=M], .js-fill[d^=M], .scatterlayer .point, .barlayer .point path[d^=M]";
  return plots.map((plot) => [
    plot.getAttribute("aria-label"),
    [...plot.querySelectorAll(marks)].filter((mark) => mark.getBoundingClientRect().width > 0).length,
  ]);
})()"""
LINKS = """[...document.querySelectorAll("nav a")].map((link) => {
  link.click();
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const { top, bottom } = target.getBoundingClientRect();
  return [link.textContent, top > -5 && top < innerHeight && bottom > 0];
})"""
TEXT = "document.body.innerText"
MARKS_SHARES = """[...document.querySelectorAll(".plot")].map((plot) => [
  plot.getAttribute("aria-label"), plot._fullLayout._size.h / parseFloat(plot.style.minHeight),
])"""
"""Height of each figure's marks as a share of the height that it has without a legend of several lines."""
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
FILTER = """(async () => {
  const [block] = document.querySelectorAll(".filtered");
  for (let wait = 0; wait < 300 && block.hidden; wait++) await new Promise((go) => setTimeout(go, 100));
  const count = () => [block.querySelector("output").textContent, block.querySelector("tbody").rows.length];
  const [arm, phase, state] = block.querySelectorAll("select");
  const [text, more] = ["input", "button"].map((name) => block.querySelector(name));
  const choose = (menu, value) => { menu.value = value; menu.dispatchEvent(new Event("change")); return count(); };
  const write = (words) => { text.value = words; text.dispatchEvent(new Event("input")); return count(); };
  return [
    count(), (more.click(), count()), choose(state, "failed"), choose(arm, "DKD"), choose(arm, "DKD + LP searched"),
    choose(state, ""), write("SEARCH  linear stopped"), write("no such words"),
  ];
})()"""
TICKS = "[...document.querySelectorAll('.xtick text')].map((tick) => getComputedStyle(tick).fill)"

TEACHER_DISTANCE = "train/teacher_distance"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study with a hostile arm name, with all figures."""
    metrics = {**METRICS, "val/loss": "min", TEACHER_DISTANCE: "min"}
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("tests.reports.fake_study.METRICS", metrics)
        changed.setattr("tests.reports.fake_study.TRIALS", 48)
        return build(write_study(Writer(tmp_path_factory.mktemp("hostile") / "fake"), metrics))


def write_study(writer: Writer, metrics: dict[str, str]) -> Path:
    losses = {f"alpha {a}": {"is": "KD", "alpha": a} for a in (0.1, 0.3, 0.5)}
    writer.arms |= {HOSTILE: [0.93] * 8} | {arm: [0.9 + 0.01 * i] * 8 for i, arm in enumerate(losses)}
    writer.versus |= {HOSTILE: "DKD"} | dict.fromkeys(losses, "none")
    writer.study |= {"metrics": metrics, "objectives": ["val/loss"], "question": HOSTILE}
    writer.study["study"]["arms"] += [{"is": "Arm", "name": arm, "loss": loss} for arm, loss in losses.items()]
    for row in writer.fill().trials:
        if row["phase"] == "search" and row["state"] == "COMPLETE":
            row["val/loss"] = row["val/accuracy"] + row["number"] % 3
    for row in writer.epochs:
        row[TEACHER_DISTANCE] = 1.0 / row["epoch"]
    return writer.write()


@pytest.fixture(scope="module")
def seen(browser: Browser, page: Path) -> Visit:
    """What a visit to the page in a wide window found: drawing its figures takes most of a visit."""
    return browser.visit(page.as_uri(), [DRAWN, LINKS, TEXT, FILTER])


def test_browser_records_requests_and_errors_of_a_page(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("bad"); missing()</script>')
    seen = browser.visit(page.as_uri(), ["1 + 1"])
    assert "http://127.0.0.1:9/x.png" in seen.requests
    assert any("bad" in error for error in seen.errors)
    assert any("missing is not defined" in error for error in seen.errors)
    assert seen.results == [2]


def test_page_draws_every_figure_and_requests_nothing(seen: Visit, page: Path) -> None:
    drawn, links, text, _ = seen.results
    assert seen.errors == []
    assert [url for url in seen.requests if not url.startswith(("data:", "blob:"))] == [page.as_uri()]
    assert [title for title, marks in drawn if not marks] == []
    kinds = (
        *("paired differences", "alpha against", "learning curves", "distance to the teacher", "search history"),
        *("validation while searching", "validation accuracy against validation loss", "importance of settings"),
        *("all settings at once", "logits.temperature", "of the best trial", "When trials ran"),
    )
    for kind in kinds:
        assert [title for title, _ in drawn if kind in title], kind
    assert len(drawn) == page.read_text(encoding="utf-8").count('class="data">{')
    assert len(links) >= 7
    assert [name for name, reached in links if not reached] == []
    assert HOSTILE in text


def test_trials_are_filtered_by_menus_and_words(seen: Visit) -> None:
    assert seen.errors == []
    first, more, failed, of_dkd, of_searched, every, stopped, none = seen.results[-1]
    assert first == ["104 of 104 trials match", 100]
    assert more == ["104 of 104 trials match", 104]
    assert failed == of_searched == ["2 of 104 trials match", 2]
    assert of_dkd == none == ["0 of 104 trials match", 0]
    assert every == ["56 of 104 trials match", 56]
    assert stopped == ["15 of 104 trials match", 15]  # of 16, one failed


@pytest.mark.parametrize(
    ("width", "scheme", "ink"), [(390, "dark", "rgb(214, 219, 225)"), (390, "light", "rgb(27, 31, 36)")]
)
def test_page_on_a_phone_fits_in_both_themes(browser: Browser, page: Path, width: int, scheme: str, ink: str) -> None:
    seen = browser.visit(page.as_uri(), [DRAWN, OVERFLOW, TICKS, MARKS_SHARES], width, scheme)
    drawn, overflow, ticks, shares = seen.results
    assert seen.errors == []
    assert [title for title, marks in drawn if not marks] == []
    assert overflow <= 0
    assert set(ticks) == {ink}
    assert [title for title, share in shares if share < 0.5] == []
