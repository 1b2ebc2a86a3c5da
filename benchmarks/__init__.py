"""Measured claims, each one command with a table as output; RESULTS.md holds the last figures."""
