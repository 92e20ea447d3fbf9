"""Which subset is the weakest, from the training samples alone: what MAR pays attention to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from acdis.losses import full_precision
from acdis.vocabulary import MODALITIES, SUBSETS, subset_mask

_EPSILON = 1e-5
_FULL = next(i for i, subset in enumerate(SUBSETS) if len(subset) == len(MODALITIES))


class Ranking(nn.Module):
    """Dice of the training samples by subset, and how far each stays behind all modalities.

    At the end of each ranking epoch the squared difference of a subset's mean from that of all modalities is
    added to its account; the largest account is the weakest subset's. (The authors validate every subset
    after those epochs and take mean IoU: validation cases would then shape the training.)

    Args:
        begin: epochs, from 0, before the ranking is used.
        count: the last so many of those that rank.
    """

    sums: Tensor
    accounts: Tensor
    epoch: Tensor

    def __init__(self, begin: int, count: int) -> None:
        super().__init__()
        self.begin, self.count = begin, count
        self.register_buffer("sums", torch.zeros(2, len(SUBSETS)))  # of Dice, and of samples, this epoch
        self.register_buffer("accounts", torch.zeros(len(SUBSETS)))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def observe(self, epoch: int, dice: Tensor, available: Tensor, pool: Callable[[Tensor], Tensor]) -> None:
        """Take a step's samples in.

        Args:
            epoch: counted from 0. The first sample of another one closes the epoch before.
            dice: `[B]`.
            available: bool [B, 4].
            pool: see `Batch.pool`. Every piece of a batch adds the whole batch's sums, so that all are
                multiplied by the number of pieces, and the means are right.
        """
        drawn = subsets_of(available).to(self.sums.dtype)
        step = pool(torch.stack([dice.to(self.sums.dtype) @ drawn, drawn.sum(0)]))
        closes = self.epoch != epoch
        ranks = (self.epoch >= self.begin - self.count) & (self.epoch < self.begin)
        self.accounts += torch.where(closes & ranks, self._gaps(), 0.0)
        self.sums.copy_(torch.where(closes, 0.0, self.sums) + step)
        self.epoch.fill_(epoch)

    def _gaps(self) -> Tensor:
        """Squared differences of the means from all modalities', [15]; 0 for what was not drawn."""
        dice, samples = self.sums
        means = dice / samples.clamp(min=1)
        known = (samples > 0) & (samples[_FULL] > 0)
        return torch.where(known, (means[_FULL] - means).square(), 0.0)

    def weakest(self) -> Tensor:
        """Bool [15]; several where accounts are equal, all of them before anything was ranked."""
        return self.accounts == self.accounts.max()

    def concerns(self, available: Tensor) -> Tensor:
        """Which samples have the weakest subset, bool [B]."""
        return (subsets_of(available) & self.weakest()).any(1)


def subsets_of(available: Tensor) -> Tensor:
    """Which of `SUBSETS` each sample has, bool [B, 15]."""
    masks = torch.tensor([subset_mask(subset) for subset in SUBSETS], device=available.device)
    return (available[:, None] == masks).all(2)


def foreground_dice(probabilities: Tensor, target: Tensor) -> Tensor:
    """Mean soft Dice of NCR, ED and ET, per sample `[B]`; 1e-5 above and below."""
    probabilities, target = full_precision(probabilities[:, 1:], target[:, 1:])
    space = (2, 3, 4)
    above = 2 * (probabilities * target).sum(space) + _EPSILON
    return (above / (probabilities.sum(space) + target.sum(space) + _EPSILON)).mean(1)
