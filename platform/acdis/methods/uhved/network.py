"""The network of U-HVED and one training step's terms (Dorent et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acdis.losses import full_precision
from acdis.methods.base import MAIN, Batch, Terms
from acdis.methods.uhemis import objective
from acdis.methods.uhemis.network import WIDTHS, Decoder, Encoder, HeteroModal
from acdis.methods.uhved import VERSION, gaussians
from acdis.methods.uhved import Options as UHVEDOptions
from acdis.methods.uhved.gaussians import Gaussian, Precise
from acdis.networks import modalities
from acdis.vocabulary import CLASSES, MODALITIES, SUBSETS, subset_mask

#: Per level, fine to coarse, what each modality adds to the product.
Latents = tuple[tuple[Precise, ...], ...]


class UHVED(HeteroModal):
    """Hetero-modal variational encoder-decoder: the modalities' latents are Gaussians that are multiplied.

    Inference reads the product's mean. (The authors draw from it for the segmentation at test too: then the
    same case scores differently each time.)
    """

    Options = UHVEDOptions
    version = VERSION
    training_only = ("reconstruction",)

    def __init__(self, options: UHVEDOptions) -> None:
        super().__init__()
        self.options = options
        latents = tuple(width // 2 for width in WIDTHS)
        self.encoders = nn.ModuleList(Encoder(WIDTHS) for _ in MODALITIES)
        self.decoder = Decoder(latents, len(CLASSES))
        self.reconstruction = nn.ModuleList(Decoder(latents, 1) for _ in MODALITIES)

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Latents:
        """`[B, 4, D, H, W]` to the latents of every modality, available or not."""
        levels = modalities.by_level(modalities.extract(self.encoders, images))
        return tuple(
            tuple(gaussians.by_precision(gaussians.split(maps)) for maps in level) for level in levels
        )

    def decode(self, features: Latents, available: Tensor) -> Tensor:
        """Logits `[B, 4, D, H, W]`."""
        logits: Tensor = self.decoder([gaussians.product(level, available).mean for level in features])
        return logits

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Cross-entropy and Dice, the divergences, and the error of the images; see `Method.forward`.

        One draw of the latents is read by all five decoders; images are compared whether available or not, if
        the case has them.
        """
        latents = self.encode(batch.images)
        generators = batch.generators("latents")
        drawn = [draw(gaussians.product(level, batch.available), generators) for level in latents]
        images = torch.cat([decoder(drawn) for decoder in self.reconstruction], dim=1)
        options = self.options
        return {
            MAIN: objective.terms(self.decoder(drawn), batch.labels)
            | {
                "latent/divergence": options.divergence_weight
                * divergence(latents, batch.available, batch.present),
                "image/mse": options.reconstruction_weight
                * squared_error(images, batch.images, batch.present),
            }
        }


def draw(latent: Gaussian, generators: Sequence[torch.Generator]) -> Tensor:
    """A sample of the Gaussian, `[B, C, D, H, W]`, each of the batch from its own generator."""
    noise = torch.stack([torch.randn(latent.mean.shape[1:], generator=generator) for generator in generators])
    return latent.mean + (latent.logvar / 2).exp() * noise.to(latent.mean)


def divergence(latents: Latents, available: Tensor, present: Tensor | None = None) -> Tensor:
    """Between the subsets' products and from the prior (`gaussians.disagreement`); mean over the levels."""
    masks = torch.tensor([subset_mask(subset) for subset in SUBSETS], device=available.device)
    divergences = [sum(gaussians.disagreement(level, available, masks, present)) for level in latents]
    return torch.stack([torch.as_tensor(value) for value in divergences]).mean()


def squared_error(images: Tensor, target: Tensor, present: Tensor | None = None) -> Tensor:
    """Mean over batch, voxels and all four modalities, or of those that `present`, bool [B, 4], names."""
    images, target = full_precision(images, target)
    squares = (images - target).square()
    if present is None:
        return squares.mean()
    by_modality = torch.where(present, squares.mean((2, 3, 4)), 0.0)
    return (by_modality.sum(1) / present.sum(1)).mean()
