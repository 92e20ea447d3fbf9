"""Figures as text, and the sentences that say how to read them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from acdis.evaluation.bootstrap import RESAMPLES
from acdis.evaluation.needed import MOST, Needed
from acdis.evaluation.statistics import ALPHA, EXACT_CASES, fewest_cases, smallest_p
from acdis.report.comparison import Difference

ABSENT = "–"


def mean(value: float, low: float | None, high: float | None) -> str:
    """`85.31 ± 1.20`; without a spread `85.31`."""
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} ± {(high - low) / 2:.2f}"


def signed(value: float) -> str:
    """`+1.20`, `−0.35`."""
    return ABSENT if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def p_value(value: float | None) -> str:
    """Three digits; never rounded down to where it would seem to say more than it does."""
    if value is None:
        return ABSENT
    return "<0.001" if value < 0.001 else f"{math.ceil(value * 1000 - 1e-9) / 1000:.3f}"


def verdict(difference: Difference) -> str:
    """In one or a few words."""
    if difference.verdict == "none":
        return f"none ({difference.why})"
    if difference.verdict == "undecided" and difference.needed:
        return f"undecided ({_needed(difference.needed, difference.cases)})"
    return difference.verdict


def _needed(demand: Needed, cases: int) -> str:
    ways = []
    if demand.by_cases:
        ways.append(f"{demand.by_cases[0]} cases")
    if demand.by_seeds and demand.by_seeds != demand.by_cases:
        with_cases, seeds = demand.by_seeds
        ways.append(f"{seeds} seeds" if with_cases == cases else f"{with_cases} cases with {seeds} seeds")
    return "needs " + " or ".join(ways) if ways else f"no number of cases or seeds up to {MOST:,} would do"


def hours(spent: Mapping[str, float]) -> str:
    """`1.25 GPU`, `0.31 CPU`; both where a row was trained on both."""
    return " + ".join(f"{value:.2f} {kind.upper()}" for kind, value in sorted(spent.items())) or ABSENT


def span(least: int, most: int) -> str:
    """`5`, or `4 to 5`."""
    return str(least) if least == most else f"{least} to {most}"


def strength(tests: int, cases: int) -> str:
    """What so many cases can carry at most, in so many tests."""
    fewest = fewest_cases(tests)
    said = (
        f"p-values are corrected for the {tests} tests of this table (Holm). With {cases} cases the Wilcoxon "
        f"test can give none below {_plain(smallest_p(cases))} before that"
    )
    if cases >= fewest:
        return f"{said}: enough to decide."
    return (
        f"{said}, and never {ALPHA:g} or less after it: at least {fewest} cases are needed before any row of "
        "this table can be called better or worse, whatever the figures look like."
    )


def untested(differences: int) -> str:
    """What it takes at the least, where no difference can be tested."""
    return (
        "Nothing can be tested: with one seed or one case the effect of a row cannot be told from chance. At "
        f"least 2 seeds per row and, for {differences} tests, {fewest_cases(differences)} cases are needed "
        "before any row of this table can be called better or worse."
    )


def _plain(value: float) -> str:
    return f"{value:.4g}" if value >= 1e-4 else f"{value:.0e}"


def how_to_read(et_minimum: str) -> tuple[str, ...]:
    """The method, once for the whole report."""
    return (
        "Dice in per cent: mean over cases, then over the 15 subsets of modalities, then over seeds. Both "
        "masks empty counts 100, an empty truth with any false positive 0. ± and intervals are 95 %: "
        "Student's t over seeds for figures; for differences the hierarchical bootstrap below. With one seed "
        "no spread can be given and nothing is tested.",
        "Differences are row minus baseline, on the cases that both have. Two answers must agree. Wilcoxon: "
        "signed-rank test, two-sided, over cases (per case the mean over subsets and seeds; differences of "
        f"zero by Pratt's method; exact up to {EXACT_CASES} cases). Bootstrap: {RESAMPLES:,} resamples of "
        "the row's seeds, the baseline's seeds and the cases (cases paired), rescaled for small counts; "
        "Student's t with Satterthwaite's degrees of freedom over their standard error. Both p-values are "
        "corrected by Holm over all rows × regions of a table. “better” and “worse” are printed only "
        f"where both are at most {ALPHA:g} and point the same way. The interval is that of one difference "
        "alone, so a verdict can be undecided although the interval leaves out 0.",
        "“needs” says with how many cases (seeds as they are), or with how many seeds per row, both tests "
        "would find an effect of the size seen, with a power of 80 % at 0.05 shared out over all tests. It "
        "supposes that effect and spread stay as they are: from few seeds that is a rough guess.",
        f"ET500: a predicted ET smaller than {et_minimum} mm³ is emptied before scoring. HD95: both masks "
        "empty counts 0 mm, one empty 373.13 mm. Crop box and brain mask come from all four modalities, also "
        "where some are missing (the field's protocol).",
        "Hours are worker time × CPUs or GPUs of the cells that are scored. A cell that two tables share is "
        "counted in both, and was trained once.",
    )
