"""Figures as PNG: learning curves, and one slice with truth and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acdis import files
from acdis.evaluation.calibration import curve, error
from acdis.evaluation.examples import read_example
from acdis.vocabulary import CLASSES, MODALITIES, REGIONS

#: Okabe and Ito's palette: told apart by colour-blind readers too.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
LABEL_COLOURS = {1: "#56B4E9", 2: "#F0E442", 3: "#D55E00"}


def learning_curves(path: Path, history: Sequence[Mapping[str, Any]], title: str) -> None:
    """Loss term by term on a logarithmic axis, and validation Dice, over epochs."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    epochs = [entry["epoch"] for entry in history]
    names = sorted({name for entry in history for name in entry["terms"]})
    for number, name in enumerate(names):
        values = [entry["terms"].get(name, np.nan) for entry in history]
        style = ("-", "--", ":")[number // len(PALETTE) % 3]
        left.plot(epochs, values, style, label=name, color=PALETTE[number % len(PALETTE)], lw=1.2)
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
    for colour, region in zip(PALETTE, REGIONS, strict=False):
        values = [entry["validation"][f"dice/{region}/mean"] for entry in validated]
        axis.plot([entry["epoch"] for entry in validated], values, "o-", ms=3, color=colour, label=region)
    axis.set(xlabel="epoch", ylabel="Dice", ylim=(0, 1), title="validation Dice, mean over 15 subsets")
    axis.legend()


def reliability(path: Path, of_bins: np.ndarray, title: str) -> None:
    """Reliability curves of [3, 3, BINS] counts by region: share of the region over mean probability."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
    axis.plot((0, 1), (0, 1), ":", color="#666666", lw=1)
    for colour, region, counts in zip(PALETTE, REGIONS, of_bins, strict=False):
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
    figure.suptitle(f"{shown.case}: " + ", ".join(_legend()), fontsize=9)
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
    for label, colour in LABEL_COLOURS.items():
        picture[labels == label] = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return picture


def _legend() -> list[str]:
    names = {1: "blue", 2: "yellow", 3: "orange"}
    return [f"{CLASSES[label]} {names[label]}" for label in LABEL_COLOURS]


def pyplot() -> Any:
    """`matplotlib.pyplot`, drawing to files only."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    """Write a PNG and close the figure; a reader sees the old file or the new one."""
    try:
        with files.replacing(path) as stream:
            figure.savefig(stream, dpi=110, format="png")
    finally:
        pyplot().close(figure)
