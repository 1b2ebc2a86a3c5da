"""One model family a file. A student is a frozen dataclass with a name and `build(channels, classes)`."""
