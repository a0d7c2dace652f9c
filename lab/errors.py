"""The one exception that is the user's business."""


class LabError(Exception):
    """A user's mistake: one line that names the key or the file and says what would be right.

    Entry points print the line and exit with code 2; a notebook sees an ordinary exception.
    """


class Stopped(Exception):
    """A run ended early, as a signal asked it to, with everything saved that it takes to go on.

    signal: its number; the commands end with exit code 128 + signal, as shells expect.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
