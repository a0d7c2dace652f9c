"""What people look at: captioned grids, curves, videos, pages, each with the facts of its making."""

from lab.render.curves import figure_image, loss_curve, style
from lab.render.grid import grid
from lab.render.images import Images, from_uint8, to_pil, to_uint8
from lab.render.page import Scrub, Section, page
from lab.render.provenance import read_provenance, save_image, write_sidecar
from lab.render.video import check_video, save_video

__all__ = [
    "Images",
    "Scrub",
    "Section",
    "check_video",
    "figure_image",
    "from_uint8",
    "grid",
    "loss_curve",
    "page",
    "read_provenance",
    "save_image",
    "save_video",
    "style",
    "to_pil",
    "to_uint8",
    "write_sidecar",
]
