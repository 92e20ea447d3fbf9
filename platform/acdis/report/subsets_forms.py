"""The field's table as Markdown, LaTeX, CSV and HTML: `report --layout subsets`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from acdis.report import floats, phrases, rendering
from acdis.report.costs import FIGURES, HEAD, HOW, Cost
from acdis.report.csv_lines import CsvLines
from acdis.report.facts import PHANTOM_WARNING
from acdis.report.subsets_table import Line, SubsetsTable
from acdis.vocabulary import MODALITIES, REGIONS, SUBSETS, subset_name

_MARKS = [phrases.marks(subset) for subset in SUBSETS]
_COLUMNS = len(SUBSETS) + 1
_CSV = (
    *("warning", "phantoms", "spec", "block", "row", "label", "region", "subset", "source"),
    *("dice_percent", "rank", "verdict_mark", "cpu_hours", "gpu_hours", *FIGURES),
)


def as_markdown(tables: Sequence[SubsetsTable], standalone: bool = False) -> str:
    """A head of circles: FLAIR, T1ce, T1, T2, full where the modality is given."""
    return _render("subsets.md", tables)


def as_latex(tables: Sequence[SubsetsTable], standalone: bool = False) -> str:
    """Tables to be `\\input` (booktabs, graphicx); `standalone`: a document that compiles by itself."""
    noted = [note for table in tables for note in (*table.first, *table.warnings, *table.notes)]
    return _render(
        "subsets.tex",
        tables,
        standalone=standalone,
        noted=noted,
        unnumbered=floats.unnumbered,
    )


def as_page(tables: Sequence[SubsetsTable], standalone: bool = False) -> str:
    """One HTML file that needs nothing else."""
    title = "; ".join(dict.fromkeys(table.title for table in tables))
    return _render("subsets.html", tables, title=title)


def as_csv(tables: Sequence[SubsetsTable], standalone: bool = False) -> str:
    """A line per block, row, region and subset; figures unrounded; other sources' means at the end."""
    written = CsvLines(_CSV)
    names = [*map(subset_name, SUBSETS), "mean"]
    for table in tables:
        common = {"warning": " ".join((*table.first, *table.warnings)) or None, "spec": table.spec}
        drawn = PHANTOM_WARNING in table.warnings
        for block in table.blocks:
            for region in REGIONS:
                for line in block.lines[region]:
                    about = {"block": block.name, "row": line.id, "label": line.label, "region": region}
                    own = {"phantoms": drawn and block.name == "ours"}
                    values = [math.nan] * _COLUMNS if line.values is None else line.values.tolist()
                    for name, value, rank in zip(names, values, line.ranks, strict=True):
                        figures = {
                            "subset": name,
                            "dice_percent": None if math.isnan(value) else value,
                            "rank": rank or None,
                            "verdict_mark": line.mark if name == "mean" else None,
                        }
                        if name == "mean" and block.name == "ours":
                            figures |= _spent(table.costs.get(line.id))
                        written.add(common | own | about | figures)
        for published in table.published:
            for region in REGIONS:
                about = {"block": "published", "label": published.label, "source": published.source}
                figures = {
                    "phantoms": False,
                    "region": region,
                    "subset": "mean",
                    "dice_percent": published.figures[region],
                }
                written.add(common | about | figures)
    return written.text


def _spent(cost: Cost | None) -> dict[str, float]:
    if cost is None:
        return {}
    return {**{f"{kind}_hours": spent for kind, spent in cost.hours.items()}, **cost.figures}


def _render(template: str, tables: Sequence[SubsetsTable], **more: Any) -> str:
    return rendering.render(
        template,
        tables=tables,
        cells=_cells,
        MARKS=_MARKS,
        MODALITIES=MODALITIES,
        REGIONS=REGIONS,
        COST_HEAD=HEAD,
        COST_HOW=HOW,
        **more,
    )


def _cells(line: Line) -> list[tuple[str, int]]:
    """Text with two decimals and rank, column by column."""
    if line.values is None:
        return [(phrases.ABSENT, 0)] * _COLUMNS
    return [(f"{value:.2f}", rank) for value, rank in zip(line.values, line.ranks, strict=True)]


FORMS: dict[str, Callable[[Sequence[SubsetsTable], bool], str]] = {
    "md": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
    "html": as_page,
}
