"""Shim: `python -m study.run SPACE` runs the command in study/cli/run.py."""

from study.cli.run import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
