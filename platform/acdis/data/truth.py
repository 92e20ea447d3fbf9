"""Whether a segmentation can be one of the brain that its case's images show."""

from __future__ import annotations

import numpy as np

#: Share of a lesion outside of the brain. In BraTS it is 0 (seven cases measured: no voxel), since labels are
#: drawn on images whose brain is cut out. Half of it outside is another grid, a flip, or another patient's.
OUTSIDE_SAID, OUTSIDE_REFUSED = 0.01, 0.5
#: Share of the brain that the lesion fills: 0.03 to 0.16 in the same cases. No tumour leaves a fifth of the
#: brain alone; a mask of the brain fills all of it.
FILLED_SAID, FILLED_REFUSED = 0.4, 0.8


def against_brain(lesion: np.ndarray, brain: np.ndarray) -> tuple[list[str], list[str]]:
    """Why these voxels [D, H, W] cannot be the truth, and what is worth a look.

    Args:
        lesion: bool, where the segmentation has a class that belongs to a region.
        brain: bool, where any modality is not background.
    """
    voxels, inside = np.count_nonzero(lesion), np.count_nonzero(lesion & brain)
    if not voxels:
        return [], ["segmentation: holds no lesion at all"]
    outside, filled = 1 - inside / voxels, inside / np.count_nonzero(brain)
    beyond = f"{100 * outside:.0f} % of the segmented voxels lie outside of the brain"
    fills = f"fills {100 * filled:.0f} % of the brain"
    if outside > OUTSIDE_REFUSED:
        return [f"{beyond}, where every image is background: is it another scan's, shifted or flipped?"], []
    if filled > FILLED_REFUSED:
        return [f"the segmentation {fills}: is it a mask of the brain?"], []
    notes = [f"segmentation: {beyond}"] if outside > OUTSIDE_SAID else []
    return [], notes + ([f"segmentation: {fills}"] if filled > FILLED_SAID else [])
