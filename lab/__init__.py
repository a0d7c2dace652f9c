"""A small-dataset diffusion lab: train a conditional model from zero, turn its knobs, see what they do."""

import os
from typing import TYPE_CHECKING, Any

from lab.errors import LabError

if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    # Threads of GNU's OpenMP wait by spinning, by default so long that two commands on the same cores stop each other.
    os.environ["GOMP_SPINCOUNT"] = "10000"  # turns; read when torch is loaded: where that was before, it is too late

if TYPE_CHECKING:
    from lab.runs import load

__all__ = ["LabError", "__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`lab.load`, imported when first asked for: most of the library needs neither Hydra nor open_clip."""
    if name == "load":
        from lab.runs import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
