"""Ways of drawing subsets for training that several methods know; the usual one is `Method`'s own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def by_count(generator: torch.Generator | np.random.Generator, n: int) -> Tensor:
    """Bool `[n, 4]`: how many modalities, uniform from 1 to 4, then which (HeMIS's rule, and M3AE's)."""
    if isinstance(generator, np.random.Generator):
        drawn = torch.from_numpy(generator.random((n, 5)))
    else:
        drawn = torch.rand((n, 5), generator=generator)
    count = 1 + (4 * drawn[:, :1]).long()
    return drawn[:, 1:].argsort(1).argsort(1) < count
