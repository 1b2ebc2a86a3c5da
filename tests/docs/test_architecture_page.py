"""docs/architecture.md shows the packages there are, and the order in which they may import."""

from __future__ import annotations

from pathlib import Path

from tests.test_architecture import LAYERS, ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_page_names_every_package() -> None:
    folders = {path.parent for top in LAYERS for path in (ROOT / top).rglob("*.py")}
    missing = [
        name
        for folder in folders
        if f"`{(name := folder.relative_to(ROOT).as_posix())}/`" not in PAGE
        and folder.parent.name not in ("tasks", "data", "models", "losses")
    ]
    assert not missing, "packages that the page lacks"


def test_page_shows_the_order_of_imports() -> None:
    words = PAGE.replace("\n", " ").split()
    for top, layers in LAYERS.items():
        order = [name for name in layers.split() if name not in ("run", "__main__")]
        assert " ".join([top, *order]) in " ".join(words), f"the page's order of {top} is another"


def test_files_that_the_page_names_exist() -> None:
    names = {word.strip("`,.;:()") for word in PAGE.split() if word.strip("`,.;:()").endswith(".py")}
    for name in names:
        assert any(path.as_posix().endswith(name) for path in ROOT.rglob(Path(name).name)), f"{name} does not exist"
