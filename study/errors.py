"""The exception for input that cannot work."""


class InputError(Exception):
    """Invalid input: the message states what was given, what is allowed and the way out.

    Printed as one line; the process exits with code 2.
    """
