"""A hook of mkdocs: the pages of the reference, from the names that `study` and `trainables` offer to space files."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TITLES = {
    "studies": "What a study is made of: `from study import …`",
    "tasks": "Tasks: `from trainables import …`",
    "losses": "Losses: `from trainables import …`",
    "models": "Nets: `from trainables import …`",
    "data": "Data sets: `from trainables import …`",
    "training": "Teachers, recipes, schedules and views: `from trainables import …`",
}
PAGES = {"task": "tasks", "teacher": "training"}
"""Pages that are not named like the subpackage of trainables that a name is from."""

FIRST = ("study.study.Study", "study.arm.Arm", "study.study.Budget", "trainables.losses.logits")
"""Names, or packages, that open their page; all others follow in the stubs' order."""
LAST = ("trainables.losses.common", "trainables.data.arrays")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each part, with the docstrings of its names in an order to read."""
    root = Path(config.config_file_path).parent
    names = defaultdict(list)
    for package in ("study", "trainables"):
        for statement in ast.parse((root / package / "__init__.pyi").read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.ImportFrom) and statement.module:
                part = statement.module.split(".")[0]
                page = "studies" if package == "study" else PAGES.get(part, part)
                names[page] += [f"{package}.{statement.module}.{alias.name}" for alias in statement.names]
    for page, title in TITLES.items():
        text = "\n\n".join([f"# {title}", *(f"::: {name}" for name in sorted(names.pop(page), key=rank))])
        files.append(File.generated(config, f"reference/{page}.md", content=text))
    if names:
        raise ValueError(f"no page of the reference has {', '.join(names)}: add it to TITLES and to mkdocs.yml")
    return files


def rank(name: str) -> int:
    """Return the place of a name on its page."""
    return next((place for place, one in enumerate(FIRST) if name.startswith(one)), len(FIRST) + name.startswith(LAST))
