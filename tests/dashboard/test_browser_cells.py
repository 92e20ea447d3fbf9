"""In a real browser, on a small ablation that was really trained: cases, curves and runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from acdis.cells import Cell
from acdis.evaluation.records import read_parquet

pytestmark = [pytest.mark.slow, pytest.mark.ray]

SPEC = "tiny_table"
ADDRESSES = [
    f"cases?spec={SPEC}",
    f"cases?spec={SPEC}&row=syn&measure=hd95&region=ET",
    f"curves?spec={SPEC}",
    f"curves?spec={SPEC}&seed=0&show=train/loss",
    f"run?spec={SPEC}",
    "run?cell=CELL",
]
#: How many colours a chart's canvas has.
COLOURS = (
    "(id) => { const canvas = document.querySelector(`#${id} canvas`);"
    "const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
    "return new Set(new Uint32Array(data.buffer)).size; }"
)


def opened(page: Any, where: str) -> None:
    """Go there, and wait until nothing is loaded any more."""
    assert page.goto(where).status == 200
    page.wait_for_load_state("networkidle")


def arrived(page: Any, where: Any) -> None:
    """What follows a click or a choice; scripts must have begun before the next one."""
    page.wait_for_url(where)
    page.wait_for_load_state("networkidle")


def cell_of(ablated: Any, row: str, seed: int) -> Cell:
    """The cell that serves a row and seed."""
    role = {"spec": SPEC, "row": row, "seed": seed}
    every = (Cell(folder) for folder in sorted((ablated.base / "cells").iterdir()))
    return next(cell for cell in every if any(role.items() <= each.items() for each in cell.roles()))


@pytest.mark.parametrize("where", ADDRESSES)
def test_a_page_can_be_read(can_be_read: Callable[[str], None], ablated: Any, where: str) -> None:
    can_be_read(where.replace("CELL", cell_of(ablated, "syn", 1).name))


def test_charts_are_drawn(page: Any, address: str) -> None:
    for where, charts in (("cases", ("spread", "scatter")), ("curves", ("chart-0", "chart-4"))):
        opened(page, f"{address}{where}?spec={SPEC}")
        for name in charts:
            assert page.evaluate(COLOURS, name) > 20, name


def test_clicking_through_cases(page: Any, address: str, ablated: Any) -> None:
    opened(page, f"{address}table?spec={SPEC}")
    page.get_by_role("link", name="Cases", exact=True).click()
    arrived(page, "**/cases?**")
    page.locator('select[name="region"]').select_option("TC")
    arrived(page, "**region=TC**")
    page.locator('select[name="y"]').select_option("conv")
    arrived(page, "**y=conv**")
    page.get_by_text("Rows: 2 of 2 shown").click()
    page.locator('input[name="row"][value="syn"]').uncheck()
    page.get_by_role("button", name="Show").click()
    arrived(page, lambda url: "row=conv" in url and "row=syn" not in url)
    seeds = []
    for seed in (0, 1):
        (file,) = cell_of(ablated, "conv", seed).evaluations.glob("*/records.parquet")
        seeds.append([100 * each.dice for each in read_parquet(file) if each.region == "TC"])
    cells = page.locator('#spreads tr[data-row="conv"] td')
    assert cells.nth(2).inner_text() == f"{np.mean(seeds):.2f}"
    page.locator("#worst a", has_text="seed").first.click()
    arrived(page, "**/run?cell=**")
    page.go_back()
    arrived(page, "**/cases?**")
    link = page.locator("#worst a.aside").first.get_attribute("href")
    page.locator("#worst a.aside").first.click()
    page.wait_for_url(f"**{link}**")


def test_each_of_the_worst_cases_has_its_picture(page: Any, address: str, ablated: Any) -> None:
    (file,) = cell_of(ablated, "syn", 0).evaluations.glob("*/records.parquet")
    opened(page, f"{address}cases?spec={SPEC}&y=syn")
    cases = [row.get_attribute("data-case") for row in page.locator("#worst tbody tr").all()]
    assert sorted(cases) == sorted({each.case for each in read_parquet(file)})
    for case in cases:
        picture = page.locator(f'#worst tr[data-case="{case}"] img')
        picture.scroll_into_view_if_needed()
        page.wait_for_function("(image) => image.complete", arg=picture.element_handle())
        assert picture.evaluate("(image) => image.naturalWidth") > 100
        assert case in picture.get_attribute("src")


def test_a_click_on_a_point_leads_to_its_run(page: Any, address: str, ablated: Any) -> None:
    opened(page, f"{address}cases?spec={SPEC}&row=syn")
    found = json.loads(page.locator("#data").inner_text() or page.locator("#data").text_content())
    value, _, place = found["rows"][0]["points"][0]
    run = found["rows"][0]["seeds"][place]
    at = page.evaluate(
        "(value) => echarts.getInstanceByDom(document.getElementById('spread'))"
        ".convertToPixel({ xAxisIndex: 0, yAxisIndex: 1 }, [value, -0.25])",
        value,
    )
    page.locator("#spread").click(position={"x": at[0], "y": at[1]})
    page.wait_for_url(f"**{run['page']}**")


def test_clicking_through_a_run(page: Any, address: str, ablated: Any) -> None:
    cell, other = cell_of(ablated, "syn", 0), cell_of(ablated, "conv", 0)
    opened(page, f"{address}run?spec={SPEC}")
    page.get_by_role("link", name="seed 0 of MFSB + L_Syn").click()
    arrived(page, f"**cell={cell.name}**")
    keys = page.locator("#differences tbody th").all_inner_texts()
    assert "method.options.mfsb" in keys
    assert "seed" not in keys
    page.locator('select[name="against"]').select_option(cell_of(ablated, "syn", 1).name)
    arrived(page, "**against=**")
    assert page.locator("#differences tbody th").all_inner_texts() == ["seed"]
    for picture in page.locator(".pictures img").all():
        picture.scroll_into_view_if_needed()
        page.wait_for_function("(image) => image.complete", arg=picture.element_handle())
        assert picture.evaluate("(image) => image.naturalWidth") > 100
    page.get_by_role("link", name="Its curves").click()
    arrived(page, "**/curves?**seed=0**")
    assert page.get_by_role("heading", name="training, whole loss").is_visible()
    opened(page, f"{address}run?cell={other.name}")
    page.get_by_role("link", name="This run in MLflow").click()
    page.wait_for_url("**/runs/**")


def test_bands_are_those_of_the_histories(page: Any, address: str, ablated: Any) -> None:
    opened(page, f"{address}curves?spec={SPEC}&show=train/loss")
    last = [cell_of(ablated, "conv", seed).history()[-1]["terms"]["loss"] for seed in (0, 1)]
    shown = page.locator('[data-curve="train/loss"] td').first.inner_text().split()
    assert float(shown[0]) == pytest.approx(np.mean(last), rel=1e-3)
    assert [float(shown[1]), float(shown[3])] == pytest.approx([min(last), max(last)], rel=1e-3)
    page.locator('select[name="band"]').select_option("ci")
    arrived(page, "**band=ci**")
    assert page.get_by_text("Band: 95 % interval of the mean over seeds").is_visible()


def test_by_keyboard(page: Any, address: str) -> None:
    opened(page, f"{address}cases?spec={SPEC}")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):  # past the last one
            break
        reached.add(page.evaluate("document.activeElement.textContent.trim().slice(0, 20)"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", page.evaluate("document.activeElement.outerHTML")
    assert {"Show", "Rows: 2 of 2 shown", "seed 0", "table"} <= reached
