"""How often a held-out image finds its own words among all that it might be called."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lab.clip.captions import CaptionMaker, class_prompts, fact_prompts
from lab.clip.model import Clip
from lab.clip.vectors import encode_set
from lab.data import ImageSet


def retrieval(clip: Clip, held_out: ImageSet) -> dict[str, float]:
    """Shares of the images for which the right words are the nearest.

    "top1", "top5": the class name, of all names ("top5": among the nearest five), where the set has classes.
    "<fact>_top1": the fact, of all its values, for facts with prompts of their own: "colour" as measured by
    `dominant_colours`, or the true "petal_colour" and "petal_count" of painted flowers.
    """
    images = encode_set(clip, held_out)[:, 0]
    found: dict[str, float] = {}
    if held_out.class_names:
        names = phrase_vectors(clip, [class_prompts(name) for name in held_out.class_names])
        ranked = (images @ names.T).topk(min(5, len(names)), dim=1).indices == held_out.labels[:, None]
        found = {"top1": _share(ranked[:, 0]), "top5": _share(ranked.any(dim=1))}
    for field, values in CaptionMaker(held_out).facts.items():
        choices = sorted(set(values))
        prompts = [fact_prompts(field, value) for value in choices]
        if prompts[0]:
            right = torch.tensor([choices.index(value) for value in values])
            found[f"{field}_top1"] = _share((images @ phrase_vectors(clip, prompts).T).argmax(dim=1) == right)
    return found


def phrase_vectors(clip: Clip, phrases: Sequence[Sequence[str]]) -> Tensor:
    """(K, dim) of unit norm, the mean over prompts that mean the same (Radford et al. 2021, 3.1.4)."""
    return torch.stack([normalize(clip.encode_text(prompts).mean(dim=0), dim=0) for prompts in phrases]).cpu()


def _share(hits: Tensor) -> float:
    return float(hits.float().mean())
