"""A report as one flat table for other programs: one line per row × region × subset, figures unrounded.

Each line stands alone: the warning about phantoms is its first column, so that no sorting or filtering loses
it. Lines with the subset `mean` carry the tests, the paper's figures and the hours. Empty: not to be had.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from acdis.report.comparison import Difference, Figures
from acdis.report.facts import PHANTOM_WARNING, RowFacts, RowScores, SpecFacts
from acdis.report.sections import Compared
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

COLUMNS = (
    *("warning", "spec", "table", "row", "label", "note", "baseline", "changes", "region", "subset", "seeds"),
    *("seeds_missing", "cases", "dice_percent", "dice_low", "dice_high", "paper_percent", "difference"),
    *(
        "difference_low",
        "difference_high",
        "difference_error",
        "p_wilcoxon_holm",
        "p_bootstrap_holm",
        "tests",
    ),
    *(
        "verdict",
        "why",
        "needed_cases",
        "needed_seeds",
        "needed_seeds_with_cases",
        "kendall_tau",
        "et500_percent",
    ),
    *("hd95_mm", "cpu_hours", "gpu_hours"),
)


def render(compared: Sequence[Compared]) -> str:
    """The whole report; ends with a newline."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for spec, rows, result in compared:
        differences = {(each.row, each.region): each for each in result.differences}
        order = {each.region: each.tau for each in result.agreement}
        for facts, row in zip(spec.rows, rows, strict=True):
            for place, region in enumerate(REGIONS):
                common = _common(spec, facts, row) | {"region": region}
                found = result.figures.get(row.id)
                more = _tested(differences.get((row.id, region)), result.tests)
                mean = _mean(found, place, region) | _cost(row) | {"kendall_tau": order.get(region)}
                mean["paper_percent"] = (row.paper or {}).get(region)
                writer.writerow(common | {"subset": "mean"} | mean | more)
                writer.writerows(common | line for line in _subsets(found, place, region))
    return file.getvalue()


def _common(spec: SpecFacts, facts: RowFacts, row: RowScores) -> dict[str, Any]:
    counts = sorted({len(scores.cases) for scores in row.seeds.values()})
    return {
        "warning": PHANTOM_WARNING if spec.phantoms else None,
        "spec": spec.name,
        "table": spec.table,
        "row": row.id,
        "label": row.label,
        "note": row.note,
        "baseline": spec.baseline,
        "changes": "; ".join(f"{key}={json.dumps(value)}" for key, value in facts.changes.items()),
        "seeds": " ".join(map(str, row.seeds)),
        "seeds_missing": " ".join(map(str, row.missing)),
        "cases": " ".join(map(str, counts)),
    }


def _mean(found: Figures | None, place: int, region: str) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "dice_percent": float(found.mean[place]),
        "dice_low": None if found.low is None else float(found.low[place]),
        "dice_high": None if found.high is None else float(found.high[place]),
        "et500_percent": float(found.et500.mean()) if region == "ET" else None,
        "hd95_mm": None if found.hd95 is None else float(found.hd95[:, place].mean()),
    }


def _subsets(found: Figures | None, place: int, region: str) -> Iterator[dict[str, Any]]:
    if found is None:
        return
    for number, subset in enumerate(SUBSETS):
        low, high = found.subsets_low, found.subsets_high
        yield {
            "subset": subset_name(subset),
            "dice_percent": float(found.subsets[number, place]),
            "dice_low": None if low is None else float(low[number, place]),
            "dice_high": None if high is None else float(high[number, place]),
            "et500_percent": float(found.et500[number]) if region == "ET" else None,
            "hd95_mm": None if found.hd95 is None else float(found.hd95[number, place]),
        }


def _tested(difference: Difference | None, tests: int) -> dict[str, Any]:
    if difference is None:
        return {}
    line: dict[str, Any] = {
        "difference": difference.delta if difference.cases else None,
        "verdict": difference.verdict,
        "why": difference.why or None,
    }
    if difference.effect:
        effect = difference.effect
        line |= {
            "difference_low": effect.low,
            "difference_high": effect.high,
            "difference_error": effect.error,
        }
        line |= {"p_wilcoxon_holm": difference.p_wilcoxon, "p_bootstrap_holm": difference.p_bootstrap}
        line["tests"] = tests
    if difference.needed:
        by_cases, by_seeds = difference.needed.by_cases, difference.needed.by_seeds
        line["needed_cases"] = by_cases[0] if by_cases else None
        line["needed_seeds_with_cases"], line["needed_seeds"] = by_seeds or (None, None)
    return line


def _cost(row: RowScores) -> dict[str, Any]:
    return {f"{kind}_hours": spent for kind, spent in row.hours.items()}
