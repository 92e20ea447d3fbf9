"""The 15 × 3 figures: the report's, their differences, and the mean gain of a modality."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import numpy as np
import pytest

from acdis.report.modality_gains import gains
from acdis.report.paper.published import table1
from acdis.vocabulary import MODALITIES, REGIONS, SUBSETS, subset_name

LINE = re.compile(r'<tr data-subset="([^"]*)"[^>]*>(.*?)</tr>', re.S)


def figures(page: str) -> dict[str, list[float]]:
    """Of the table on the page, by subset."""
    return {
        name: [float(text) for text in re.findall(r"<td>([^<●○]*)</td>", body)]
        for name, body in LINE.findall(page)
    }


def charts(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    found: dict[str, Any] = json.loads(text)
    return found


def _mean(records: Any, region: str, subset: str) -> float:
    found = [record.dice for record in records if (record.region, record.subset) == (region, subset)]
    return 100 * sum(found) / len(found)


def test_figures_are_the_records(client: Any, records_of: Any, levels: Any) -> None:
    page = client.get("/acdis/subsets?spec=small&row=fast").text
    found = figures(page)
    assert list(found) == [*map(subset_name, SUBSETS), "mean"]
    seeds = [records_of(levels["fast"], seed) for seed in (0, 1, 2)]
    for name in map(subset_name, SUBSETS):
        wanted = [sum(_mean(each, region, name) for each in seeds) / 3 for region in REGIONS]
        assert found[name] == pytest.approx(wanted, abs=0.0051)
    values = np.array(charts(page)["values"])
    assert values == pytest.approx(np.array([found[subset_name(s)] for s in SUBSETS]), abs=0.0051)
    assert found["mean"] == pytest.approx(values.mean(axis=0), abs=0.0051)


def test_differences(client: Any) -> None:
    one, two, both = (
        figures(client.get(f"/acdis/subsets?spec=small&{query}").text)
        for query in ("row=fast", "row=slow", "row=fast&against=slow")
    )
    for name, values in both.items():
        assert values == pytest.approx(np.subtract(one[name], two[name]), abs=0.011)


def test_against_the_paper(client: Any) -> None:
    """The paper's Table 1, last line of ACDIS: 91.30, 86.23, 79.32 would be on top of nothing here."""
    one = figures(client.get("/acdis/subsets?spec=small&row=fast").text)
    page = client.get("/acdis/subsets?spec=small&row=fast&against=paper:ACDIS").text
    both = figures(page)
    for place, subset in enumerate(SUBSETS):
        wanted = np.subtract(one[subset_name(subset)], table1()["ACDIS"][place])
        assert both[subset_name(subset)] == pytest.approx(wanted, abs=0.011)
    assert "ACDIS in the paper" in page
    assert "2408.13733" in page


def test_table1_gives_the_averages_that_the_paper_prints() -> None:
    """Averages as printed in the paper's Table 1; it rounds two of them by up to 0.03 otherwise."""
    printed = {
        "HeMiS": (69.88, 52.46, 42.69),
        "U-HVED": (62.76, 43.53, 30.64),
        "RFNet": (86.76, 77.39, 60.93),
        "UNet-MFI": (82.21, 74.01, 57.52),
        "mmFormer": (82.92, 74.90, 58.02),
        "MMANet": (82.64, 76.99, 56.39),
        "ShaSpec": (84.74, 77.19, 57.22),
        "M3AE": (86.25, 77.56, 61.30),
        "GSS": (87.00, 78.45, 61.15),
        "ACDIS": (88.31, 79.56, 62.79),
    }
    assert list(table1()) == list(printed)
    for method, averages in printed.items():
        assert table1()[method].shape == (15, 3)
        assert table1()[method].mean(axis=0) == pytest.approx(averages, abs=0.035)


def test_gains_of_what_modalities_add_by_themselves() -> None:
    """Scores that are sums over modalities: adding one brings just its own share, in whatever subset."""
    shares = np.arange(12.0).reshape(4, 3) ** 2
    values = np.array([sum(shares[MODALITIES.index(m)] for m in subset) for subset in SUBSETS])
    assert gains(values) == pytest.approx(shares)


def test_gains_by_hand() -> None:
    """FLAIR alone scores: adding T1ce to it loses a seventh; nothing becomes FLAIR alone by adding FLAIR."""
    values = np.zeros((15, 3))
    values[SUBSETS.index(("FLAIR",))] = 7.0
    found = gains(values)
    assert found[MODALITIES.index("T1ce")] == pytest.approx([-1.0] * 3)
    assert found[MODALITIES.index("FLAIR")] == pytest.approx([0.0] * 3)


def test_gains_on_the_page(client: Any) -> None:
    page = client.get("/acdis/subsets?spec=small&row=fast&against=slow").text
    found = charts(page)
    assert found["sides"] == ["fast one", "slow one"]
    assert np.array(found["gains"]).shape == (2, 4, 3)
    first = html.unescape(page)[html.unescape(page).index('id="gains-table"') :]
    assert f"{found['gains'][0][0][0]:+.2f}" in first


def test_hd95(client: Any) -> None:
    dice = figures(client.get("/acdis/subsets?spec=small&row=fast").text)
    page = client.get("/acdis/subsets?spec=small&row=fast&metric=hd95").text
    for name, values in figures(page).items():  # made up as 20 mm × (1 - Dice)
        assert values == pytest.approx([20 * (1 - value / 100) for value in dice[name]], abs=0.011)
    assert charts(page)["better_is"] == "less"
    words = "the larger of the two directed 95th percentiles (MONAI)"
    rule = f"HD95 in mm, {words}: both masks empty counts 0, one empty 373.13 (a penalty)."
    assert f"{rule} fast one: penalties: WT 0, TC 0, ET 0 of 270 scores each." in html.unescape(page)


@pytest.mark.parametrize("query", ["row=nobody", "against=nobody", "against=paper:Nobody", "metric=other"])
def test_what_is_not_there_is_left_out(client: Any, query: str) -> None:
    answer = client.get(f"/acdis/subsets?spec=small&{query}")
    assert answer.status_code == 200
    assert len(figures(answer.text)) == 16


def test_before_there_are_scores(lab: Any, tmp_path: Any) -> None:
    page = lab.client(base=tmp_path, uri="").get("/acdis/subsets?spec=small")
    assert page.status_code == 200
    assert "No row of this spec has scores yet" in page.text
