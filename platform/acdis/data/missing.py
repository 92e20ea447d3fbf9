"""Which modalities training cases lack, drawn by seed at a rate per modality (PASSION's setting)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from acdis import config
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES


def draw(has: Mapping[str, Collection[str]], missing: config.Missing) -> dict[str, tuple[str, ...]]:
    """What each case keeps, in the order of `MODALITIES`; one modality at least.

    Each modality is taken from the nearest whole number of cases to its rate, whichever other modalities they
    lack; what a case lacks of itself counts. A case that would be left with nothing gets one of its own back,
    and a case that keeps others loses it instead, so that the rates stay. Depends on the set of names, what
    the cases have, the rates and the seed alone.

    Args:
        has: case -> the modalities that it has.

    Raises:
        UserError: no case would be left with a modality, or some case with none.
    """
    names = sorted(has)
    generator = np.random.default_rng(missing.seed)
    kept = np.array([[modality in has[name] for modality in MODALITIES] for name in names])
    own = kept.copy()
    for m, (modality, rate) in enumerate(missing.rates().items()):
        lacking = int(np.floor(rate * len(names) + 0.5))
        if rate and lacking >= len(names):
            raise UserError(
                f"data.missing.{modality}: {rate:g} of {len(names)} training cases leaves none with "
                f"{modality}; lower it"
            )
        more = max(0, lacking - int(np.count_nonzero(~own[:, m])))
        kept[generator.choice(np.flatnonzero(own[:, m]), more, replace=False), m] = False
    for case in np.flatnonzero(~kept.any(axis=1)):
        spare = kept & (kept.sum(axis=1, keepdims=True) > 1) & own[case]
        if not spare.any():
            raise UserError(
                f"data.missing: at these rates some of the {len(names)} training cases keep no modality; "
                "lower them"
            )
        places = np.argwhere(spare)
        other, m = places[generator.integers(len(places))]
        kept[case, m], kept[other, m] = True, False
    return {
        name: tuple(modality for modality, there in zip(MODALITIES, row, strict=True) if there)
        for name, row in zip(names, kept, strict=True)
    }
