"""Training an autoencoder: pictures there and back, judged by pixels, by features and by a discriminator."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call

from lab.autoencoders import Autoencoder, AutoencoderVQ
from lab.autoencoders.base import Pass
from lab.data import BatchStream, ImageSet
from lab.errors import LabError
from lab.networks.discriminator import POSES, PatchDiscriminator, hinge_loss, posed
from lab.render import save_image
from lab.seeding import generator
from lab.there_and_back import COLUMNS, pairs, reconstruction, there_and_back
from lab.training.task import StreamTask

Distance = Callable[[Tensor, Tensor], Tensor]
SHOWN = 24  # held-out pictures on a sheet
SMALLEST_JUDGED = 32  # px, for the discriminator's patches
MOST_WEIGHT = 1e4  # of the discriminator, where its gradient vanishes


@dataclass(frozen=True)
class ReconstructionLosses:
    """What a reconstruction is judged by, all against an error of weight 1 that is a mean over pixels.

    error               l1 | l2
    fingerprint         of the CLIP whose features are compared, filled in by training
    perceptual          none | flower_clip | vgg: whose features are compared, with weight perceptual_weight
    adversarial_weight  of the discriminator's judgement, itself scaled so that both pull alike; 0: none
    adversarial_start   step from which on there is a discriminator
    adversarial_warmup  steps in which its weight rises from 0, so that it has learned something before it is heeded
    Raises LabError for values that cannot be.
    """

    error: str = "l1"
    fingerprint: str | None = None
    perceptual: str = "flower_clip"
    perceptual_weight: float = 0.1
    adversarial_weight: float = 0.0
    adversarial_start: int = 0
    adversarial_warmup: int = 0

    def __post_init__(self) -> None:
        for key, known in (("error", ("l1", "l2")), ("perceptual", ("none", "flower_clip", "vgg"))):
            if getattr(self, key) not in known:
                raise LabError(f"reconstruction.{key}={getattr(self, key)}: use one of {', '.join(known)}")
        for key in ("perceptual_weight", "adversarial_weight", "adversarial_start", "adversarial_warmup"):
            if not getattr(self, key) >= 0:
                raise LabError(f"reconstruction.{key}={getattr(self, key)}: use 0 or more")

    def adversarial_share(self, step: int) -> float:
        """How much of its weight the discriminator has at a step, 0 to 1; below 0 where there is none yet."""
        since = step - self.adversarial_start
        return -1.0 if since < 0 else min(1.0, (since + 1) / (self.adversarial_warmup + 1))

    def check_size(self, image_size: int) -> None:
        """LabError where images are too small for the discriminator's patches."""
        if self.adversarial_weight and image_size < SMALLEST_JUDGED:
            raise LabError(
                f"reconstruction.adversarial_weight={self.adversarial_weight}: its patches need data.image_size of "
                f"{SMALLEST_JUDGED} at least"
            )


