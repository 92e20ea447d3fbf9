"""One encoder and one decoder for the four modalities together, zeros where one is missing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from acdis.losses import segmentation
from acdis.methods.base import MAIN, Batch, Method, Terms
from acdis.methods.unet import VERSION, NetworkOptions
from acdis.methods.unet import Options as UNetOptions
from acdis.networks.unet import Decoder, Encoder, set_norm
from acdis.vocabulary import CLASSES, MODALITIES, SUBSETS, subset_mask


class Network(nn.Module):
    """Residual U-Net on the modalities that are given; nothing is computed before the subset is known."""

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.width = options.base_width
        self.encoder = Encoder(len(MODALITIES), options.widths, options.padding)
        self.decoder = Decoder(options.widths, len(CLASSES), options.padding)
        set_norm(self, options.norm)

    def forward(self, images: Tensor, available: Tensor) -> Tensor:
        """Images `[B, 4, D, H, W]` and bool `[B, 4]` to logits `[B, 4, D, H, W]`."""
        # Selected, not multiplied: 0 × NaN is NaN.
        given = torch.where(available[:, :, None, None, None], images, images.new_zeros(()))
        logits: Tensor = self.decoder(self.encoder(given.contiguous(memory_format=torch.channels_last_3d)))
        return logits

    def bytes_per_voxel(self, subsets: int) -> int:
        """See `Method.bytes_per_voxel`: maps of the finest level, one subset at a time; logits of each."""
        return 4 * (10 * self.width + 40) + 20 * subsets


def terms(logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    """L_WCE and L_Dice of the one map (RFNet's losses)."""
    target = segmentation.one_hot(batch.labels)
    losses = segmentation.map_terms(segmentation.class_probabilities(logits), target, batch.pool)
    return {f"seg/{name}": value for name, value in losses.items()}


class UNet(Method):
    """One network for all subsets."""

    Options = UNetOptions
    version = VERSION

    def __init__(self, options: UNetOptions) -> None:
        super().__init__()
        self.options = options
        self.network = Network(options)

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Tensor:
        """The images themselves: the first convolution reads all modalities."""
        return images

    def decode(self, features: Tensor, available: Tensor) -> Tensor:
        """Logits `[B, 4, D, H, W]`."""
        logits: Tensor = self.network(features, available)
        return logits

    def bytes_per_voxel(self, subsets: int) -> int:
        return self.network.bytes_per_voxel(subsets)

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """The losses of the one map, see `Method.forward`."""
        return {MAIN: terms(self.decode(batch.images, batch.available), batch)}

    def sample_subsets(self, generator: torch.Generator | np.random.Generator, n: int, epoch: int) -> Tensor:
        if self.options.drop_rates is None:
            return super().sample_subsets(generator, n, epoch)
        if isinstance(generator, np.random.Generator):
            drawn = torch.from_numpy(generator.random(n))
        else:
            drawn = torch.rand(n, generator=generator, dtype=torch.float64)
        masks = torch.tensor([subset_mask(subset) for subset in SUBSETS])
        ends = subset_probabilities(self.options.drop_rates).cumsum(0)
        return masks[torch.searchsorted(ends, drawn, right=True).clamp(max=len(masks) - 1)]


def subset_probabilities(drop_rates: tuple[float, ...]) -> Tensor:
    """[15], float64: of each subset, if modalities are left out independently and one at least is left."""
    dropped = torch.tensor(drop_rates, dtype=torch.float64)
    masks = torch.tensor([subset_mask(subset) for subset in SUBSETS])
    product = torch.where(masks, 1 - dropped, dropped).prod(dim=1)
    return product / product.sum()
