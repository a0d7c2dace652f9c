"""CLIP: pretrained open_clip models, the lab's own small one, and vectors of images and sentences.

`FlowerClipTask`, which trains the small one, is in `lab.clip.task`: it needs the training loop's protocol.
"""

from lab.clip.captions import CaptionMaker, Captions
from lab.clip.load import load_clip
from lab.clip.model import Clip
from lab.clip.retrieval import retrieval
from lab.clip.store import save_clip
from lab.clip.vectors import VectorStats, clip_vectors, vector_stats

__all__ = [
    "CaptionMaker",
    "Captions",
    "Clip",
    "VectorStats",
    "clip_vectors",
    "load_clip",
    "retrieval",
    "save_clip",
    "vector_stats",
]
