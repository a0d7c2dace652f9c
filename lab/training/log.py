"""The training log: a CSV file that survives a kill and goes on after a resume."""

import csv
from pathlib import Path

from lab.errors import LabError
from lab.render.provenance import write_whole


class TrainingLog:
    """Rows of numbers keyed by step, each flushed as it is written.

    A resumed run cuts the rows after its step and appends. Columns are fixed by the first row; a number that
    comes later under a new name rewrites the header once.
    Raises LabError for a file that is no such log, and where it cannot be written.
    """

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        self.path = path
        try:
            self.rows = [row for row in read_rows(path) if int(row["step"]) <= resume_step]
        except (KeyError, TypeError, ValueError) as error:
            raise LabError(f"{path}: is not a training log; move it away to go on with the run") from error
        self.columns = list(self.rows[0]) if self.rows else []
        self._rewrite()

    def write(self, row: dict[str, float]) -> None:
        """Append a row; `row["step"]` counts finished steps. Floats keep all their digits."""
        texts = {key: repr(value) for key, value in row.items()}
        self.rows.append(texts)
        new = [key for key in row if key not in self.columns]
        if new:
            self.columns += new
            self._rewrite()
            return
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns, restval="").writerow(texts)
        except OSError as error:
            raise LabError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def _rewrite(self) -> None:
        if self.rows:
            write_whole(self.path, self._write_all)
        else:
            self.path.unlink(missing_ok=True)

    def _write_all(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log, a half-written last line left out; [] where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = file.read().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return list(csv.DictReader(whole))
