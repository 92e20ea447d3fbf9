"""What in an image is not brain: the value around it, and whether what is left can be a brain."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

#: Share of the border's voxels that must hold one value for it to be the background.
_SHARED = 0.5
#: ml: no brain is larger; a head with its skull is twice as large.
_LARGEST_BRAIN = 2200.0
_FILLED = 0.95


def background(image: np.ndarray) -> float:
    """The value that most of the border of [D, H, W] shares; 0 where no value does."""
    border = np.concatenate(
        [np.take(image, end, axis=axis).ravel() for axis in range(3) for end in (0, image.shape[axis] - 1)]
    )
    border = border[np.isfinite(border)]
    if not border.size or 2 * np.count_nonzero(border == 0) > border.size:
        return 0.0
    values, counts = np.unique(border, return_counts=True)
    most = int(counts.argmax())
    return float(values[most]) if counts[most] > _SHARED * border.size else 0.0


def doubts(brain: np.ndarray, spacing: tuple[float, float, float]) -> Iterator[str]:
    """Why a mask [D, H, W] of what is not background may be no brain's; `spacing` in mm."""
    filled = float(brain.mean())
    volume = brain.sum() * math.prod(spacing) / 1000
    ends = [np.take(brain, end, axis=axis).any() for axis in range(3) for end in (0, brain.shape[axis] - 1)]
    if filled > _FILLED:
        yield (
            f"{100 * filled:.0f} % of the volume are not background, so all of it counts as brain: "
            "mask the brain first"
        )
    elif volume > _LARGEST_BRAIN:
        yield (
            f"{volume:,.0f} ml are not background, more than a brain has (up to {_LARGEST_BRAIN:,.0f}): "
            "skull and neck, or noise around the head? BraTS images hold the brain alone"
        )
    elif all(ends):
        yield "what is not background touches all six faces: is the brain cut off, or not masked?"
