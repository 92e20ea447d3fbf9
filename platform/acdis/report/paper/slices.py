"""What the figures of the paper share: slices on axes, outlines, captions."""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

import numpy as np

from acdis.report.figures import LABEL_COLOURS, colours

#: Sequential and diverging, both told apart by colour-blind readers; and what is drawn on top of them.
VALUES, DIFFERENCE, LINE = "cividis", "PuOr_r", "#D55E00"


class Subject(NamedTuple):
    """Of which cell and case a figure is.

    Attributes:
        row: the cell's row, or its name where it stands in no spec, and its seed.
        cell: its name.
        method: in words, what the figures may differ by.
        slice_index: of the axial slice, in the file.
    """

    row: str
    cell: str
    method: str
    case: str
    slice_index: int
    phantom: bool

    @property
    def note(self) -> str:
        """Which case and slice, and what one case of one training cannot say."""
        drawn = "a phantom, not a patient" if self.phantom else "a test case"
        return (
            f"{self.case} ({drawn}), axial slice {self.slice_index} of its file. One case of one training "
            "and seed: an illustration, no evidence."
        )


def gray(axis: Any, image: np.ndarray) -> None:
    """A slice [D, H] of a modality."""
    low, high = np.percentile(image, (1, 99.5))
    show(axis, image, "gray", low, max(high, low + 1e-6))


def show(axis: Any, picture: np.ndarray, colour_map: str, low: float, high: float) -> Any:
    """A slice [D, H]: the file's first axis to the right, its second downwards."""
    bare(axis)
    return axis.imshow(picture.T, cmap=colour_map, vmin=low, vmax=high, interpolation="nearest")


def overlay(axis: Any, labels: np.ndarray) -> None:
    """Classes [D, H] in their colours over what is there."""
    picture = np.dstack([colours(labels), 0.65 * (labels > 0)])
    axis.imshow(picture.transpose(1, 0, 2), interpolation="nearest")


def outline(axis: Any, mask: np.ndarray) -> None:
    """The border of a mask [D, H], where it has one."""
    if mask.any() and not mask.all():
        axis.contour(mask.T, levels=[0.5], colors=LINE, linewidths=0.9)


def bare(axis: Any) -> None:
    """No ticks and no frame; labels stay."""
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def under(axis: Any, text: str) -> None:
    """A line or two below a tile."""
    axis.set_xlabel(text, fontsize=7.5)


def caption(figure: Any, title: str, text: str) -> None:
    """A title above, and below the tiles how to read them; wrapped to the figure's width."""
    width = max(60, int(figure.get_figwidth() * 16.5))
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    figure.supxlabel(textwrap.fill(text, width), fontsize=8, x=0.01, ha="left")


def legend(figure: Any, names: dict[int, str]) -> None:
    """The classes and their colours."""
    from matplotlib.patches import Patch

    patches = [Patch(color=LABEL_COLOURS[label], label=name) for label, name in names.items()]
    figure.legend(handles=patches, loc="outside upper right", ncols=len(patches), fontsize=8, frameon=False)
