"""Data sets held whole in memory, and batches that are a pure function of (seed, step)."""

from lab.data.base import Batch, ImageSet, Source
from lab.data.folder import Folder
from lab.data.images import open_image, opened
from lab.data.oxford102 import Oxford102
from lab.data.petals import Petals
from lab.data.stream import BatchStream

__all__ = ["Batch", "BatchStream", "Folder", "ImageSet", "Oxford102", "Petals", "Source", "open_image", "opened"]
