"""Any folder of pictures, with sub-folders as classes or without."""

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from lab.data import cache
from lab.data.base import ImageSet, Split, check_sizes, check_split, check_workers, fingerprint, stored_side
from lab.data.images import decode
from lab.errors import LabError

log = logging.getLogger(__name__)


class Folder:
    """All files below a folder, hidden ones apart; classes are its sub-folders where it has any.

    Held out are the files whose path hashes below `held_out_fraction`, so that a file stays on its side when
    others come or go. Each class keeps at least one image to train on, and at least one image is held out if
    any class can spare it. Pictures smaller than `image_size` are enlarged.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 64,
        held_out_fraction: float = 0.1,
        on_bad_file: Literal["error", "skip"] = "error",
        classes: bool | None = None,
        cache_dir: str = "datasets",
        crop_margin: float = 0.125,
        workers: int | None = None,
    ) -> None:
        """Nothing is read before `load`. Raises LabError where a value is impossible.

        on_bad_file: refuse the folder because of a file that is no sound image, or log a warning and go on.
        classes: whether sub-folders are classes; None: if there are any.
        workers: decoding threads, None for one a core.
        """
        check_sizes(image_size, crop_margin)
        check_workers(workers)
        if not 0 <= held_out_fraction < 1:
            raise LabError(f"data.held_out_fraction={held_out_fraction}: must be at least 0 and below 1")
        if on_bad_file not in ("error", "skip"):
            raise LabError(f"data.on_bad_file={on_bad_file!r}: choose error or skip")
        self.root = Path(root)
        self.image_size = image_size
        self.side = stored_side(image_size, crop_margin)
        self.held_out_fraction = held_out_fraction
        self.on_bad_file = on_bad_file
        self.classes = classes
        self.cache_dir = Path(cache_dir)
        self.workers = workers

    def load(self, split: Split) -> ImageSet:
        """The decoded split; raises LabError naming the folder, class or file that is missing or unfit."""
        check_split(split)
        by_class = self._by_class()
        held_out = self._held_out(by_class)
        items = [
            (path, label)
            for label, paths in enumerate(by_class.values())
            for path in paths
            if (path in held_out) == (split == "held_out")
        ]
        if not items:
            raise LabError(
                f"{self.root}: data.held_out_fraction={self.held_out_fraction} holds nothing out; "
                "raise it, or add images where a class has just one"
            )
        return self._image_set(split, items, tuple(name for name in by_class if name))

    def _image_set(self, split: Split, items: list[tuple[Path, int]], names: tuple[str, ...]) -> ImageSet:
        """Decode the files, or find them decoded."""
        paths = [path for path, _ in items]
        files = [self._describe(path) for path in paths]
        key = fingerprint("folder", split, self.side, self.on_bad_file, files)
        pixels, skipped = cache.load_or_build(
            self.cache_dir / "cache", f"folder-{split}-{key}", self.side, lambda: self._rows(paths)
        )
        for reason in skipped.values():
            log.warning("skipped %s", reason)
        kept = [label for i, (_, label) in enumerate(items) if i not in skipped]
        kept_files = tuple(name for i, (name, *_) in enumerate(files) if i not in skipped)
        self._check_kept(split, kept, names)
        labels = torch.tensor(kept) if names else torch.full((len(kept),), -1)
        return ImageSet(
            self.root.resolve().name,
            pixels,
            labels,
            names,
            self.image_size,
            captions=(),
            factors=(),
            fingerprint=key,
            files=kept_files,
        )

    def _check_kept(self, split: Split, labels: list[int], names: tuple[str, ...]) -> None:
        """Raise LabError where bad files leave nothing, or a class with nothing to train on."""
        if not labels:
            raise LabError(f"{self.root}: no sound image in its {split} part; see the warnings for each file")
        empty = sorted(set(range(len(names))) - set(labels)) if split == "train" else []
        if empty:
            raise LabError(
                f"{self.root / names[empty[0]]}: a class with no sound image to train on; "
                "add images or remove the sub-folder"
            )

    def _rows(self, paths: list[Path]) -> Iterator[np.ndarray | LabError]:
        """The square of each file; an unfit file is passed on or refused, as configured."""
        for row in decode(paths, self.side, self.workers):
            if isinstance(row, LabError) and self.on_bad_file == "error":
                raise LabError(f"{row}, or set data.on_bad_file=skip")
            yield row

    def _by_class(self) -> dict[str, list[Path]]:
        """Files of each class in order of their names; one class named "" where there are no classes."""
        if not self.root.is_dir():
            raise LabError(f"data.root={self.root}: no such folder; set it to a folder of images")
        folders = sorted(p for p in self.root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if self.classes is False or (self.classes is None and not folders):
            by_class = {"": self._files(self.root)}
        elif not folders:
            raise LabError(f"{self.root}: no sub-folders to be classes; add them or set data.classes=false")
        else:
            by_class = {folder.name: self._files(folder) for folder in folders}
            self._check_nothing_loose()
        for name, paths in by_class.items():
            if not paths:
                raise LabError(f"{self.root / name}: no image in this folder; add some or remove it")
        return by_class

    def _check_nothing_loose(self) -> None:
        """Raise LabError where files lie beside the class folders: they have no class."""
        loose = sorted(p for p in self.root.iterdir() if p.is_file() and not p.name.startswith("."))
        if loose:
            raise LabError(f"{loose[0]}: lies beside class folders; move it or set data.classes=false")

    def _files(self, folder: Path) -> list[Path]:
        """All files below a folder, save hidden ones and those in hidden folders, in a fixed order."""
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        return [folder / name for name in names if not any(part.startswith(".") for part in name.split("/"))]

    def _held_out(self, by_class: dict[str, list[Path]]) -> set[Path]:
        """The files that are kept from training."""
        if self.held_out_fraction == 0:
            return set()
        ranked = [sorted(paths, key=self._chance) for paths in by_class.values()]
        spare = [path for paths in ranked for path in paths[:-1]]  # each class keeps one
        chosen = {path for path in spare if self._chance(path) < self.held_out_fraction}
        return chosen or set(sorted(spare, key=self._chance)[:1])

    def _chance(self, path: Path) -> float:
        """A number in [0, 1) that the path within the folder alone decides."""
        name = os.fsencode(path.relative_to(self.root).as_posix())  # which may be no UTF-8
        return int.from_bytes(hashlib.sha256(name).digest()[:6], "little") / 2**48

    def _describe(self, path: Path) -> tuple[str, int, int]:
        """What changes with the file: its path within the folder, size in bytes and time of change in ns."""
        status = path.stat()
        return path.relative_to(self.root).as_posix(), status.st_size, status.st_mtime_ns
