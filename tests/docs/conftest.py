"""The fixtures of tests/reports: the documents' examples run on the same finished study."""

from tests.reports.conftest import finished, reported, study, writer

__all__ = ["finished", "reported", "study", "writer"]
