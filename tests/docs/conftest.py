"""The fixtures of tests/reports: the documents' examples run on the same finished study."""

from tests.reports.conftest import study, writer

__all__ = ["study", "writer"]
