"""A region has one colour in figures and on pages, and it can be seen there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from acdis.report import palette
from acdis.vocabulary import CLASSES, REGIONS

STATIC = Path("platform") / "acdis" / "dashboard" / "static"
ROOT = re.compile(r":root \{(.*?)\}", re.S)
VARIABLE = re.compile(r"--([a-z-]+): (#[0-9a-f]{6})")


def themes(checkout: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The variables of the style sheet, light and dark."""
    light, dark = ROOT.findall((checkout / STATIC / "style.css").read_text(encoding="utf-8"))
    base = dict(VARIABLE.findall(light))
    return base, base | dict(VARIABLE.findall(dark))


def luminance(colour: str) -> float:
    """WCAG 2.1, relative luminance."""
    parts = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in palette.rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_pages_and_figures_have_the_same_colours(checkout: Path) -> None:
    for theme in themes(checkout):
        shown = {name: theme[f"region-{name.lower()}"].upper() for name in REGIONS}
        assert shown == palette.REGIONS
    script = (checkout / STATIC / "common.js").read_text(encoding="utf-8")
    series = re.search(r"export const SERIES = \[(.*?)\];", script, re.S)
    assert series
    assert tuple(re.findall(r"#[0-9a-f]{6}", series[1])) == tuple(map(str.lower, palette.SERIES))


def test_bars_of_regions_are_drawn_in_them(checkout: Path) -> None:
    """The one chart whose series are regions."""
    script = (checkout / STATIC / "subsets.js").read_text(encoding="utf-8")
    assert "colour(`region-${region.toLowerCase()}`)" in script
    assert "SERIES" not in script


def test_a_label_that_is_a_region_has_its_colour() -> None:
    assert palette.LABELS[CLASSES.index("ET")] == palette.REGIONS["ET"]
    colours = {*palette.REGIONS.values(), *palette.LABELS.values()}
    assert len(colours) == len(REGIONS) + len(CLASSES) - 2  # no colour says two things; ET is in both


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_is_seen_on_either_ground(checkout: Path, region: str) -> None:
    """WCAG 2.1, 1.4.11: 3 : 1 for graphics."""
    for theme in themes(checkout):
        one, other = sorted((luminance(palette.REGIONS[region]), luminance(theme["ground"])))
        assert (other + 0.05) / (one + 0.05) >= 3
