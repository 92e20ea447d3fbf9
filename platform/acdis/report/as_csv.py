"""A report as one flat table for other programs: one line per row × region × subset, figures unrounded.

The first column holds what warns of the figures, on the first line that it is about; `phantoms` is on every
line, so that no sorting or filtering loses it. Lines with the subset `mean` carry comparisons, the paper's
figures and the cost; where a row is compared with several others, further lines with this subset carry the
further comparisons. Empty: not to be had.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from acdis.evaluation.metrics import HD95_CONVENTIONS, HD95_ONE_EMPTY
from acdis.report import costs, floors, phrases, ranked
from acdis.report.comparison import Difference, Figures
from acdis.report.csv_lines import CsvLines
from acdis.report.facts import PHANTOM_WARNING, RowFacts, RowScores, SpecFacts
from acdis.report.sections import Compared
from acdis.vocabulary import FURTHER_METRICS, REGIONS, SUBSETS, subset_name

COLUMNS = (
    *(
        "warning",
        "phantoms",
        "spec",
        "table",
        "row",
        "label",
        "note",
        "baseline",
        "changes",
        "region",
        "subset",
        "seeds",
    ),
    *("seeds_missing", "cases", "dice_percent", "dice_low", "dice_high", "patients_low", "patients_high"),
    *("paper_percent", "compared_with", "difference", "difference_low", "difference_high"),
    *("difference_error", "difference_seeds", "difference_patients", "p", "p_adjusted", "tests", "margin"),
    *("verdict", "own_spread", "why", "needed_seeds", "needed_patients", "settled_by_seeds", "kendall_tau"),
    *("mean_rank", "rank", "rank_low", "rank_high", "et500_percent", "hd95_mm", "hd95_penalties"),
    *("hd95_scores", "hd95_convention", "cpu_hours", "gpu_hours", "floor_brain_percent"),
    "floor_rule_percent",
    *FURTHER_METRICS,
    *costs.FIGURES,
)


HD95_EMPTY = f"both empty 0 mm; one empty {HD95_ONE_EMPTY:g} mm (penalty)"


def render(compared: Sequence[Compared]) -> str:
    """The whole report; ends with a newline."""
    written = CsvLines(COLUMNS)
    below = floors.first_lines([row for _, rows, _ in compared for row in rows])
    for spec, rows, result in compared:
        warning = " ".join([*below, *([PHANTOM_WARNING] if spec.phantoms else [])])
        asked: dict[tuple[str, str], list[Difference]] = {}
        for difference in result.differences:
            asked.setdefault((difference.row, difference.region), []).append(difference)
        order = {one.region: one.tau for one in result.agreement}
        ranks, spent = _ranks(rows, spec.baseline), costs.of_rows(spec.rows, rows)
        for facts, row in zip(spec.rows, rows, strict=True):
            for place, region in enumerate(REGIONS):
                common = _common(spec, facts, row) | {"warning": warning or None, "region": region}
                brain, rule = floors.region(row, place)
                figures = result.figures.get(row.id)
                lines = [_tested(one, result.tests, spec.margin) for one in asked.get((row.id, region), [])]
                mean = (
                    _mean(figures, place, region)
                    | _cost(spent.get(row.id))
                    | {"kendall_tau": order.get(region)}
                )
                mean |= ranks.get(row.id, {})
                mean["paper_percent"] = (row.paper or {}).get(region)
                common["floor_brain_percent"] = brain
                mean["floor_rule_percent"] = None if rule is None else sum(rule) / len(rule)
                written.add(common | {"subset": "mean"} | mean | (lines[0] if lines else {}))
                for more in lines[1:]:
                    written.add(common | {"subset": "mean"} | more)
                for number, line in enumerate(_subsets(figures, place, region)):
                    line["floor_rule_percent"] = None if rule is None else rule[number]
                    written.add(common | line)
    return written.text


def _common(spec: SpecFacts, facts: RowFacts, row: RowScores) -> dict[str, Any]:
    counts = sorted({len(scores.cases) for scores in row.seeds.values()})
    return {
        "phantoms": spec.phantoms,
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


def _mean(figures: Figures | None, place: int, region: str) -> dict[str, Any]:
    if figures is None:
        return {}
    return {
        "dice_percent": float(figures.mean[place]),
        "dice_low": None if figures.low is None else float(figures.low[place]),
        "dice_high": None if figures.high is None else float(figures.high[place]),
        "patients_low": None if figures.patients_low is None else float(figures.patients_low[place]),
        "patients_high": None if figures.patients_high is None else float(figures.patients_high[place]),
        "et500_percent": float(figures.et500.mean()) if region == "ET" else None,
    } | _further(figures, slice(None), place)


def _subsets(figures: Figures | None, place: int, region: str) -> Iterator[dict[str, Any]]:
    if figures is None:
        return
    for number, subset in enumerate(SUBSETS):
        low, high = figures.subsets_low, figures.subsets_high
        yield {
            "subset": subset_name(subset),
            "dice_percent": float(figures.subsets[number, place]),
            "dice_low": None if low is None else float(low[number, place]),
            "dice_high": None if high is None else float(high[number, place]),
            "et500_percent": float(figures.et500[number]) if region == "ET" else None,
        } | _further(figures, slice(number, number + 1), place)


def _further(figures: Figures, subsets: slice, place: int) -> dict[str, Any]:
    """HD95 and the metrics of `evaluation.metrics`, with what counts where there is no distance."""
    means: dict[str, Any] = {
        name: float(values[subsets, place].mean()) for name, values in figures.further.items()
    }
    rules = []
    if figures.hd95 is not None:
        rules = [*(HD95_CONVENTIONS[name] for name in figures.hd95_conventions), HD95_EMPTY]
    rules += [rule for metric, rule in phrases.LESION_RULES.items() if metric in figures.further]
    return means | _distance(figures, subsets, place) | {"hd95_convention": "; ".join(rules) or None}


def _distance(figures: Figures, subsets: slice, place: int) -> dict[str, Any]:
    """HD95, and how many of the scores behind it are penalties: no reader sees one without the other."""
    if figures.hd95 is None:
        return {}
    values = figures.hd95[subsets, place]
    penalties = None if figures.penalties is None else int(figures.penalties[subsets, place].sum())
    return {
        "hd95_mm": float(values.mean()),
        "hd95_penalties": penalties,
        "hd95_scores": figures.scores * len(values),
    }


def _ranks(rows: Sequence[RowScores], baseline: str) -> dict[str, dict[str, Any]]:
    """By row, over all regions and subsets."""
    made = ranked.of(rows, baseline)
    if made is None:
        return {}
    field, ranks = made
    return {
        row.id: {
            "mean_rank": float(ranks.mean[place]),
            "rank": int(ranks.place[place]),
            "rank_low": int(ranks.low[place]),
            "rank_high": int(ranks.high[place]),
        }
        for place, row in enumerate(field.rows)
    }


def _tested(difference: Difference, tests: int, margin: float) -> dict[str, Any]:
    line: dict[str, Any] = {
        "compared_with": difference.against,
        "difference": difference.delta if difference.patients else None,
        "difference_seeds": " ".join(map(str, difference.seeds)),
        "difference_patients": difference.patients,
        "margin": margin,
        "verdict": difference.verdict,
        "why": difference.why or None,
    }
    answer, demand = difference.answer, difference.needed
    if answer:
        line |= {"difference_low": answer.low, "difference_high": answer.high, "tests": tests}
        line |= {"difference_error": answer.error, "p": answer.p, "p_adjusted": answer.p_adjusted}
        line["own_spread"] = "yes" if answer.apart else "no"
    if demand:
        line |= {"needed_seeds": demand.seeds, "needed_patients": demand.cases}
        line["settled_by_seeds"] = demand.settled
    return line


def _cost(cost: costs.Cost | None) -> dict[str, Any]:
    """Hours, and what the row's cells have counted and measured; see `costs.HOW`."""
    if cost is None:
        return {}
    return {f"{kind}_hours": spent for kind, spent in cost.hours.items()} | dict(cost.figures)
