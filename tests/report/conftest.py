"""Scores and specs made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from acdis.evaluation.records import Record
from acdis.evaluation.scores import Scores
from acdis.report.facts import CellFacts, RowFacts, RowScores, SpecFacts
from acdis.vocabulary import REGIONS, SUBSETS, subset_name


def make_scores(by_case: Sequence[float], jitter: float = 0.0, seed: int = 0, hd95: bool = False) -> Scores:
    """Dice of each case, 0 to 1, the same in all subsets and regions but for `jitter`."""
    cases = len(by_case)
    dice = np.broadcast_to(np.asarray(by_case, dtype=float)[:, None, None], (cases, 15, 3)).copy()
    dice += jitter * np.random.default_rng(seed).standard_normal(dice.shape)
    dice = dice.clip(0, 1)
    names = tuple(f"case{number:03d}" for number in range(cases))
    return Scores(names, dice, dice[..., 2], 10 * (1 - dice) if hd95 else None)


def make_records(scores: Scores) -> list[Record]:
    """The same as records."""
    return [
        Record(
            case=case,
            subset=subset_name(subset),
            region=region,
            dice=float(scores.dice[n, s, r]),
            dice_et500=float(scores.dice_et500[n, s]) if region == "ET" else None,
            hd95=None if scores.hd95 is None else float(scores.hd95[n, s, r]),
            predicted_voxels=1,
            truth_voxels=1,
            voxel_volume=1.0,
        )
        for n, case in enumerate(scores.cases)
        for s, subset in enumerate(SUBSETS)
        for r, region in enumerate(REGIONS)
    ]


def make_row(name: str, seeds: Mapping[int, Scores], **more: Any) -> RowScores:
    """A row of a comparison."""
    given = {"label": name, "note": None, "paper": None, "hours": {"cpu": 0.5}, "missing": ()} | more
    return RowScores(name, seeds=seeds, **given)


def make_spec(rows: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], **more: Any) -> SpecFacts:
    """Facts whose cells are called `<row>-<seed>`; a row's `missing` lists seeds without scores."""
    made = []
    for name, row in rows.items():
        lacking = row.get("missing", ())
        cells = tuple(
            CellFacts(
                seed,
                f"{name}-{seed}",
                "e",
                seed not in lacking,
                "not started" if seed in lacking else "scored",
                {} if seed in lacking else {"cpu": 0.25},
                "0b338d9",
                row.get("capacity", {}),
            )
            for seed in seeds
        )
        made.append(
            RowFacts(name, row.get("label", name), row.get("note"), row.get("paper"), {"a.b": 1}, cells)
        )
    given = {
        "name": "table2",
        "title": "Table 2",
        "table": "table2",
        "baseline": next(iter(rows)),
        "source": "",
        "overrides": (),
        "excluded": {},
        "phantoms": False,
        "et_minimum": 500.0,
    } | more
    return SpecFacts(rows=tuple(made), **given)


def make_reader(scores: Mapping[str, Scores]) -> Callable[[str, str], Scores]:
    """Scores by the cell's name."""
    return lambda cell, _evaluation: scores[cell]


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The makers of this file: with `importlib` mode tests cannot import each other."""
    return SimpleNamespace(
        scores=make_scores, records=make_records, row=make_row, spec=make_spec, reader=make_reader
    )
