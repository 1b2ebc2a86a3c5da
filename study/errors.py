"""The one exception that means: the user gave something that cannot work."""


class InputError(Exception):
    """Bad input: what was given, what is allowed, the way out. Shown as one line, exit code 2."""
