"""What people look at: captioned grids, loss curves, pages, each image with the facts of its making."""

from lab.render.curves import figure_image, loss_curve, style
from lab.render.grid import grid
from lab.render.images import Images, to_pil, to_uint8
from lab.render.page import Section, page
from lab.render.provenance import read_provenance, save_image, write_sidecar

__all__ = [
    "Images",
    "Section",
    "figure_image",
    "grid",
    "loss_curve",
    "page",
    "read_provenance",
    "save_image",
    "style",
    "to_pil",
    "to_uint8",
    "write_sidecar",
]
