"""The 15 × 3 table: subsets down, regions across, the mean over the 15 last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acdis.vocabulary import MODALITIES, REGIONS, SUBSETS, Subset, metric_name

Row = tuple[str, ...]

PRESENT, ABSENT = "●", "○"


def columns(summary: Mapping[str, float]) -> list[tuple[str, str, str, float]]:
    """(heading, metric, region, factor): Dice and ET500 in per cent, HD95 in mm where it is there."""
    found = [(f"{region} %", "dice", region, 100.0) for region in REGIONS]
    found.append(("ET500 %", "dice_et500", "ET", 100.0))
    found += [(f"{region} HD95 mm", "hd95", region, 1.0) for region in REGIONS]
    return [column for column in found if metric_name(column[1], column[2]) in summary]


def header(summary: Mapping[str, float]) -> Row:
    """Four modalities, then the metrics."""
    return (*MODALITIES, *(column[0] for column in columns(summary)))


def rows(summary: Mapping[str, float]) -> list[Row]:
    """One row per subset in the order of the paper's Table 1, then the mean over the 15."""
    body = [(*_marks(subset), *_values(summary, subset)) for subset in SUBSETS]
    return [*body, ("mean", "of", "15", "", *_values(summary, None))]


def markdown(summary: Mapping[str, float], title: str, notes: Sequence[str]) -> str:
    """The table with a title above and notes below; padded, so that it can be read on a terminal as it is."""
    table = [header(summary), *rows(summary)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = [
        "-" * width if index < len(MODALITIES) else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    lines = [_line(table[0], widths), _line(rule, widths), *(_line(row, widths) for row in table[1:])]
    return "\n".join([f"# {title}", "", *lines, "", *notes, ""])


def notes(cases: int, et_minimum: float) -> list[str]:
    """What a reader must know to read the figures."""
    return [
        (
            f"Mean over {cases} cases; the last row is the mean over the 15 subsets. "
            "One training, one seed: no spread can be given."
        ),
        (
            "Dice: both masks empty counts 100, an empty truth with any false "
            "positive 0. HD95: both empty counts 0 mm, one empty 373.13 mm."
        ),
        f"ET500: a predicted ET smaller than {et_minimum:g} mm³ is emptied before scoring.",
        (
            "Crop box and brain mask come from all four modalities, also where some "
            "are missing (the field's protocol)."
        ),
    ]


def _marks(subset: Subset) -> Row:
    return tuple(PRESENT if modality in subset else ABSENT for modality in MODALITIES)


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
