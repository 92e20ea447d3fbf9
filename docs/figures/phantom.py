"""Draws docs/phantom.png and prints the table of docs/phantoms.md.

    python docs/figures/phantom.py --real ROOT

ROOT: a folder of BraTS 2021 cases with BraTS2021_00006 among them; without it the real columns stay empty.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap

from acdis.data import cases, phantom
from acdis.report import palette
from acdis.vocabulary import MODALITIES

SEED, INDEX = 0, 4  # the case shown
SHOWN = "BraTS2021_00006"
PARTS = {"normal": 0, "oedema": 2, "core": 1, "ET": 3}
COLOURS = ListedColormap([(0, 0, 0, 0), *palette.LABELS.values()])

Medians = dict[str, dict[str, float]]


def medians(images: np.ndarray, labels: np.ndarray) -> Medians:
    """Median of each part in each modality, z-scored over the brain; labels 0..3, images [4, D, H, W]."""
    brain = images.sum(0, dtype=np.float64) > 0
    table: Medians = {}
    for modality, image in zip(MODALITIES, images.astype(np.float64), strict=True):
        z = (image - image[brain].mean()) / image[brain].std()
        table[modality] = {
            part: float(np.median(z[brain & (labels == label)])) if (labels == label).any() else np.nan
            for part, label in PARTS.items()
        }
    return table


def of_phantom(case: phantom.Phantom) -> Medians:
    return medians(case.images, np.where(case.labels == 4, 3, case.labels))


def print_table(shown: Medians, phantoms: list[Medians], real: dict[str, Medians]) -> None:
    print("| modality | part | real, 00006 | phantom shown | 7 real cases | 12 phantoms |")
    print("|---|---|---|---|---|---|")
    for modality in MODALITIES:
        for part in PARTS:
            one = f"{real[SHOWN][modality][part]:+.1f}" if SHOWN in real else ""
            ranges = [
                _range([t[modality][part] for t in tables]) for tables in (list(real.values()), phantoms)
            ]
            print(
                f"| {modality} | {part} | {one} | {shown[modality][part]:+.1f} | {ranges[0]} | {ranges[1]} |"
            )


def _range(values: list[float]) -> str:
    known = [value for value in values if not np.isnan(value)]
    return f"{min(known):+.1f} … {max(known):+.1f}" if known else ""


def draw(case: phantom.Phantom, path: Path) -> None:
    """Axial and sagittal slices through the lesion: four modalities, and the labels on FLAIR."""
    labels = np.where(case.labels == 4, 3, case.labels)
    brain = np.argwhere(case.images[0] > 0)
    box = tuple(slice(low - 4, high + 5) for low, high in zip(brain.min(0), brain.max(0), strict=True))
    weight = (labels == 3) * 2 + (labels > 0)
    x, z = int(weight.sum((1, 2)).argmax()), int(weight.sum((0, 1)).argmax())
    cuts = [lambda v: v[box[0], box[1], z].T, lambda v: v[x, box[1], box[2]].T[::-1]]
    figure, axes = plt.subplots(2, 5, figsize=(11, 5.0), facecolor="black", height_ratios=(1.22, 0.82))
    for row, cut in zip(axes, cuts, strict=True):
        for axis, image in zip(row, case.images, strict=False):
            top = np.percentile(image[image > 0], 99.8)
            axis.imshow(cut(image), cmap="gray", vmin=0, vmax=top, interpolation="bilinear")
        row[4].imshow(cut(case.images[0]), cmap="gray", vmin=0, interpolation="bilinear")
        row[4].imshow(cut(labels), cmap=COLOURS, vmin=0, vmax=3, alpha=0.85, interpolation="nearest")
    for axis in axes.flat:
        axis.axis("off")
    for axis, title in zip(axes[0], (*MODALITIES, "labels"), strict=True):
        axis.set_title(title, color="white", fontsize=12)
    key = [
        mpl.patches.Patch(color=COLOURS(i), label=name) for i, name in ((2, "oedema"), (1, "core"), (3, "ET"))
    ]
    figure.legend(handles=key, loc="lower right", ncols=3, frameon=False, labelcolor="white", fontsize=9)
    figure.subplots_adjust(0.005, 0.05, 0.995, 0.94, 0.02, 0.02)
    figure.savefig(path, dpi=100, facecolor="black")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, help="folder of BraTS 2021 cases")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "phantom.png")
    arguments = parser.parse_args()
    real = {}
    for case in cases.find(arguments.real).cases if arguments.real else ():
        volume = cases.read(case)
        real[case.name] = medians(volume.images, volume.labels)
    shown = phantom.draw(SEED, INDEX, (240, 240, 155), 1.0)
    draw(shown, arguments.out)
    print_table(of_phantom(shown), [of_phantom(phantom.draw(SEED, i)) for i in range(1, 13)], real)


if __name__ == "__main__":
    main()
