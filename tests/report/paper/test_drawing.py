"""Figures are drawn whatever the numbers: nothing known, nothing there, everything flat."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image as mpimg
import numpy as np
import pytest
from matplotlib import colormaps

from acdis.report.paper import drawing
from acdis.report.paper.figure_arrays import Feature, Segmentations, Synthesis, Windows
from acdis.report.paper.slices import Subject
from acdis.vocabulary import SUBSETS

SUBJECT = Subject("table2 acct, seed 0", "acdis-1", "AFEB + L_Var; MFSB", "case1", 7, True)


def cividis(value: float) -> np.ndarray:
    return np.array(colormaps["cividis"](value)[:3])


def _seen(path: Path) -> np.ndarray:
    picture: np.ndarray = mpimg.imread(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return picture


def test_flat_features_without_a_tumour_are_drawn(tmp_path: Path) -> None:
    maps, numbers = np.zeros((4, 4, 16, 16)), np.zeros(4)
    truth, images = np.zeros((16, 16), np.uint8), np.zeros((4, 16, 16))
    windows = Windows(maps[0], maps, numbers, numbers, ((0, 0), (5, 10)), 5)
    drawing.figure1(tmp_path / "1" / "a.png", SUBJECT, images, truth, windows)
    made = Synthesis(maps[0], maps[1], numbers, numbers * np.nan, numbers)
    drawing.figure7(tmp_path / "7" / "a.png", SUBJECT, truth, made)
    feature = Feature(maps[0, 0], {"FLAIR": np.nan, "T1ce": 0.0})
    drawing.figure6(tmp_path / "6" / "a.png", [SUBJECT], images, truth, [feature], np.nan, 5)
    assert all(_seen(tmp_path / folder / "a.png").size for folder in "167")


def test_voxels_in_no_window_stay_white(tmp_path: Path) -> None:
    numbers, images = np.full(4, np.nan), np.zeros((4, 16, 16))
    yellow = []
    for unknown in (0, 4):
        maps = np.ones((4, 4, 16, 16))
        maps[..., 16 - unknown :] = np.nan
        windows = Windows(maps[0], maps, numbers, numbers, ((0, 0), (5, 10)), 5)
        path = tmp_path / str(unknown) / "a.png"
        drawing.figure1(path, SUBJECT, images, np.ones((16, 16), np.uint8), windows)
        tiles = _seen(path)[:, : int(0.7 * _seen(path).shape[1]), :3]  # without the matrices
        yellow.append(int((np.abs(tiles - cividis(0.999)).max(-1) < 0.03).sum()))
    assert yellow[1] / yellow[0] == pytest.approx(12 / 16, abs=0.02)


def test_segmentations_of_eight_cells(tmp_path: Path) -> None:
    labels = np.zeros((2, 20, 24), np.uint8)
    labels[1, 5:15, 5:15] = 3
    found = Segmentations(labels, np.full((2, 3), 0.5))
    images = np.random.default_rng(0).random((4, 20, 24))
    path = tmp_path / "new" / "a.png"
    drawing.figure5(path, [SUBJECT] * 8, images, labels[1], SUBSETS[:2], [found] * 8)
    assert _seen(path).shape[1] > 1500
