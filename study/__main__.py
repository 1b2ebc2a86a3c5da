"""Shim: `python -m study COMMAND` runs the commands in study/cli/main.py."""

from study.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
