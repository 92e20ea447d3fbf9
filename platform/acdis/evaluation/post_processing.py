"""What is done to predicted labels before they are scored or handed on: `evaluation.post_processing`.

Pure functions of labels [D, H, W] (0 background, 1 NCR/NET, 2 ED, 3 ET) on a grid whose spacing is known. The
tumour is every label but the background; its components are those that share faces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from acdis.config import LargestComponent, PostProcessing, SmallComponents
from acdis.evaluation.metrics import is_small

NCR, ET = 1, 3


def post_process(labels: np.ndarray, rules: Sequence[PostProcessing], spacing: Sequence[float]) -> np.ndarray:
    """Labels after the rules, one after the other; the same array where there is none.

    Args:
        spacing: mm per voxel along D, H, W.
    """
    volume = math.prod(spacing)
    for rule in rules:
        if isinstance(rule, LargestComponent):
            labels = largest_component(labels)
        elif isinstance(rule, SmallComponents):
            labels = small_components(labels, rule.volume, rule.share, volume)
        else:
            labels = small_et(labels, rule.volume, volume)
    return labels


def largest_component(labels: np.ndarray) -> np.ndarray:
    """The tumour's largest component; of several the one that comes first."""
    components, sizes = _components(labels)
    return labels if len(sizes) < 2 else _kept(labels, components == 1 + sizes.argmax())


def small_components(labels: np.ndarray, volume: float, share: float, voxel: float) -> np.ndarray:
    """Components of the tumour below `volume` mm³, and below `share` of the largest, become background.

    Args:
        voxel: mm³.
    """
    components, sizes = _components(labels)
    if len(sizes) < 2:
        return labels
    least = min(volume, share * sizes.max() * voxel)
    large = [False, *(not is_small(int(size), least, voxel) for size in sizes)]
    return _kept(labels, np.array(large)[components])


def _components(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number for each voxel, 0 outside the tumour, and the voxels of each number from 1 on."""
    components, _ = ndimage.label(labels > 0)
    return components, np.bincount(components.ravel())[1:]


def _kept(labels: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.where(where, labels, labels.dtype.type(0))


def small_et(labels: np.ndarray, volume: float, voxel: float) -> np.ndarray:
    """Where all of ET is smaller than `volume` mm³ it becomes NCR/NET."""
    enhancing = labels == ET
    if not is_small(int(enhancing.sum()), volume, voxel):
        return labels
    return np.where(enhancing, labels.dtype.type(NCR), labels)
