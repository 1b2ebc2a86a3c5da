"""The fixture of tests/study by which digests of code are computed once."""

from tests.study.conftest import digests_once

__all__ = ["digests_once"]
