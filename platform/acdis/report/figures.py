"""Learning curves, one slice with truth and predictions, and how every figure becomes a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acdis import files
from acdis.evaluation.calibration import curve, error
from acdis.evaluation.examples import read_example
from acdis.report import palette
from acdis.vocabulary import CLASSES, MODALITIES

#: What a figure can be written as, by the ending of its file; dots per inch where nobody asks for others.
FORMATS, DPI = ("png", "pdf", "svg"), 110


def learning_curves(path: Path, history: Sequence[Mapping[str, Any]], title: str) -> None:
    """Loss term by term on a logarithmic axis, and validation Dice, over epochs."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    epochs = [entry["epoch"] for entry in history]
    names = sorted({name for entry in history for name in entry["terms"]})
    for number, name in enumerate(names):
        values = [entry["terms"].get(name, np.nan) for entry in history]
        style = ("-", "--", ":")[number // len(palette.SERIES) % 3]
        left.plot(
            epochs, values, style, label=name, color=palette.SERIES[number % len(palette.SERIES)], lw=1.2
        )
    left.set(xlabel="epoch", ylabel="mean over the epoch", yscale="symlog", title=f"loss terms: {title}")
    left.legend(fontsize=6, ncols=2)
    _validation_curve(right, history)
    save(figure, path)


def _validation_curve(axis: Any, history: Sequence[Mapping[str, Any]]) -> None:
    validated = [entry for entry in history if entry["validation"]]
    if not validated:
        axis.set_axis_off()
        axis.set_title("no validation cases")
        return
    for region, colour in palette.REGIONS.items():
        values = [entry["validation"][f"dice/{region}/mean"] for entry in validated]
        axis.plot([entry["epoch"] for entry in validated], values, "o-", ms=3, color=colour, label=region)
    axis.set(xlabel="epoch", ylabel="Dice", ylim=(0, 1), title="validation Dice, mean over 15 subsets")
    axis.legend()


def reliability(path: Path, of_bins: np.ndarray, title: str) -> None:
    """Reliability curves of [3, 3, BINS] counts by region: share of the region over mean probability."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
    axis.plot((0, 1), (0, 1), ":", color="#666666", lw=1)
    for (region, colour), counts in zip(palette.REGIONS.items(), of_bins, strict=True):
        means, shares = curve(counts)
        axis.plot(means, shares, "o-", ms=4, color=colour, label=f"{region}, ECE {100 * error(counts):.2f} %")
    axis.set(xlabel="mean probability", ylabel="share of the region", xlim=(0, 1), ylim=(0, 1))
    axis.set_title(title, fontsize=9)
    axis.legend(loc="lower right")
    save(figure, path)


def qualitative(path: Path, example: Path) -> None:
    """The four inputs, the truth, and the prediction from several subsets, in one axial slice."""
    plt = pyplot()
    shown = read_example(example)
    count = max(len(shown.images), 1 + len(shown.subsets))
    # Two axes that are placed by hand: twelve, and a layout that measures them, take five times as long.
    figure, (above, below) = plt.subplots(2, figsize=(2.2 * count, 5))
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.87, hspace=0.12)
    _strip(above, [grey(image) for image in shown.images], MODALITIES, count)
    labels = (shown.truth, *shown.predictions)
    _strip(below, [colours(classes) for classes in labels], ["truth", *shown.subsets], count)
    figure.suptitle(shown.case, fontsize=9)
    legend(figure, "upper right")
    save(figure, path)


def grey(image: np.ndarray) -> np.ndarray:
    """RGB [..., 3] of intensities [...], from the 1st to the 99.5th percentile."""
    low, high = np.percentile(image, (1, 99.5))
    return np.repeat(np.clip((image - low) / max(high - low, 1e-6), 0, 1)[..., None], 3, axis=-1)


def _strip(axis: Any, panels: Sequence[np.ndarray], names: Sequence[str], count: int) -> None:
    """RGB panels [D, H, 3] side by side under their names, in a row with room for `count`."""
    depth, height = panels[0].shape[:2]
    gap = max(1, depth // 20)
    picture = np.ones((height, count * (depth + gap) - gap, 3))
    for number, (panel, name) in enumerate(zip(panels, names, strict=True)):
        left = number * (depth + gap)
        picture[:, left : left + depth] = panel.transpose(1, 0, 2)
        axis.text(left + depth / 2, -gap, name.replace("_", " + "), ha="center", fontsize=8)
    axis.set_axis_off()
    axis.imshow(picture)


def colours(labels: np.ndarray) -> np.ndarray:
    """RGB [..., 3] of class labels [...]; the background is black."""
    picture = np.zeros((*labels.shape, 3))
    for label, colour in palette.LABELS.items():
        picture[labels == label] = palette.rgb(colour)
    return picture


def legend(figure: Any, place: str) -> None:
    """The classes of a segmentation and their colours, at a place that matplotlib names."""
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=CLASSES[label]) for label, colour in palette.LABELS.items()]
    figure.legend(handles=patches, loc=place, ncols=len(patches), fontsize=8, frameon=False)


def pyplot() -> Any:
    """`matplotlib.pyplot`, drawing to files only."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, *paths: Path, dpi: int = DPI, title: str = "", text: str = "") -> None:
    """Write a figure and close it; a reader sees the old file or the new one.

    Equal figures make equal files, and a PDF has its letters as letters (TrueType, which journals ask for).

    Args:
        paths: files that end as one of `FORMATS`, which is what each is written as.
        dpi: dots per inch; in a PDF or SVG of what is a picture in it, such as a slice.
        title, text: what it shows, kept in the files as well, beside the picture.
    """
    import matplotlib as mpl

    try:
        for path in paths:
            form = path.suffix.removeprefix(".")
            about = {"Title": title, "Subject" if form == "pdf" else "Description": text}
            told: dict[str, str | None] = {name: words for name, words in about.items() if words}
            told |= {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(form, {})
            drawn = mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "acdis"})
            with files.replacing(path) as stream, drawn:
                figure.savefig(stream, dpi=dpi, format=form, metadata=told)
    finally:
        pyplot().close(figure)
