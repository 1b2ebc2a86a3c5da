"""The page opened from disk in a headless Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.build import build
from tests.reports.fake_study import METRICS, Writer
from tests.reports.page.browser import CHROMIUM, visit

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


@pytest.fixture
def page(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page of a study with a hostile arm name, with all figures."""
    metrics = {**METRICS, "val/loss": "min", TEACHER_DISTANCE: "min"}
    monkeypatch.setattr("tests.reports.fake_study.METRICS", metrics)
    monkeypatch.setattr("tests.reports.fake_study.TRIALS", 48)
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
    return build(writer.write())


def test_browser_records_requests_and_errors_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("bad"); missing()</script>')
    seen = visit(page.as_uri(), tmp_path / "profile", ["1 + 1"])
    assert "http://127.0.0.1:9/x.png" in seen.requests
    assert any("bad" in error for error in seen.errors)
    assert any("missing is not defined" in error for error in seen.errors)
    assert seen.results == [2]


def test_page_draws_every_figure_and_requests_nothing(page: Path, tmp_path: Path) -> None:
    seen = visit(page.as_uri(), tmp_path / "profile", [DRAWN, LINKS, TEXT])
    drawn, links, text = seen.results
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


def test_trials_are_filtered_by_menus_and_words(page: Path, tmp_path: Path) -> None:
    seen = visit(page.as_uri(), tmp_path / "profile", [FILTER])
    assert seen.errors == []
    first, more, failed, of_dkd, of_searched, every, stopped, none = seen.results[0]
    assert first == ["104 of 104 trials match", 100]
    assert more == ["104 of 104 trials match", 104]
    assert failed == of_searched == ["2 of 104 trials match", 2]
    assert of_dkd == none == ["0 of 104 trials match", 0]
    assert every == ["56 of 104 trials match", 56]
    assert stopped == ["15 of 104 trials match", 15]  # of 16, one failed


@pytest.mark.parametrize(
    ("width", "scheme", "ink"), [(390, "dark", "rgb(214, 219, 225)"), (390, "light", "rgb(27, 31, 36)")]
)
def test_page_on_a_phone_fits_in_both_themes(page: Path, tmp_path: Path, width: int, scheme: str, ink: str) -> None:
    seen = visit(page.as_uri(), tmp_path / "profile", [DRAWN, OVERFLOW, TICKS, MARKS_SHARES], width, scheme)
    drawn, overflow, ticks, shares = seen.results
    assert seen.errors == []
    assert [title for title, marks in drawn if not marks] == []
    assert overflow <= 0
    assert set(ticks) == {ink}
    assert [title for title, share in shares if share < 0.5] == []
