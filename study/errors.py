"""The exception for input that cannot work."""


class InputError(Exception):
    """Invalid input: the message states what was given, what is allowed and the way out.

    Printed as one line, also where it quotes another error's lines; the process exits with code 2.
    """

    def __str__(self) -> str:
        lines = (line.strip() for line in super().__str__().splitlines())
        return "; ".join(line for line in lines if line)
