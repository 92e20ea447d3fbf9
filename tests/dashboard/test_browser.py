"""In a real browser, on a small ablation that was really trained: what is seen, clicked and typed.

For a new page: a line in `ADDRESSES`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from acdis.dashboard.pages import PAGES

pytestmark = [pytest.mark.slow, pytest.mark.ray]

SPEC = "tiny_table"
ADDRESSES = [
    *(page.path.lstrip("/") + (f"?spec={SPEC}" if page.of_spec else "") for page in PAGES),
    f"subsets?spec={SPEC}&row=syn&against=conv",
    f"subsets?spec={SPEC}&row=syn&against=paper:ACDIS",
    "nothing-here",
]


def opened(page: Any, where: str, expected: int = 200) -> None:
    """Go there, and wait until nothing is loaded any more."""
    answer = page.goto(where)
    assert answer.status == expected
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("where", [each for each in ADDRESSES if each != "nothing-here"])
def test_a_page_can_be_read(can_be_read: Callable[[str], None], where: str) -> None:
    can_be_read(where)


def test_a_page_that_is_not_there(browser: Any, address: str) -> None:
    tab = browser.new_page()
    opened(tab, address + "nothing-here", 404)
    tab.get_by_role("link", name="To the overview").click()
    assert tab.get_by_role("heading", level=1).inner_text() == "Overview"
    tab.close()


def test_the_figures_are_those_of_report(page: Any, address: str, ablated: Any) -> None:
    lines = list(csv.DictReader(io.StringIO(ablated.run("report", str(ablated.spec), "--format", "csv"))))
    opened(page, f"{address}table?spec={SPEC}")
    for line in (each for each in lines if each["subset"] == "mean"):
        row = page.locator(f'tr[data-row="{line["row"]}"]')
        half = (float(line["dice_high"]) - float(line["dice_low"])) / 2
        shown = row.locator(f'[data-dice="{line["region"]}"]').inner_text()
        assert shown == f"{float(line['dice_percent']):.2f} ± {half:.2f}"
        assert (
            row.locator(f'[data-paper="{line["region"]}"]').inner_text()
            == f"{float(line['paper_percent']):.2f}"
        )
        if line["row"] != "conv":
            delta = f"{float(line['difference']):+.2f}".replace("-", "−")
            assert row.locator(f'[data-delta="{line["region"]}"] > span').first.inner_text() == delta
    opened(page, f"{address}subsets?spec={SPEC}&row=syn")
    regions = {"WT": 0, "TC": 1, "ET": 2}
    for line in (each for each in lines if each["row"] == "syn"):
        cells = page.locator(f'#figures tr[data-subset="{line["subset"]}"] td:not(.left)')
        shown = cells.nth(regions[line["region"]]).inner_text()
        assert shown == f"{float(line['dice_percent']):.2f}"


def test_downloads_are_what_report_prints(page: Any, address: str, ablated: Any) -> None:
    opened(page, f"{address}table?spec={SPEC}")
    for name, form in (("CSV", "csv"), ("LaTeX", "latex"), ("Markdown", "md")):
        with page.expect_download() as waiting:
            page.get_by_role("link", name=name, exact=True).click()
        text = waiting.value.path().read_text()
        assert text == ablated.run("report", str(ablated.spec), "--format", form)


def test_clicking_through(page: Any, address: str) -> None:
    opened(page, address)
    page.get_by_role("link", name="Table of Table 3").click()
    page.get_by_role("link", name="Dice").first.click()
    assert "sort=-WT" in page.url
    page.get_by_role("link", name="Subsets", exact=True).click()
    page.locator("#heat canvas").first.wait_for()  # scripts have run
    page.locator("select[name=row]").select_option("conv")
    page.wait_for_url("**row=conv**")
    page.locator("#heat canvas").first.wait_for()
    page.locator("select[name=against]").select_option("syn")
    page.wait_for_url("**against=syn**")
    assert page.get_by_role("heading", level=2).first.inner_text() == "Dice, %: w/o MFSB minus MFSB + L_Syn"
    page.go_back()
    assert "against=syn" not in page.url
    mlflow = page.get_by_role("link", name="MLflow", exact=True).get_attribute("href")
    assert page.request.get(f"{address.removesuffix('/acdis/')}{mlflow}").text().count("MLflow") > 0


def test_charts_are_drawn(page: Any, address: str) -> None:
    opened(page, f"{address}subsets?spec={SPEC}&row=syn")
    for name in ("heat", "gains"):
        drawn = page.evaluate(
            "(id) => { const canvas = document.querySelector(`#${id} canvas`);"
            "const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
            "return new Set(new Uint32Array(data.buffer)).size; }",
            name,
        )
        assert drawn > 20, name
    # At 1280 beside the table and the floors' three columns: three regions of two decimals and the names.
    assert "rule WT" in page.locator("#figures thead").inner_text()
    assert page.locator("#heat").bounding_box()["width"] > 400


def test_the_table_fits_an_ordinary_window(page: Any, address: str) -> None:
    """Three regions, each with its interval, p and verdict: nothing to scroll for sideways at 1280."""
    opened(page, f"{address}table?spec={SPEC}")
    wide = page.locator(".wide").first
    assert wide.evaluate("element => element.scrollWidth <= element.clientWidth")


def test_by_keyboard(page: Any, address: str) -> None:
    opened(page, f"{address}table?spec={SPEC}")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break  # round
        reached.add(page.evaluate("document.activeElement.textContent.trim().slice(0, 20)"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", page.evaluate("document.activeElement.outerHTML")
    assert {"Show", "CSV", "Dice", "Row", "How to read this"} <= reached


def test_the_overview_is_live(page: Any, address: str, ablated: Any) -> None:
    from acdis.cells import Cell

    cell = Cell(next((ablated.base / "cells").iterdir()))
    file = cell.folder / "state.json"
    before = file.read_bytes()
    page.add_init_script(
        "const real = setTimeout; window.setTimeout = (f, ms) => real(f, Math.min(ms, 300));"
    )
    page.goto(address)  # it never falls silent
    assert page.locator('[data-count="done"]').first.inner_text() == "4"
    try:
        with cell.alone():
            file.write_text(json.dumps(json.loads(before) | {"status": "training", "epoch": 3, "step": 1}))
            page.get_by_text("training, epoch 3 of 3").wait_for()
            assert page.locator('[data-count="running"]').first.inner_text() == "1"
    finally:
        file.write_bytes(before)
    page.locator('[data-count="done"]', has_text="4").first.wait_for()
