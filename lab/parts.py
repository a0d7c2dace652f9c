"""What a long computation has made, kept piece by piece: started again, it goes on from what it has."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lab.render.provenance import as_json, write_whole

Part = dict[str, Tensor]


def named(kind: str, rows: Tensor) -> str:
    """What the piece of these rows, which follow each other, is called: other batches have other pieces."""
    return f"{kind}_{int(rows[0]):06d}_{int(rows[-1]):06d}"


class Parts:
    """Pieces of one computation under `folder`/parts.

    facts   all that the pieces depend on; pieces of other facts are removed when the first new one is written.
            Where the run lies ("run") and how many are made at a time ("batch_size") are not told apart

    Raises LabError where a piece cannot be written.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        told = as_json({key: value for key, value in facts.items() if key not in ("run", "batch_size")})
        self.root = folder / "parts"
        self.folder = self.root / hashlib.sha256(told.encode()).hexdigest()[:16]
        self._note = json.loads(told)

    def get(self, name: str, make: Callable[[], Part]) -> Part:
        """The tensors of piece `name`, read where it is there and sound, else made and written."""
        path = self.folder / f"{name}.safetensors"
        try:
            return load_file(path)
        except (SafetensorError, OSError):  # none yet, or damaged
            part = {key: tensor.contiguous() for key, tensor in make().items()}
        self.open()
        write_whole(path, lambda staged: staged.write_bytes(save(part)))
        return part

    def has(self, name: str) -> bool:
        """Whether piece `name` was made before."""
        return (self.folder / f"{name}.safetensors").is_file()

    def open(self) -> None:
        """The folder made, and pieces of other facts removed; processes that share it let one of them do it first."""
        if self.folder.is_dir():
            return
        for others in self.root.glob("*/facts.json"):  # nothing else that may lie there is the lab's
            shutil.rmtree(others.parent, ignore_errors=True)
        write_whole(self.folder / "facts.json", lambda staged: staged.write_text(json.dumps(self._note, indent=2)))
