"""The exception for input that cannot work."""


class InputError(Exception):
    """Invalid input. The message states what was given, what is allowed and the way out; it is printed as one line,
    and the process exits with code 2."""
