"""What the figures of the paper share: slices on axes, outlines, captions, and the files that they become."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acdis.files import write_text
from acdis.report import palette
from acdis.report.escaping import mathtext
from acdis.report.figures import DPI, colours, save

#: Sequential and diverging, both told apart by colour-blind readers.
VALUES, DIFFERENCE = "cividis", "PuOr_r"
#: Characters of a line in the file of a caption.
_WIDTH = 100


class Style(NamedTuple):
    """How figures are written.

    Attributes:
        formats: of `figures.FORMATS`, a file each.
        dpi: dots per inch.
        titles: whether a figure bears its title; in a paper the caption has it.
    """

    formats: Sequence[str] = ("png",)
    dpi: int = DPI
    titles: bool = True


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
    """The border of the whole tumour [D, H], where it has one: its region's colour, seen on any ground."""
    if mask.any() and not mask.all():
        for colour, width in (("white", 2.2), (palette.REGIONS["WT"], 1.0)):
            axis.contour(mask.T, levels=[0.5], colors=colour, linewidths=width)


def bare(axis: Any) -> None:
    """No ticks and no frame; labels stay."""
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def under(axis: Any, text: str) -> None:
    """A line or two below a tile."""
    axis.set_xlabel(text, fontsize=7.5)


def finish(figure: Any, path: Path, style: Style, title: str, text: str) -> list[Path]:
    """Write a figure in every format, and beside it as `.txt` its caption, which is not in the picture.

    Args:
        path: of the files, without their endings.
        title: above the figure, and at the head of the caption.
        text: how to read it.

    Returns:
        The files, the caption last.
    """
    if style.titles:
        figure.suptitle(mathtext(title), fontsize=10, x=0.01, ha="left")
    pictures = [path.with_name(f"{path.name}.{form}") for form in style.formats]
    headline = "; ".join(title.splitlines())
    save(figure, *pictures, dpi=style.dpi, title=headline, text=text)
    caption = path.with_name(f"{path.name}.txt")
    write_text(caption, "\n\n".join(textwrap.fill(part, _WIDTH) for part in (f"{headline}.", text)) + "\n")
    return [*pictures, caption]
