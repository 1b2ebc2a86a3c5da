"""The commands of `python -m study`, one module each."""
