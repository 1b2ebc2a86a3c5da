from __future__ import annotations

import pytest

from reports.tables.terminal import format_comparisons
from tests.reports.fake_study import Writer


@pytest.mark.parametrize("width", [80, 110])
def test_printed_comparison_fits_the_terminal(writer: Writer, width: int) -> None:
    writer.study["protocol"] = "P1"
    writer.arms["x" * 300] = [0.9] * 8
    writer.versus["x" * 300] = ["DKD + LP searched"]
    text = format_comparisons(writer.fill().write(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert ("[+2.74, +3.30]" in text) == (width == 110)
    assert "DKD" in text
    assert "better" in text
