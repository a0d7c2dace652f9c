"""open_clip's contrastive loss, with all true captions of a batch as targets rather than each image's own."""

import torch.distributed as dist
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn.functional import cross_entropy


def targets(truth: Tensor, partners: Tensor | None = None, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(B, B) targets of images over captions and of captions over images, each row spread over what is true.

    truth (B, B) bool: whether caption j is true of image i. Of images that are blended with their partners (B,),
    weight (B,) being their own share, both have their part of an image's row; so they have of a caption's.
    """
    by_image, by_text = (true / true.sum(dim=1, keepdim=True) for true in (truth.float(), truth.T.float()))
    if partners is not None and weight is not None:
        by_image = _blended(by_image, partners, weight)
        by_text = _blended(truth.float(), partners, weight).T
        by_text = by_text / by_text.sum(dim=1, keepdim=True)
    return by_image, by_text


def matching_loss(
    images: Tensor, texts: Tensor, scale: Tensor, image_targets: Tensor, text_targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss (b,) and logits (b, B) of this process's unit vectors (b, D) against those of all processes.

    A caption drawn for one image is true of others that share a class or a colour. Counting those as
    negatives would push apart what belongs together, so targets spread over all that is true (Yang et al.
    2022, "Unified contrastive learning in image-text-label space", eq. 3). Where each caption is true of one
    image only, the mean is open_clip's ClipLoss. Its gradient, averaged over processes, is that of one
    process with the whole batch.
    """
    spread = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if spread else (0, 1)
    gather = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)
    by_image, by_text = gather.get_logits(images, texts, scale)
    image_loss = cross_entropy(by_image, image_targets, reduction="none")
    text_loss = cross_entropy(by_text, text_targets, reduction="none")
    return (image_loss + text_loss) / 2, by_image


def _blended(rows: Tensor, partners: Tensor, weight: Tensor) -> Tensor:
    return weight[:, None] * rows + (1 - weight)[:, None] * rows[partners]
