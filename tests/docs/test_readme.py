"""README.md: its badges state what pyproject.toml does, and its example is a study."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import unquote

from study import Study

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_badges_are_true() -> None:
    badges = dict(re.findall(r"img\.shields\.io/badge/(\w+)-(.*?)-blue", README))
    known = [name.removeprefix("Programming Language :: Python :: ") for name in PROJECT["classifiers"]]
    assert unquote(badges["python"]).split(" | ") == [name for name in known if re.fullmatch(r"3\.\d+", name)]
    assert badges["license"].replace("--", "-") == PROJECT["license"]


def test_version_of_the_citation_is_the_package_s() -> None:
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_example_is_a_study() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["study"], Study)
