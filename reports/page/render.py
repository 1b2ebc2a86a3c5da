"""HTML from the templates in this folder: the page of one study, and the page that compares several.

Both are self-contained. A content-security policy forbids them to load anything and to run any script but their own,
which it names by hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

FOLDER = Path(__file__).parent
DOT_IN_NAME = re.compile(r"(?<=[A-Za-z_])\.(?=[A-Za-z_])")


def render_report(content: Mapping[str, Any]) -> str:
    """Return the page of one study as HTML; `content` has the names that page.html uses."""
    drawing, filtering = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.js", "filter.js"))
    plotly = get_plotlyjs().replace("</script", "<\\/script")
    scripts = {"plotly": plotly, "drawing": drawing, "filtering": filtering}
    return render_template("page.html", {**content, **scripts}, tuple(scripts.values()))


def render_template(name: str, content: Mapping[str, Any], scripts: tuple[str, ...] = ()) -> str:
    """Return the template `name` as HTML, under a policy that allows `scripts` alone."""
    return _load_environment().get_template(name).render({**content, "policy": _make_policy(scripts)})


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path` such that readers see the old page or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


@lru_cache
def _load_environment() -> jinja2.Environment:
    """Return the environment of the templates; it keeps those that it has compiled."""
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(FOLDER), undefined=jinja2.StrictUndefined
    )
    environment.filters["class_name"] = lambda block: type(block).__name__
    environment.filters["allow_breaks"] = allow_breaks
    return environment


def allow_breaks(text: str) -> Markup:
    """Return `text` as HTML whose lines may break behind the dots of names such as recipe.learning_rate.start."""
    return Markup(DOT_IN_NAME.sub(".<wbr>", str(escape(text))))


def _make_policy(scripts: tuple[str, ...]) -> str:
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = "".join(f" 'sha256-{value}'" for value in hashes)
    run = f"script-src{allowed}; " if scripts else ""
    images = "img-src data: blob:; " if scripts else ""
    # Plotly sets style attributes on its SVG, which a policy can only allow for all styles at once.
    return f"default-src 'none'; {run}style-src 'unsafe-inline'; {images}base-uri 'none'; form-action 'none'"
