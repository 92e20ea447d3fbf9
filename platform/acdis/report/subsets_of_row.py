"""The 15 subsets of one row, a line each: Dice and ET500 in per cent, HD95 in mm where it was measured."""

from __future__ import annotations

from acdis.report import floors, phrases
from acdis.report.comparison import Figures
from acdis.report.document import Section, Table
from acdis.report.facts import RowScores
from acdis.vocabulary import MODALITIES, REGIONS, SUBSETS


def section(row: RowScores, figures: Figures) -> Section:
    """Means over seeds with their spread, the means over the 15 subsets last; floors beside them."""
    head = [*MODALITIES, *(f"{region} %" for region in REGIONS), "ET500 %"]
    head += [f"{region} HD95 mm" for region in REGIONS] if figures.hd95 is not None else []
    low, high = figures.subsets_low, figures.subsets_high
    body: list[tuple[str, ...]] = []
    for place, subset in enumerate(SUBSETS):
        spread = (None, None) if low is None or high is None else (low[place], high[place])
        dice = phrases.means(figures.subsets[place], *spread)
        body.append((*phrases.marks(subset), *dice, *_others(figures, place)))
    means = phrases.means(figures.mean, figures.low, figures.high)
    body.append(("mean", "of", "15", "", *means, *_others(figures, None)))
    seeds = "1 seed: no spread" if figures.seeds == 1 else f"{figures.seeds} seeds"
    notes = (f"{row.label}: {row.note}",) if row.note else ()
    rule: tuple[str, ...] = ()
    if figures.hd95 is not None:
        rule = (f"{phrases.hd95_rule(figures.hd95_conventions)} {phrases.IN_BRACKETS}",)
    own = Section(
        4,
        f"15 subsets: {row.label} ({row.id})",
        (f"{seeds}; {phrases.span(*figures.cases)} cases.",),
        Table(tuple(head), tuple(body), "llll" + "r" * (len(head) - 4), last_apart=True),
        (*notes, *rule),
    )
    return floors.beside_subsets(own, row)


def _others(figures: Figures, place: int | None) -> list[str]:
    """ET500 and HD95 of one subset, or their means over the 15."""
    et500 = figures.et500.mean() if place is None else figures.et500[place]
    if figures.hd95 is None:
        return [f"{et500:.2f}"]
    distances = figures.hd95.mean(axis=0) if place is None else figures.hd95[place]
    assert figures.penalties is not None  # counted with the distances
    counts = figures.penalties.sum(axis=0) if place is None else figures.penalties[place]
    return [f"{et500:.2f}", *(f"{mm:.2f} ({count})" for mm, count in zip(distances, counts, strict=True))]
