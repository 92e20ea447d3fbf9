"""Figures 1, 5, 6 and 7 of the paper from what `figure_arrays` computed; each returns its files: `finish`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acdis.report import palette
from acdis.report.escaping import mathtext
from acdis.report.figures import legend, pyplot
from acdis.report.paper.figure_arrays import Feature, Segmentations, Synthesis, Windows
from acdis.report.paper.slices import (
    DIFFERENCE,
    VALUES,
    Style,
    Subject,
    bare,
    finish,
    gray,
    outline,
    overlay,
    show,
    under,
)
from acdis.vocabulary import MODALITIES, REGIONS, Subset

_TUMOUR = "Blue line: outline of the true tumour (WT)."
#: Of the windows that Figure 1 marks: no region has it.
_MARK = palette.SERIES[3]


def figure1(
    path: Path, style: Style, subject: Subject, images: np.ndarray, truth: np.ndarray, windows: Windows
) -> list[Path]:
    """Local variance and covariance of windows across modalities.

    Args:
        images: [4, D, H], the slice of each modality.
        truth: labels [D, H].
    """
    plt = pyplot()
    figure = plt.figure(figsize=(12, 7.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(3.3, 1))
    axes = left.subplots(3, 4)
    others = _others(windows.covariance)
    for m, name in enumerate(MODALITIES):
        gray(axes[0, m], images[m])
        _mark(axes[0, m], windows)
        axes[0, m].set_title(name, fontsize=10)
        under(axes[1, m], f"σ² edge {1e3 * windows.edge[m]:.2f}, rest {1e3 * windows.rest[m]:.2f}")
    scales = [_row(axes[row], maps, truth) for row, maps in ((1, windows.variance), (2, others))]
    for row, words in enumerate(("image", "σ² of $f_m$", "|σ| with the other\nthree, mean")):
        axes[row, 0].set_ylabel(words, fontsize=9)
    for row, scale in enumerate(scales, 1):
        left.colorbar(scale, ax=axes[row], shrink=0.8)
    for axis, at, name in zip(
        right.subplots(2, 1), windows.marked[:2], ("A, richest", "B, flattest"), strict=True
    ):
        _matrix(axis, windows.covariance[:, :, at[0], at[1]], f"window {name}", scales[0].norm.vmax)
    return finish(
        figure,
        path,
        style,
        f"Figure 1: local variance and covariance across modalities\n{subject.row}: {subject.method}",
        f"Features f_m of the finest level after the sigmoid, in windows of {windows.side}³ voxels "
        "(Eq. 1–3), mean over channels; printed numbers are ×10⁻³. “Edge”: windows that the tumour's outline "
        "runs through; “rest”: all other windows in the brain of the crop. A and B: the windows of highest "
        f"and lowest variance, mean over modalities, of those {_where(windows)}. Matrices: variance on the "
        "diagonal, |covariance| beside it, coloured as the variances. E_Aux is used in training only and not "
        "kept with final weights, so modalities are compared with each other and not with f_Aux. "
        f"{_TUMOUR} {subject.note}",
    )


def _where(windows: Windows) -> str:
    if windows.marked.at_tumour:
        return "in the slice that hold tumour and are brain by half or more"
    return "of the slice, since fewer than two hold tumour"


def _others(covariance: np.ndarray) -> np.ndarray:
    """Mean |covariance| of each modality with the others, [M, D, H] from [M, M, D, H]."""
    count = len(covariance)
    total: np.ndarray = covariance.sum(1) - np.stack([covariance[m, m] for m in range(count)])
    return total / (count - 1)


def _row(axes: Sequence[Any], maps: np.ndarray, truth: np.ndarray) -> Any:
    """Maps on one scale, from 0."""
    high = max(float(np.nanpercentile(maps, 99.5)), 1e-9)
    for axis, values in zip(axes, maps, strict=True):
        scale = show(axis, values, VALUES, 0, high)
        outline(axis, truth > 0)
    return scale


def _mark(axis: Any, windows: Windows) -> None:
    """The two windows whose matrices are shown, edged in black so that they are seen on any image."""
    from matplotlib.patheffects import withStroke

    edged = [withStroke(linewidth=3, foreground="black")]
    for at, name in zip(windows.marked[:2], "AB", strict=True):
        corner, side = (at[0] - 0.5, at[1] - 0.5), windows.side
        frame = {"fill": False, "color": _MARK, "lw": 1.4, "path_effects": edged}
        axis.add_patch(pyplot().Rectangle(corner, side, side, **frame))
        below = at[1] == 0  # above there is the image's name
        style = {"color": _MARK, "fontsize": 10, "weight": "bold", "va": "top" if below else "bottom"}
        where, away = (corner[0], corner[1] + side * below), (2, -3.0 if below else 3.0)
        axis.annotate(name, where, xytext=away, textcoords="offset points", path_effects=edged, **style)


def _matrix(axis: Any, values: np.ndarray, title: str, high: float) -> None:
    """4 × 4 numbers ×10⁻³, coloured as the map of variances."""
    axis.imshow(values, cmap=VALUES, vmin=0, vmax=high)
    places = range(len(MODALITIES))
    axis.set_xticks(places, MODALITIES, fontsize=8)
    axis.set_yticks(places, MODALITIES, fontsize=8)
    axis.set_title(title, fontsize=9)
    for (row, column), value in np.ndenumerate(values):
        ink = "black" if value > 0.6 * high else "white"
        axis.text(column, row, f"{1e3 * value:.2f}", ha="center", va="center", fontsize=8, color=ink)


def figure5(
    path: Path,
    style: Style,
    subjects: Sequence[Subject],
    images: np.ndarray,
    truth: np.ndarray,
    subsets: Sequence[Subset],
    segmentations: Sequence[Segmentations],
) -> list[Path]:
    """Segmentations of several cells, a column each, from several subsets, a row each.

    Args:
        images: [4, D, H], a slice on the file's grid.
        truth: labels [D, H].
    """
    rows, columns = len(subsets), 2 + len(segmentations)
    size = (1.9 * columns + 0.6, 2.1 * rows + 1.3)
    figure, axes = pyplot().subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for row, subset in enumerate(subsets):
        background = images[MODALITIES.index(subset[0])]
        shown = [None, truth, *(predicted.labels[row] for predicted in segmentations)]
        for axis, labels in zip(axes[row], shown, strict=True):
            gray(axis, background)
            if labels is not None:
                overlay(axis, labels)
        axes[row, 0].set_ylabel("\n+ ".join(subset), fontsize=9)
        for axis, predicted in zip(axes[row, 2:], segmentations, strict=True):
            said = zip(REGIONS, predicted.dice[row], strict=True)
            under(axis, "  ".join(f"{region} {100 * value:.0f}" for region, value in said))
    heads = ["image", "truth", *map(_head, subjects)]
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=8)
    legend(figure, "outside upper right")
    return finish(
        figure,
        path,
        style,
        "Figure 5: segmentations from subsets of modalities",
        "Each row is given the modalities at its left; the image behind is the first of them. Below each "
        f"tile: Dice of this case in %, over the whole volume. {subjects[0].note}",
    )


def figure6(
    path: Path,
    style: Style,
    subjects: Sequence[Subject],
    images: np.ndarray,
    truth: np.ndarray,
    features: Sequence[Feature],
    image_like: float,
    side: int,
) -> list[Path]:
    """FLAIR's feature of cells with and without ACD, beside the FLAIR and T1ce images.

    Args:
        images: [4, D, H], the slice.
        image_like: how the FLAIR image follows the T1ce image.
        side: voxels of the local windows that `features` are compared in.
    """
    columns = 2 + len(features)
    figure, axes = pyplot().subplots(1, columns, figsize=(2.5 * columns + 0.6, 3.6), layout="constrained")
    for axis, name in zip(axes, ("FLAIR", "T1ce"), strict=False):
        gray(axis, images[MODALITIES.index(name)])
        axis.set_title(f"{name}, image", fontsize=9)
    under(axes[0], f"follows T1ce {image_like:.2f}")
    low, high = np.percentile([feature.picture for feature in features], (0.5, 99.5))
    for axis, subject, feature in zip(axes[2:], subjects, features, strict=True):
        scale = show(axis, feature.picture, VALUES, low, high)
        axis.set_title(f"$f_m$ of FLAIR\n{_head(subject)}", fontsize=8)
        under(axis, f"follows FLAIR {feature.like['FLAIR']:.2f}, T1ce {feature.like['T1ce']:.2f}")
    for axis in axes:
        outline(axis, truth > 0)
    figure.colorbar(scale, ax=axes, shrink=0.7)
    return finish(
        figure,
        path,
        style,
        "Figure 6: FLAIR's feature without and with anatomical consistency distillation (ACD)",
        "f_m of the finest level, mean over channels, z-scored over the slice's brain, since each network "
        "has a scale of its own; it reads FLAIR alone. “Follows”: mean |correlation| with the image in "
        f"windows of {side}³ voxels, over the brain of the crop. {_TUMOUR} {subjects[0].note}",
    )


def figure7(
    path: Path, style: Style, subject: Subject, truth: np.ndarray, synthesis: Synthesis
) -> list[Path]:
    """Synthesised against true features, each modality made from the other three."""
    figure, axes = pyplot().subplots(3, 4, figsize=(9.4, 7.9), layout="constrained")
    low, high = np.percentile(synthesis.true, (0.5, 99.5))
    difference = synthesis.made - synthesis.true
    most = max(float(np.percentile(np.abs(difference), 99.5)), 1e-6)
    for m, name in enumerate(MODALITIES):
        values = show(axes[0, m], synthesis.true[m], VALUES, low, high)
        show(axes[1, m], synthesis.made[m], VALUES, low, high)
        change = show(axes[2, m], difference[m], DIFFERENCE, -most, most)
        axes[0, m].set_title(name, fontsize=10)
        said = (
            f"r {synthesis.r[m]:.2f}, MSE {synthesis.mse[m]:.2f}\n"
            f"mean of the given: r {synthesis.r_given[m]:.2f}"
        )
        under(axes[1, m], said)
    for axis in axes.flat:
        bare(axis)
        outline(axis, truth > 0)
    rows = ("true $f_m$", "synthesised from\nthe other three", "synthesised − true")
    for axis, words in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(words, fontsize=9)
    figure.colorbar(values, ax=axes[:2], shrink=0.6)
    figure.colorbar(change, ax=axes[2], shrink=0.9)
    return finish(
        figure,
        path,
        style,
        f"Figure 7: synthesised and true features of a missing modality\n{subject.row}: {subject.method}",
        "Features of the finest level, mean over channels; the paper's figure is the T2 column. Below: "
        "Pearson's r and mean squared error (Eq. 10) with the true features, over all channels and the brain "
        "of the crop, and r of what takes no synthesis: the mean of the three given features. "
        f"{_TUMOUR} {subject.note}",
    )


def _head(subject: Subject) -> str:
    """Row and method above a column, a line for each block, in narrow lines."""
    lines = (subject.row, *subject.method.split("; "))
    return mathtext("\n".join(textwrap.fill(line, 26) for line in lines))
