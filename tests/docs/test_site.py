"""The documentation site that .ci/run has built, opened from disk: its search finds pages without outside requests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.reports.page.browser import CHROMIUM, visit

SITE = os.environ.get("KDSTUDY_SITE", "")
"""Folder that `mkdocs build --site-dir` has written."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SITE or CHROMIUM is None, reason="needs KDSTUDY_SITE and Chromium"),
]

SEARCH = """(async () => {
  document.querySelector("[data-md-toggle=search]").click();
  const query = document.querySelector("[data-md-component=search-query]");
  query.value = "temperature";
  query.dispatchEvent(new Event("keyup"));
  const links = () => [...document.querySelectorAll("a.md-search-result__link")].map((link) => link.href);
  for (let wait = 0; wait < 300 && !links().length; wait++) await new Promise((go) => setTimeout(go, 100));
  return links();
})()"""


def test_search_finds_pages_of_a_site_opened_from_disk(tmp_path: Path) -> None:
    page = (Path(SITE) / "tutorial.html").as_uri()
    seen = visit(page, tmp_path / "profile", [SEARCH])
    (found,) = seen.results
    assert any("/faq.html" in link for link in found)
    assert any("/reference/losses.html" in link for link in found)
    assert {url.split(":")[0] for url in seen.requests} <= {"file", "data", "about"}
    assert seen.errors == []
