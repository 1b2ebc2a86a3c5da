"""The lines of --dry-run before its estimate."""

from __future__ import annotations

from pathlib import Path

from study.cli.plan import format_plan
from tests.study.toy import toy


def test_images_in_several_splits_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    found = "3 of 100 test images occur in training or validation"
    lines = format_plan(toy(), {"data": {"name": "faces", "duplicates": found}}, tmp_path)
    assert lines[1:3] == ["data: faces", f"images occur in more than one split: {found}"]
    assert not [
        line for line in format_plan(toy(), {"data": {"name": "faces", "duplicates": ""}}, tmp_path) if "split" in line
    ]
