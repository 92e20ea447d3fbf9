"""Figures as text, and the sentences that say how to read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, Decimal

import numpy as np

from acdis.evaluation.lesionwise import PENALTY_2023, PENALTY_2026
from acdis.evaluation.metrics import HD95_CONVENTIONS, HD95_ONE_EMPTY
from acdis.evaluation.mrmc import UNEQUAL
from acdis.evaluation.sample_size import MOST_CASES, MOST_SEEDS, Needed
from acdis.evaluation.statistics import ALPHA
from acdis.report.comparison import Comparison, Difference
from acdis.vocabulary import MODALITIES, REGIONS, Subset

ABSENT = "–"
#: Whether a modality is there, in a table of subsets.
GIVEN, MISSING = "●", "○"
#: What an HD95 is where a mask is empty.
HD95_EMPTY = f"both masks empty counts 0, one empty {HD95_ONE_EMPTY:g} (a penalty)."
#: What stands below a table of HD95 with counts in brackets.
IN_BRACKETS = "In brackets: how many of the scores behind a figure are penalties."
#: And beside the distances of single lesions, by metric.
LESION_RULES = {
    "lesion_hd95": "lesion_hd95 in mm, mean over lesions: each that is missed or false counts "
    f"{PENALTY_2023:g} (lesions_missed and lesions_false say how many a case has), no lesion at all 0.",
    "instance_hd95": f"instance_hd95 in mm, mean over pairs and instances without one: each of these counts "
    f"{PENALTY_2026:g}, no instance at all 0.",
}


def hd95_rule(conventions: Iterable[str]) -> str:
    """What must stand beside every HD95: its convention, and what an empty mask counts.

    Args:
        conventions: keys of `metrics.HD95_CONVENTIONS`, of all figures that are shown; an empty one is not
            known yet.
    """
    later = "its convention is named when the cases are read"
    words = [HD95_CONVENTIONS.get(name, later) for name in conventions]
    different = list(dict.fromkeys(words))
    apart = " (two conventions: not to be compared)" if len(different) > 1 else ""
    return f"HD95 in mm, {'; or '.join(different)}{apart}: {HD95_EMPTY}"


def mean(value: float, low: float | None, high: float | None) -> str:
    """`85.31 ± 1.20`; without a spread `85.31`."""
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} ± {(high - low) / 2:.2f}"


def means(values: np.ndarray, low: np.ndarray | None, high: np.ndarray | None) -> list[str]:
    """`mean` of each of several values."""
    if low is None or high is None:
        return [mean(value, None, None) for value in values]
    return [mean(*three) for three in zip(values, low, high, strict=True)]


def marks(subset: Subset) -> tuple[str, ...]:
    """`●` for each modality of the subset, `○` for the others, in the order of MODALITIES."""
    return tuple(GIVEN if modality in subset else MISSING for modality in MODALITIES)


def signed(value: float) -> str:
    """`+1.20`, `−0.35`; what rounds to nothing has no sign, `0.00`."""
    if math.isnan(value):
        return ABSENT
    return f"{value:{'+' if round(value, 2) else 'z'}.2f}".replace("-", "−")


def p_value(value: float | None) -> str:
    """Three digits, rounded up: what is printed never says more than what was found, and never 0."""
    if value is None:
        return ABSENT
    return "<0.001" if value < 0.001 else _up(value, "0.001")


def _up(value: float, step: str) -> str:
    """The next multiple of the step that is not below."""
    return str(Decimal(repr(float(value))).quantize(Decimal(step), ROUND_CEILING))


def interval(difference: Difference) -> str:
    """`+0.10 to +2.30`."""
    answer = difference.answer
    return ABSENT if answer is None else f"{signed(answer.low)} to {signed(answer.high)}"


def verdict(difference: Difference, margin: float) -> str:
    """In one or a few words; `how_to_read` explains each."""
    said = difference.verdict
    if said == "none":
        return f"none ({difference.why})"
    if said == "equal":
        said = f"equal within {points(margin)}"
    if difference.needed:
        said = f"undecided ({_needed(difference.needed, difference)})"
    return f"{said}, own spread" if difference.answer and difference.answer.apart else said


def points(value: float) -> str:
    """`1 point`, `0.5 points`."""
    return f"{value:g} point{'s' * (value != 1)}"


def _needed(demand: Needed, difference: Difference) -> str:
    """The better way first: the one that multiplies what there is by less."""
    ways = []
    if demand.seeds:
        ways.append((demand.seeds / len(difference.seeds), f"{demand.seeds} seeds"))
    if demand.cases:
        ways.append((demand.cases / difference.patients, f"{demand.cases} patients"))
    if ways:
        return "needs " + " or ".join(way for _, way in sorted(ways))
    return f"more than {MOST_SEEDS} seeds: these settle {_up(demand.settled, '0.1')} points or more"


def hours(spent: Mapping[str, float]) -> str:
    """`1.25 GPU`, `0.31 CPU`; both where a row was trained on both."""
    return " + ".join(f"{value:.2f} {kind.upper()}" for kind, value in sorted(spent.items())) or ABSENT


def span(least: int, most: int) -> str:
    """`5`, or `4 to 5`."""
    return str(least) if least == most else f"{least} to {most}"


def penalties(counts: np.ndarray | None, scores: int) -> str:
    """How many distances are penalties, by region, of counts [subsets, 3] over as many scores in each."""
    if counts is None:
        return "penalties are counted when the cases are read"
    said = ", ".join(f"{region} {n}" for region, n in zip(REGIONS, counts.sum(axis=0), strict=True))
    return f"penalties: {said} of {len(counts) * scores} scores each"


def family(result: Comparison, declared: bool) -> str:
    """What is asked of a table, and what that costs."""
    if not result.tests:
        return (
            "Nothing can be said about methods: that takes at least 2 seeds which two rows have both, and 2 "
            "patients. One training against another shows these two trainings only."
        )
    what = "declared in the spec" if declared else "rows × regions, with the baseline"
    said = f"{result.tests} question{'s' * (result.tests > 1)} ({what}); p adjusted is Holm's over them."
    if any(difference.verdict == "undecided" for difference in result.differences) and result.tests > 1:
        said += (
            " Fewer questions have more power: “compare:” in the spec declares which matter, before the "
            "scores are seen."
        )
    return said


def how_to_read(et_minimum: str, margin: str) -> tuple[str, ...]:
    """The method, once for the whole report."""
    return (
        "Dice in per cent: mean over cases, then over the 15 subsets of modalities, then over seeds. Both "
        "masks empty counts 100, an empty truth with any false positive 0. ± and intervals are 95 %: "
        "Student's t over seeds for figures; for differences as below.",
        "Differences are row minus baseline, or minus the row that a question names, on the seeds and cases "
        "that both have; scans of one patient are averaged first. Rows × seeds × patients are a multi-reader "
        "multi-case study (Obuchowski and Rockette 1995; Hillis 2007): all rows share seeds and patients, so "
        "what a seed or a patient does to every row alike cancels, and the spread that is left is estimated "
        "from all rows together. A row that spreads more than the others (over seeds by F, over patients by "
        f"Brown–Forsythe, level {UNEQUAL:g} over all) leaves this pool; that part of the error of its "
        "differences is the two rows' own, and they are marked “own spread”. p is two-sided; p adjusted is "
        "Holm's over all questions of a table. The interval is that of one difference alone, so a verdict "
        "can be undecided although the interval leaves out 0.",
        f"Verdicts. “better”, “worse”: p adjusted is at most {ALPHA:g}. “equal within {margin}”: the "
        "difference is shown to be smaller than that, up or down (two one-sided tests, Holm). “undecided”: "
        "neither is shown. “one seed”: two trainings were compared over patients, which says nothing about "
        "the methods. “none”: there is nothing to compare.",
        f"“needs” says how many seeds (patients as they are), or patients (seeds as they are), would find a "
        f"difference of the size seen with a power of 80 % among as many questions, the better way first. It "
        "supposes that difference and spread stay as they are: from few seeds that is a rough guess. More "
        f"than {MOST_SEEDS} seeds or {MOST_CASES:,} patients are not reckoned: such a difference is smaller "
        "than seeds can settle.",
        f"ET500: a predicted ET smaller than {et_minimum} mm³ is emptied before scoring. HD95, its "
        f"convention is named beside it: {HD95_EMPTY} {IN_BRACKETS} Crop box "
        "and brain mask come from all four modalities, also where some are missing (the field's protocol).",
        "Hours are worker time × CPUs or GPUs of the cells that are scored. A cell that two tables share is "
        "counted in both, and was trained once.",
    )
