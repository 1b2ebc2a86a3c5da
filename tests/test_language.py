"""Rules of names and English that a test can keep: how docstrings begin, words to avoid, participles as names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path for folder in ("study", "trainables", "reports", "spaces") for path in (ROOT / folder).rglob("*.py")
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

NOUN_CLAUSE = re.compile(r"(What|Who|Whether|Which|How|Why|Where|Of|So many|As|That|When)\b")
"""A docstring is a verb in the imperative or a noun phrase, not a clause."""

QUESTION = re.compile(r"[^\n]*\?(\n|$)")
"""Space files open with the question that their study asks."""

AVOIDED = re.compile(r"\b(beside|anew|so many|amiss|mend(ed|s)?|whoever|nobody|goes on|told|tells)\b", re.IGNORECASE)
"""Words for which plain English has better ones; people tell, code does not."""

NOT_A_VERB = re.compile(
    r"_*(told|taught|shown|held|located|compared|summed|drawn|kept|found|made|seen|said|asked|given|taken|written|begun"
    r"|joined|wrapped|shortened|resolved|left|lost|placed|listed|marked|counted|measured|decoded|opened|sealed|stored"
    r"|restored|enlarged|upsampled|ended|started|scheduled|gathered|widened|crossed|expanded|altered|scored|refreshed"
    r"|fetched|copied|answered|needed|chosen)(_|$)"
)
"""First words that say what something has become instead of what the function does; properties may."""


@lru_cache(maxsize=1)
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    for node in nodes(path):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            if not any("property" in decorator or "fixture" in decorator for decorator in decorators):
                yield node


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_keeps_the_rules_of_language(path: Path) -> None:
    clauses = [
        f"{place(path, n)} {text[:60]!r}"
        for n, text in docstrings(path)
        if NOUN_CLAUSE.match(text) and not QUESTION.match(text)
    ]
    assert not clauses, "a docstring opens with a noun clause"
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    words = [f"{place(path, n)} {match[0]!r}" for n, line in lines if (match := AVOIDED.search(line))]
    assert not words, "a word to avoid"
    names = [f"{place(path, f.lineno)} {f.name}" for f in functions(path) if NOT_A_VERB.match(f.name)]

    assert not names, "a function's name is a participle"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_keep_the_rules_of_language(path: Path) -> None:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    words = [f"{place(path, n)} {match[0]!r}" for n, line in lines if (match := AVOIDED.search(line))]
    assert not words, "a word to avoid"


def test_readme_fits_on_a_screen_or_two() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1300
