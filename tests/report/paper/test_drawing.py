"""Figures are drawn whatever the numbers: nothing known, nothing there, everything flat."""

from __future__ import annotations

import html
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image as mpimg
import numpy as np
import pytest
from matplotlib import colormaps

from acdis.report import palette
from acdis.report.escaping import mathtext
from acdis.report.paper import drawing
from acdis.report.paper.figure_arrays import Feature, Segmentations, Synthesis, Windows
from acdis.report.paper.slices import Style, Subject
from acdis.report.paper.windows import Extremes
from acdis.vocabulary import SUBSETS

SUBJECT = Subject("table2 acct, seed 0", "acdis-1", "AFEB + L_Var; MFSB", "case1", 7, True)


def cividis(value: float) -> np.ndarray:
    return np.array(colormaps["cividis"](value)[:3])


def _seen(path: Path) -> np.ndarray:
    picture: np.ndarray = mpimg.imread(path)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.stem}.txt"]
    return picture


def test_flat_features_without_a_tumour_are_drawn(tmp_path: Path) -> None:
    maps, numbers = np.zeros((4, 4, 16, 16)), np.zeros(4)
    truth, images = np.zeros((16, 16), np.uint8), np.zeros((4, 16, 16))
    windows = Windows(maps[0], maps, numbers, numbers, Extremes((0, 0), (5, 10), True), 5)
    drawing.figure1(tmp_path / "1" / "a", Style(), SUBJECT, images, truth, windows)
    made = Synthesis(maps[0], maps[1], numbers, numbers * np.nan, numbers)
    drawing.figure7(tmp_path / "7" / "a", Style(), SUBJECT, truth, made)
    feature = Feature(maps[0, 0], {"FLAIR": np.nan, "T1ce": 0.0})
    drawing.figure6(tmp_path / "6" / "a", Style(), [SUBJECT], images, truth, [feature], np.nan, 5)
    assert all(_seen(tmp_path / folder / "a.png").size for folder in "167")


def test_voxels_in_no_window_stay_white(tmp_path: Path) -> None:
    numbers, images = np.full(4, np.nan), np.zeros((4, 16, 16))
    yellow = []
    for unknown in (0, 4):
        maps = np.ones((4, 4, 16, 16))
        maps[..., 16 - unknown :] = np.nan
        windows = Windows(maps[0], maps, numbers, numbers, Extremes((0, 0), (5, 10), True), 5)
        path = tmp_path / str(unknown) / "a.png"
        drawing.figure1(path.with_suffix(""), Style(), SUBJECT, images, np.ones((16, 16), np.uint8), windows)
        tiles = _seen(path)[:, : int(0.7 * _seen(path).shape[1]), :3]  # without the matrices
        yellow.append(int((np.abs(tiles - cividis(0.999)).max(-1) < 0.03).sum()))
    assert yellow[1] / yellow[0] == pytest.approx(12 / 16, abs=0.02)


def test_segmentations_of_eight_cells(tmp_path: Path) -> None:
    labels = np.zeros((2, 20, 24), np.uint8)
    labels[1, 5:15, 5:15] = 3
    found = Segmentations(labels, np.full((2, 3), 0.5))
    images = np.random.default_rng(0).random((4, 20, 24))
    path = tmp_path / "new" / "a.png"
    drawing.figure5(path.with_suffix(""), Style(), [SUBJECT] * 8, images, labels[1], SUBSETS[:2], [found] * 8)
    assert _seen(path).shape[1] > 1500


def _draw(path: Path, style: Style) -> list[Path]:
    """Figure 5 of one cell and two subsets."""
    labels = np.zeros((2, 20, 24), np.uint8)
    labels[:, 5:15, 5:15] = 3
    images = np.random.default_rng(0).random((4, 20, 24))
    shown = [SUBJECT], images, labels[1], SUBSETS[:2], [Segmentations(labels, np.full((2, 3), 0.5))]
    return drawing.figure5(path, style, *shown)


def test_every_format_and_the_caption_beside_them(tmp_path: Path) -> None:
    files = _draw(tmp_path / "case.1", Style(("png", "pdf", "svg")))
    assert [file.name for file in files] == ["case.1.png", "case.1.pdf", "case.1.svg", "case.1.txt"]
    png, pdf, svg, caption = (file.read_bytes() for file in files)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert pdf.startswith(b"%PDF-")
    assert b"/FontType 3" not in pdf  # journals refuse Type 3 fonts
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    words = " ".join(caption.decode().split())
    assert words.startswith("Figure 5: segmentations from subsets of modalities. Each row is given")
    assert words.endswith("case1 (a phantom, not a patient), axial slice 7 of its file. One case of one "
        "training and seed: an illustration, no evidence.")  # fmt: skip
    again = _draw(tmp_path / "again", Style(("png", "pdf", "svg")))
    assert [file.read_bytes() for file in again] == [png, pdf, svg, caption]


def _drawn_words(svg: Path) -> str:
    """Text that is painted: as outlines, which matplotlib names in comments."""
    return " ".join(html.unescape(word) for word in re.findall(r"<!-- (.*?) -->", svg.read_text(), re.S))


@pytest.mark.parametrize("titles", [True, False])
def test_the_picture_has_its_title_or_not_and_never_its_caption(tmp_path: Path, titles: bool) -> None:
    svg, caption = _draw(tmp_path / "a", Style(("svg",), titles=titles))
    words = _drawn_words(svg)
    assert "truth" in words
    assert ("Figure 5" in words) == titles
    assert "Each row is given" not in words
    assert "Figure 5" in caption.read_text()


def test_dots_per_inch(tmp_path: Path) -> None:
    """Pixels of a PNG; of a PDF those of the slices in it."""
    sizes = {}
    for dpi in (50, 200):
        png, pdf, _ = _draw(tmp_path / str(dpi), Style(("png", "pdf"), dpi))
        widths = [int(width) for width in re.findall(rb"/Width (\d+)", pdf.read_bytes())]
        sizes[dpi] = np.array([*mpimg.imread(png).shape[:2], max(widths)])
    np.testing.assert_allclose(sizes[200] / sizes[50], 4, rtol=0.05)


def test_losses_are_printed_as_the_paper_does(tmp_path: Path) -> None:
    assert mathtext("AFEB + L_Var, 5 $") == r"AFEB + $\mathcal{L}_{Var}$, 5 \$"
    svg, _ = _draw(tmp_path / "a", Style(("svg",)))
    assert r"$\mathcal{L}_{Var}$" in _drawn_words(svg)


def test_the_outline_has_the_colour_of_its_region(tmp_path: Path) -> None:
    """WT's, on maps that are dark and bright."""
    truth = np.zeros((16, 16), np.uint8)
    truth[4:12, 4:12] = 2
    feature = Feature(np.linspace(0, 1, 16)[:, None] * np.ones((16, 16)), {"FLAIR": 1.0, "T1ce": 0.0})
    seen = []
    for labels in (truth, np.zeros_like(truth)):
        shown = [SUBJECT], np.zeros((4, 16, 16)), labels, [feature], 1.0, 5
        png, _ = drawing.figure6(tmp_path / "a", Style(), *shown)
        distance = np.abs(mpimg.imread(png)[..., :3] - np.array(palette.rgb(palette.REGIONS["WT"])))
        seen.append(int((distance.max(-1) < 0.02).sum()))
    assert seen[0] > 300 > 10 > seen[1]
