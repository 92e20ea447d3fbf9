"""Grids: what the product holds, what rules leave out, and what is refused, with its line."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from acdis.ablation.grid import matches
from acdis.ablation.spec import Spec, load
from acdis.errors import UserError

GRID = """\
base: base.yaml
baseline: {training.epochs: 1, method.options.afeb: conv}
grid:
  factors:
    training.epochs: [1, 2]
    method.options.afeb: [conv, afeb]
    method.options.consistency: {subsets_of: [var, kl]}
  exclude:
    - reason: nothing to distil
      when: {method.options.afeb: conv, method.options.consistency: {not: []}}
    - reason: both at once
      when: {method.options.consistency: [kl, var]}
"""

Write = Callable[..., Path]


def test_the_grid_of_the_checkout_is_all_that_means_something(tables: dict[str, Spec]) -> None:
    """Counted here by going through all 1,024 combinations with the rules in plain words."""
    kept, excluded = 0, Counter[str]()
    for afeb, mfsb in itertools.product((False, True), repeat=2):
        for losses in itertools.product((False, True), repeat=8):
            consistency, synthesis = losses[:4], losses[4:]
            if not afeb and any(consistency):
                excluded["without AFEB"] += 1
            elif not mfsb and any(synthesis):
                excluded["without MFSB"] += 1
            else:
                kept += 1
    grid = tables["grid"]
    assert len(grid.rows) == kept == 289
    found = {reason[:12]: number for reason, number in grid.excluded.items()}
    assert found == dict(excluded) == {"without AFEB": 480, "without MFSB": 255}
    assert len({row.id for row in grid.rows}) == kept
    assert grid.baseline == grid.rows[0].id == "conv-conv-none-none"


def test_both_tables_are_rows_of_the_grid(tables: dict[str, Spec]) -> None:
    full = {"method.options.afeb": "afeb", "method.options.mfsb": "mfsb"}
    for table in ("table2", "table3"):
        for row in tables[table].rows:
            wanted = full | dict(row.changes)
            assert len([each for each in tables["grid"].rows if matches(each.changes, wanted)]) == 1


def test_rows_excluded_and_baseline(write: Write) -> None:
    spec = load(write(GRID))
    assert [row.id for row in spec.rows] == [
        *("1-conv-none", "1-afeb-none", "1-afeb-var", "1-afeb-kl"),
        *("2-conv-none", "2-afeb-none", "2-afeb-var", "2-afeb-kl"),
    ]
    assert spec.excluded == {"nothing to distil": 6, "both at once": 2}
    assert spec.baseline == "1-conv-none"
    assert spec.rows[2].label == "epochs 1, afeb afeb, consistency var"


REFUSED = {
    "no factors": (
        GRID[: GRID.index("  factors")] + "  factors: {}\n",
        "line 4: grid.factors: empty, so there is nothing",
    ),
    "no values": (GRID.replace("[1, 2]", "[]"), "line 5: grid.factors.training.epochs: empty"),
    "no list": (GRID.replace("[1, 2]", "1"), "line 5: grid.factors.training.epochs: give a list"),
    "twice": (
        GRID.replace("[1, 2]", "[1, 2, 1.0]"),
        "line 5: grid.factors.training.epochs: 1.0 is listed twice",
    ),
    "everything excluded": (
        GRID + "    - {reason: all, when: {training.epochs: {not: 7}}}\n",
        "line 3: grid: the rules exclude every combination, so it is empty",
    ),
    "idle rule": (
        GRID + "    - {reason: idle, when: {training.epochs: 7}}\n",
        "line 13: grid.exclude: the rule 'idle' excludes nothing",
    ),
    "rule on no factor": (
        GRID.replace("when: {method.options.consistency:", "when: {method.options.consistence:"),
        "line 12: grid.exclude: 'method.options.consistence' is no factor",
    ),
    "unknown key": (
        GRID.replace("reason: both", "raison: both"),
        "line 11: grid.exclude.1.reason: Field required",
    ),
    "too many": (
        GRID.replace("[1, 2]", str(list(range(1, 20000)))),
        "line 4: grid.factors: 159,992 combinations, 100,000 at most",
    ),
    "far too many": (
        GRID.replace("[var, kl]", str(list(range(60)))),
        "line 4: grid.factors: 4,611,686,018,427,387,904 combinations, 100,000 at most",
    ),
    "wrong value": (GRID.replace("[1, 2]", "[1, 0]"), "line 5: training.epochs: "),
    "wrong key": (GRID.replace("training.epochs", "training.epoch"), "line 5: unknown key 'training.epoch'"),
    "vague baseline": (
        GRID.replace("{training.epochs: 1, ", "{"),
        "line 2: baseline: 2 rows have these values",
    ),
    "no such baseline": (
        GRID.replace("epochs: 1, ", "epochs: 3, "),
        "line 2: baseline: no row has these values",
    ),
    "equal meaning": (
        GRID.replace("[1, 2]", "[1, 2]\n    scaling.max_failures: [1, 2]"),
        "line 3: rows '1-1-conv-none' and '1-2-conv-none' mean the same",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_one_line_with_its_place(write: Write, what: str) -> None:
    text, words = REFUSED[what]
    assert text != GRID
    path = write(text)
    with pytest.raises(UserError) as refused:
        load(path)
    assert f"{path}, {words}" in str(refused.value)
    assert "\n" not in str(refused.value)
