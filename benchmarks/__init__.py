"""Benchmarks: one command each, which prints a table and RESULT lines. RESULTS.md holds the latest figures."""
