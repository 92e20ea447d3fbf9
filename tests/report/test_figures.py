"""Figures: they open, have the right size, and show something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image as mpimg
import numpy as np
import pytest

from acdis.report import figures, palette
from acdis.workflow import publish


def _entry(epoch: int, validated: bool = False, **terms: float) -> dict[str, Any]:
    shares = {"WT": 0.14, "TC": 0.12, "ET": 0.1}
    scores = {f"dice/{region}/mean": share * epoch for region, share in shares.items()}
    return {"epoch": epoch, "terms": terms, "validation": scores if validated else {}}


def _picture(path: Path) -> np.ndarray:
    picture: np.ndarray = mpimg.imread(path)
    assert picture.ndim == 3
    assert min(picture.shape[:2]) > 300
    assert picture[..., :3].std() > 0.02  # not one colour
    return picture


def _near(picture: np.ndarray, colour: str) -> int:
    """Pixels of a colour."""
    wanted = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return int((np.abs(picture[..., :3] - wanted).max(axis=-1) < 0.02).sum())


def test_curves_show_terms_and_validation(tmp_path: Path) -> None:
    file = tmp_path / "new" / "curves.png"
    history = [
        _entry(epoch, validated=epoch % 2 == 0, loss=5.0 / epoch, dice=1.0 / epoch) for epoch in range(1, 7)
    ]
    figures.learning_curves(file, history, "a cell")
    picture = _picture(file)
    half = picture.shape[1] // 2
    assert _near(picture[:, :half], palette.SERIES[0]) > 50
    for colour in palette.REGIONS.values():
        assert _near(picture[:, half:], colour) > 50
    assert [each.name for each in file.parent.iterdir()] == ["curves.png"]


@pytest.mark.parametrize(
    "history",
    [
        [_entry(1, loss=1.0)],
        [_entry(1, loss=1.0), _entry(2, loss=0.5, late=0.1)],  # a term that begins later
        [_entry(1, loss=float("nan"))],
        [_entry(1, **{f"term{number}": 1.0 + number for number in range(30)})],
    ],
)
def test_curves_without_validation(tmp_path: Path, history: list[dict[str, Any]]) -> None:
    figures.learning_curves(tmp_path / "curves.png", history, "a cell")
    picture = _picture(tmp_path / "curves.png")
    half = picture.shape[1] // 2
    assert not any(
        _near(picture[60:-60, half + 60 : -20], colour) > 30 for colour in palette.REGIONS.values()
    )


def _example(path: Path, labels: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((24, 20), np.uint8)
    for label in labels:
        truth[4 * label : 4 * label + 4, 5:15] = label
    predictions = np.stack([np.roll(truth, shift, 0) for shift in range(3)])
    images = rng.normal(size=(4, 24, 20)).astype(np.float32)
    np.savez(
        path,
        case="case1",
        images=images,
        truth=truth,
        predictions=predictions,
        subsets=["FLAIR", "T1ce", "FLAIR_T1ce"],
    )


@pytest.mark.parametrize("labels", [(1, 2, 3), (1, 2), ()])
def test_the_qualitative_figure_shows_each_class_that_is_there(
    tmp_path: Path, labels: tuple[int, ...]
) -> None:
    example = tmp_path / "example.npz"
    _example(example, labels)
    figures.qualitative(tmp_path / "qualitative.png", example)
    picture = _picture(tmp_path / "qualitative.png")
    for label, colour in palette.LABELS.items():
        legend = _near(picture[: len(picture) // 10], colour)
        assert legend > 50
        assert (_near(picture, colour) - legend > 500) == (label in labels)


def test_every_slice_that_an_evaluation_left_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "qualitative").mkdir()
    (tmp_path / "qualitative" / "of-before.png").write_bytes(b"")
    for name in ("case1", "case2"):
        _example(tmp_path / "examples" / f"{name}.npz", (1, 2))
    drawn = publish.pictures(tmp_path)
    assert drawn == [tmp_path / "qualitative" / f"{name}.png" for name in ("case1", "case2")]
    assert sorted((tmp_path / "qualitative").iterdir()) == drawn
    assert all(mpimg.imread(path).size for path in drawn)


def test_a_constant_image_is_drawn_too(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "example.npz",
        case="case1",
        images=np.zeros((4, 8, 8), np.float32),
        truth=np.zeros((8, 8), np.uint8),
        predictions=np.zeros((1, 8, 8), np.uint8),
        subsets=["FLAIR"],
    )
    figures.qualitative(tmp_path / "qualitative.png", tmp_path / "example.npz")
    assert mpimg.imread(tmp_path / "qualitative.png").size
