"""Leaving nothing behind: which folders a command is about to make, and taking them back where they stayed empty."""

import contextlib
from collections.abc import Sequence
from pathlib import Path


def absent(folder: str | Path) -> list[Path]:
    """The folder and those around it that do not exist yet, innermost first."""
    folder = Path(folder).absolute()
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, as far as they are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
