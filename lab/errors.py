"""The one exception that is the user's business."""


class LabError(Exception):
    """A user's mistake: one line that names the key or the file and says what would be right.

    Entry points print the line and exit with code 2; a notebook sees an ordinary exception.
    """
