"""Scores as challengeR reads them (Wiesenfarth et al. 2021), for rankings by the book of challenges.

In R: as.challenge(read.csv(FILE), algorithm = "algorithm", case = "case", value = "value", by = "task",
smallBetter = FALSE). One task for each region × subset; Dice from 0 to 1, mean over seeds; rows, seeds and
cases as in the report's ranking, since challengeR wants every algorithm on every case.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from acdis.report.ranked import field
from acdis.report.sections import Compared
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

COLUMNS = ("algorithm", "case", "task", "value")
#: Begins the name of every task on phantoms: a line of warning would be no CSV to R.
PHANTOMS = "PHANTOMS/"


def left_out(compared: Sequence[Compared]) -> list[str]:
    """What the file lacks, in words: it has no place for them."""
    lines = []
    for spec, rows, _ in compared:
        ranked = field(rows, spec.baseline)
        lacking = [row.label for row in rows if ranked is None or row not in ranked.rows]
        if ranked is None or not ranked.cases:
            lines.append(f"{spec.name}: no scores that rows share; nothing of it is in the file")
        elif lacking:
            lines.append(f"{spec.name}: without {', '.join(lacking)}, which lack seeds or cases")
    return lines


def render(compared: Sequence[Compared]) -> str:
    """The whole report; ends with a newline. Tasks of several specs begin with the spec's name."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for spec, rows, _ in compared:
        ranked = field(rows, spec.baseline)
        if ranked is None:
            continue
        begins = (PHANTOMS if spec.phantoms else "") + (f"{spec.name}/" if len(compared) > 1 else "")
        for row in ranked.rows:
            values = np.mean([row.seeds[seed].of(ranked.cases) for seed in ranked.seeds], axis=0)
            for place, region in enumerate(REGIONS):
                for number, subset in enumerate(SUBSETS):
                    task = f"{begins}{region}/{subset_name(subset)}"
                    scores = values[:, number, place].tolist()
                    writer.writerows(
                        (row.id, case, task, score) for case, score in zip(ranked.cases, scores, strict=True)
                    )
    return file.getvalue()
