"""Oxford 102 Flowers (Nilsback and Zisserman, "Automated flower classification", ICVGIP 2008)."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import Flowers102

from lab.data import cache
from lab.data.base import ImageSet, Split, check_sizes, check_split, check_workers, fingerprint, stored_side
from lab.data.images import decode
from lab.errors import LabError
from lab.folders import absent, remove_empty

log = logging.getLogger(__name__)

# The official train split has but ten images a class; most are in the test split, so the lab trains on both.
OFFICIAL = {"train": ("train", "test"), "held_out": ("val",)}


class Oxford102:
    """8189 photos, 102 kinds of flower: 7169 (official train + test) to train on, 1020 (val) held out."""

    def __init__(
        self,
        image_size: int = 64,
        root: str | None = None,
        cache_dir: str = "datasets",
        download: bool = True,
        crop_margin: float = 0.125,
        workers: int | None = None,
    ) -> None:
        """Nothing is read before `load`. Raises LabError where the sizes are impossible.

        root: what torchvision's Flowers102 calls root; else the environment's FLOWERS102_ROOT, else
        `cache_dir`/oxford102, the one place that is downloaded to.
        workers: decoding threads, None for one a core.
        """
        check_sizes(image_size, crop_margin)
        check_workers(workers)
        self.image_size = image_size
        self.side = stored_side(image_size, crop_margin)
        self.cache_dir = Path(cache_dir)
        self.given_root = root or os.environ.get("FLOWERS102_ROOT")
        self.download = download
        self.workers = workers

    def load(self, split: Split) -> ImageSet:
        """The decoded split; raises LabError where files are missing, damaged or cannot be downloaded."""
        check_split(split)
        root = self._root()
        paths, labels = self._files(root, split)
        files = [_describe(path, root) for path in paths]
        key = fingerprint("oxford102", split, self.side, files)
        pixels = cache.load_or_build(
            self.cache_dir / "cache", f"oxford102-{split}-{key}", self.side, lambda: self._rows(paths)
        ).pixels
        return ImageSet(
            "oxford102",
            pixels,
            torch.tensor(labels),
            tuple(Flowers102.classes),
            self.image_size,
            captions=(),
            factors=(),
            fingerprint=key,
            files=tuple(name for name, _ in files),
        )

    def _rows(self, paths: list[Path]) -> Iterator[np.ndarray]:
        """The squares of all files: a set with a fixed protocol is whole or refused."""
        for row in decode(paths, self.side, self.workers):
            if isinstance(row, LabError):
                raise row
            yield row

    def _files(self, root: Path, split: Split) -> tuple[list[Path], list[int]]:
        """Paths and labels, in the official order."""
        # With this loader an item is (path, label).
        parts = [Flowers102(root, part, loader=Path) for part in OFFICIAL[split]]
        items = [part[i] for part in parts for i in range(len(part))]
        return [path for path, _ in items], [label for _, label in items]

    def _root(self) -> Path:
        """The folder that holds flowers-102, downloading it where it may be."""
        root = Path(self.given_root) if self.given_root else self.cache_dir / "oxford102"
        if _is_there(root):
            return root
        if self.given_root or not self.download:
            raise LabError(f"no Oxford 102 Flowers under {root}: {REMEDY}")
        log.info("downloading Oxford 102 Flowers (345 MB) to %s", root)
        lock, made = root.with_name(f"{root.name}.lock"), absent(root / "flowers-102")
        try:
            with cache.locked(lock):
                Flowers102(root, download=True)
        except Exception as error:  # torchvision lets many kinds through: network, archive, checksum
            lock.unlink(missing_ok=True)
            remove_empty(made)
            raise LabError(
                f"no Oxford 102 Flowers under {root} and no download ({' '.join(str(error).split())}): {REMEDY}"
            ) from error
        return root


REMEDY = (
    "set data.root (or FLOWERS102_ROOT) to the folder that holds flowers-102, "
    "or use data=petals, which needs no download"
)


def _is_there(root: Path) -> bool:
    """Whether torchvision finds the set there, label files intact."""
    try:
        Flowers102(root)
    except RuntimeError:
        return False
    return True


def _describe(path: Path, root: Path) -> tuple[str, int]:
    """Path below the root and size in bytes, which tells a resized copy from the originals; 0 if missing."""
    return path.relative_to(root).as_posix(), path.stat().st_size if path.exists() else 0
