"""Plain U-Nets side by side, each for one subset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from acdis.errors import UserError
from acdis.methods.base import MAIN, Batch, Method, Terms
from acdis.methods.unet.network import Network, terms
from acdis.methods.unet_dedicated import NAMES, VERSION
from acdis.methods.unet_dedicated import Options as DedicatedOptions
from acdis.networks import modalities
from acdis.vocabulary import SUBSETS, subset_mask


class DedicatedUNets(Method):
    """A network for each subset, or for the one that the options name, which then serves every subset.

    All have the four input channels, so that they differ from `unet` in nothing but what they have seen.
    """

    Options = DedicatedOptions
    masks: Tensor  # bool [networks, 4]
    version = VERSION

    def __init__(self, options: DedicatedOptions) -> None:
        super().__init__()
        self.options = options
        names = (options.subset,) if options.subset else NAMES
        self.validated_on = tuple(SUBSETS[NAMES.index(name)] for name in names)
        self.networks = nn.ModuleDict({name: Network(options) for name in names})
        masks = torch.tensor([subset_mask(subset) for subset in self.validated_on])
        self.register_buffer("masks", masks, persistent=False)

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Tensor:
        """The images themselves."""
        return images

    def decode(self, features: Tensor, available: Tensor) -> Tensor:
        """Logits `[B, 4, D, H, W]`, each sample's from the network of its subset."""
        networks = self._networks
        if len(networks) == 1:
            return networks[0](features, available)
        own = (available[:, None] == self.masks).all(2)  # bool [B, networks]
        # Which are wanted would have to be read back from a device: there all are asked.
        asked = own.any(0).nonzero().flatten().tolist() if own.device.type == "cpu" else range(len(networks))
        result: Tensor | None = None
        for place in asked:
            logits = networks[place](features, available)
            result = logits if result is None else modalities.where(own[:, place], logits, result)
        assert result is not None
        return result

    def decode_subsets(self, features: Tensor, subsets: Tensor) -> Tensor:
        places = {subset_mask(subset): place for place, subset in enumerate(self.validated_on)}
        maps = []
        for subset, mask in zip(subsets.tolist(), subsets.to(features.device), strict=True):
            network = self._networks[places.get(tuple(subset), 0)]  # the one that there is serves all
            maps.append(network(features, mask.expand(len(features), -1)))
        return torch.stack(maps)

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """The losses of each network on the whole batch with its own subset; their mean over the networks."""
        by_network = [
            terms(network(batch.images, mask.expand(len(batch.images), -1)), batch)
            for network, mask in zip(self._networks, self.masks, strict=True)
        ]
        return {
            MAIN: {
                name: torch.stack([losses[name] for losses in by_network]).mean() for name in by_network[0]
            }
        }

    def sample_subsets(self, generator: torch.Generator | np.random.Generator, n: int, epoch: int) -> Tensor:
        """Of the one network its subset; several take no notice of what is drawn."""
        if self.options.subset is None:
            return super().sample_subsets(generator, n, epoch)
        return torch.tensor([subset_mask(self.validated_on[0])]).expand(n, -1)

    def adopt(self, role: str, state: Mapping[str, Tensor]) -> None:
        """The network of the subset `role`, from a training for it alone.

        Raises:
            UserError: the state is of another method, of another subset or of other options.
        """
        part = f"networks.{role}."
        own = {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        try:
            self.networks[role].load_state_dict(own)
        except (KeyError, RuntimeError):
            raise UserError(
                f"method.parents.{role}: its weights are of another method, subset or size; name a cell of "
                f"unet_dedicated with method.options.subset={role} and the same options"
            ) from None

    def bytes_per_voxel(self, subsets: int) -> int:
        return self._networks[0].bytes_per_voxel(subsets)

    @property
    def _networks(self) -> list[Network]:
        return [cast(Network, network) for network in self.networks.values()]