class AutoencoderTask(StreamTask):
    """Rombach et al. 2022, appendix G: error, perceptual distance, the latents' penalty and a patch discriminator.

    The discriminator learns in the same step from the same reconstructions. Neither's loss has a gradient in the
    other's weights, but clipping goes by the norm of both together. It sees each step's pictures rolled by other
    pixels, since its strided convolutions weigh pixels by where they lie on their lattice, which a decoder would draw,
    and in another pose, since it would learn a few thousand pictures by heart.

    held_out        looked at in previews, which report PSNR and SSIM over all of it
    perceptual      distance (B,) of two batches of images; None for none
    latents_stay    only the decoder learns: what diffusion has learned of the latents holds, and decodes better
    """

    name = "autoencoder"

    def __init__(
        self,
        autoencoder: Autoencoder,
        stream: BatchStream,
        held_out: ImageSet,
        seed: int,
        losses: ReconstructionLosses,
        perceptual: Distance | None = None,
        latents_stay: bool = False,
    ) -> None:
        super().__init__()
        self.autoencoder, self.stream, self.held_out, self.seed = autoencoder, stream, held_out, seed
        self.losses, self.perceptual, self.latents_stay = losses, perceptual, latents_stay
        if latents_stay:
            autoencoder.requires_grad_(False)
            autoencoder.decoder.requires_grad_(True)  # type: ignore[union-attr, operator]
        losses.check_size(held_out.image_size)
        self.discriminator = PatchDiscriminator() if losses.adversarial_weight else None
        # The discriminator's weight and a codebook's revival are the whole batch's.
        self.divisible = self.discriminator is None and not isinstance(autoencoder, AutoencoderVQ)

    def inputs(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """images (B, 3, H, W), eps like their latents, adversarial (B,) the `adversarial_share`.

        roll (B, 2) in pixels and pose (B,): how the discriminator is shown the step's pictures.
        """
        batch = self.stream.batch(step, rank, world)
        count, sides = len(batch.labels), batch.images.shape[2:]
        self.autoencoder.check_size(*sides)
        shape = (self.autoencoder.latent_channels, *(side // self.autoencoder.factor for side in sides))
        eps = torch.randn(count * world, *shape, generator=generator(self.seed, "posterior", step))
        share = torch.full((count,), self.losses.adversarial_share(step))
        eps = eps[rank * count : (rank + 1) * count]
        stride = 1 if self.discriminator is None else self.discriminator.stride
        roll = torch.randint(stride, (1, 2), generator=generator(self.seed, "roll", step)).expand(count, 2)
        pose = torch.randint(POSES, (1,), generator=generator(self.seed, "pose", step)).expand(count)
        return {"images": batch.images, "eps": eps, "adversarial": share, "roll": roll, "pose": pose}

    def forward(  # type: ignore[override]
        self, images: Tensor, eps: Tensor, adversarial: Tensor, roll: Tensor, pose: Tensor
    ) -> dict[str, Tensor]:
        """{"loss": (B,), "error", "perceptual", ...}: each judgement, unweighted, and what the latents report."""
        images = images.contiguous(memory_format=torch.channels_last)
        made, penalty, facts = (self._decoding if self.latents_stay else self.autoencoder.training_pass)(images, eps)
        difference = made - images
        error = (difference.abs() if self.losses.error == "l1" else difference.square()).mean(dim=(1, 2, 3))
        judged, told = error, {"error": error.detach(), **facts}
        if self.perceptual is not None:
            distance = self.perceptual(made, images)
            judged = judged + self.losses.perceptual_weight * distance
            told["perceptual"] = distance.detach()
        loss = judged + penalty
        if self.discriminator is not None and bool((adversarial >= 0).all()):
            down, right = roll[0].tolist()
            real, fake = (posed(pictures, (down, right), int(pose[0])) for pictures in (images, made))
            of_both, also = self._adversarial(self.discriminator, real, fake, judged.mean(), adversarial)
            loss, told = loss + of_both, told | also
        elif self.discriminator is not None:  # all parameters take part in every step, as several processes need
            loss = loss + 0 * sum(parameter.sum() for parameter in self.discriminator.parameters())
        return {"loss": loss, **told}

    def _decoding(self, images: Tensor, eps: Tensor) -> Pass:
        """What latents decode to that nothing is asked of."""
        with torch.no_grad():
            z = self.autoencoder.draw(self.autoencoder.moments(images), eps)
        return Pass(self.autoencoder.reconstruct(z), z.new_zeros(len(z)), {})

    def _adversarial(
        self, discriminator: PatchDiscriminator, images: Tensor, made: Tensor, judged: Tensor, share: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of autoencoder and discriminator together (B,), and numbers for the log.

        Rombach et al. 2022, eq. 25: the judgement is weighted so that at the decoder's last convolution its gradient
        is as large as that of the other losses (Esser et al. 2021, "Taming transformers", eq. 7, delta 1e-4).
        """
        frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
        judgement = -functional_call(discriminator, frozen, (made,)).float().mean(dim=(1, 2, 3))
        last: Tensor = self.autoencoder.decoder.last_weight  # type: ignore[union-attr, assignment]
        scale = torch.ones((), device=made.device)
        if last.requires_grad and torch.is_grad_enabled():
            of_judged, of_judgement = (
                torch.autograd.grad(value, last, retain_graph=True)[0].norm() for value in (judged, judgement.mean())
            )
            scale = (of_judged / (of_judgement + 1e-4)).clamp(max=MOST_WEIGHT).detach()
        real, fake = discriminator(images).float(), discriminator(made.detach()).float()
        of_discriminator = hinge_loss(real, fake)
        told = {"discriminator": of_discriminator.detach(), "real": real.detach().mean(), "fake": fake.detach().mean()}
        return self.losses.adversarial_weight * share * scale * judgement + of_discriminator, told | {"scale": scale}

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        """A sheet of held-out pictures above their reconstructions; PSNR in dB and SSIM, means over all held out."""
        quality = reconstruction(self.autoencoder, self.held_out)
        shown = min(SHOWN, len(self.held_out))
        shown -= shown % COLUMNS if shown > COLUMNS else 0  # whole rows, or pairs would not be above each other
        some = self.held_out.view(torch.linspace(0, len(self.held_out) - 1, shown).long())
        told = f"PSNR {quality['psnr']:.2f} dB, SSIM {quality['ssim']:.3f}"
        title = f"step {step}: held out, above what comes back; {told}"
        [(given, back)] = there_and_back(self.autoencoder, [some])
        save_image(pairs(given, back, title), folder / f"step_{step:07d}.png", {"step": step, "title": title})
        return quality
