"""The 15 × 3 table: subsets down, regions across, the mean over the 15 last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acdis.evaluation.scores import Scores
from acdis.report import calibration, phrases
from acdis.vocabulary import FURTHER_METRICS, MODALITIES, REGIONS, SUBSETS, Subset, metric_name

Row = tuple[str, ...]


def columns(summary: Mapping[str, float]) -> list[tuple[str, str, str, float]]:
    """(heading, metric, region, factor): Dice and ET500 in per cent, HD95 in mm where it is there."""
    possible = [(f"{region} %", "dice", region, 100.0) for region in REGIONS]
    possible.append(("ET500 %", "dice_et500", "ET", 100.0))
    possible += [(f"{region} HD95 mm", "hd95", region, 1.0) for region in REGIONS]
    return [column for column in possible if metric_name(column[1], column[2]) in summary]


def header(summary: Mapping[str, float]) -> Row:
    """Four modalities, then the metrics."""
    return (*MODALITIES, *(column[0] for column in columns(summary)))


def rows(summary: Mapping[str, float]) -> list[Row]:
    """One row per subset in the order of the paper's Table 1, then the mean over the 15."""
    body = [(*phrases.marks(subset), *_values(summary, subset)) for subset in SUBSETS]
    return [*body, ("mean", "of", "15", "", *_values(summary, None))]


def markdown(
    summary: Mapping[str, float],
    title: str,
    notes: Sequence[str],
    first: Sequence[str] = (),
    beside: Sequence[Row] = ((),) * 17,
) -> str:
    """The table with a title above and notes below; padded, so that it can be read on a terminal as it is.

    Args:
        first: lines before everything else.
        beside: more columns, line by line from the head on.
    """
    lines_of_it = zip([header(summary), *rows(summary)], beside, strict=True)
    table = [(*ours, *more) for ours, more in lines_of_it]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = [
        "-" * width if index < len(MODALITIES) else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    lines = [_line(table[0], widths), _line(rule, widths), *(_line(row, widths) for row in table[1:])]
    before = [text for line in first for text in (f"> **{line}**", "")]
    return "\n".join([*before, f"# {title}", "", *lines, "", *further(summary), *notes, ""])


def further(summary: Mapping[str, float]) -> list[str]:
    """The metrics of `evaluation.metrics`, means over the 15 subsets; empty where none was named."""
    lines = [
        (metric, *(f"{summary[metric_name(metric, region)]:.3f}" for region in REGIONS))
        for metric in FURTHER_METRICS
        if metric_name(metric, REGIONS[0]) in summary
    ]
    if not lines:
        return []
    table = [("mean of 15", *REGIONS), ("---", *("---:" for _ in REGIONS)), *lines]
    rules = [
        rule
        for metric, rule in (*phrases.LESION_RULES.items(), ("ece", calibration.RULE))
        if metric_name(metric, REGIONS[0]) in summary
    ]
    return [
        *("| " + " | ".join(row) + " |" for row in table),
        "",
        *(line for rule in rules for line in (rule, "")),
    ]


def notes(scores: Scores, et_minimum: float) -> list[str]:
    """What a reader must know to read the figures."""
    cases, has_hd95 = len(scores.cases), scores.hd95 is not None
    rule = phrases.hd95_rule([scores.hd95_convention])
    return [
        (
            f"Mean over {cases} cases; the last row is the mean over the 15 subsets. "
            "One training, one seed: no spread can be given."
        ),
        "Dice: both masks empty counts 100, an empty truth with any false positive 0.",
        *([f"{rule[:-1]}; {phrases.penalties(scores.penalties, cases)}."] if has_hd95 else []),
        f"ET500: a predicted ET smaller than {et_minimum:g} mm³ is emptied before scoring.",
        (
            "Crop box and brain mask come from all four modalities, also where some "
            "are missing (the field's protocol)."
        ),
    ]


def _values(summary: Mapping[str, float], subset: Subset | None) -> Row:
    return tuple(
        (f"{factor * summary[metric_name(metric, region, subset)]:.2f}")
        for _, metric, region, factor in columns(summary)
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Figures to the right, the marks of the modalities to the left."""
    padded = [
        cell.ljust(width) if index < len(MODALITIES) else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"
