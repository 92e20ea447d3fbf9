"""The table: the same numbers as `report`, sorted and filtered, whole or at first without tests."""

from __future__ import annotations

import csv
import html
import io
import re
from pathlib import Path
from typing import Any

import pytest

from acdis.ablation.members import resolve
from acdis.ablation.spec import load
from acdis.dashboard import results
from acdis.data.inputs import Inputs
from acdis.verbs import specs
from acdis.verbs.report import Wanted, report
from acdis.vocabulary import REGIONS

ROW = re.compile(r'<tr data-row="([^"]*)">(.*?)</tr>', re.S)
CELL = re.compile(r'<td[^>]*data-(dice|paper|delta)="(\w+)">(.*?)</td>', re.S)


def rows(page: str) -> dict[str, dict[tuple[str, str], str]]:
    """Text of the cells of each row, in the order of the page."""
    return {
        html.unescape(row): {
            (kind, region): " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())
            for kind, region, text in CELL.findall(body)
        }
        for row, body in ROW.findall(page)
    }


@pytest.fixture
def reported(lab: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What `report` prints of the lab."""
    monkeypatch.setenv("ACDIS_HOME", str(lab.base))
    monkeypatch.setattr(specs, "prepare", lambda *_: Inputs((), (), ()))

    def printed(form: str) -> str:
        capsys.readouterr()
        report(Wanted([lab.spec], form=form))
        return capsys.readouterr().out

    return printed


@pytest.mark.parametrize("form", ["csv", "latex", "md"])
def test_downloads_are_what_report_prints(client: Any, reported: Any, form: str) -> None:
    answer = client.get(f"/acdis/table/report.{form}?spec=small")
    assert answer.status_code == 200
    assert answer.text == reported(form)
    assert "attachment" in answer.headers["content-disposition"]


def test_what_is_shown_is_what_report_says(client: Any, reported: Any) -> None:
    shown = rows(client.get("/acdis/table?spec=small").text)
    lines = [line for line in csv.DictReader(io.StringIO(reported("csv"))) if line["subset"] == "mean"]
    assert list(shown) == ["slow", "fast", "plain"]
    for line in lines:
        cells, region = shown[line["row"]], line["region"]
        spread = ""
        if line["dice_high"]:  # one seed has none
            spread = f" ± {(float(line['dice_high']) - float(line['dice_low'])) / 2:.2f}"
        assert cells["dice", region] == f"{float(line['dice_percent']):.2f}{spread}"
        published = f"{float(line['paper_percent']):.2f}" if line["paper_percent"] else "–"
        assert cells["paper", region] == published
        if line["row"] == "slow":
            assert cells["delta", region] == "baseline"
            continue
        delta, low, high = (
            f"{float(line[key]):+.2f}".replace("-", "−") if line[key] else ""
            for key in ("difference", "difference_low", "difference_high")
        )
        interval = f"{low} to {high} " if low else ""
        assert cells["delta", region].startswith(f"{delta} {interval}{line['verdict']}")


def test_means_are_the_cases(client: Any, records_of: Any, levels: Any) -> None:
    """By a plain loop: over cases and subsets, then over seeds."""
    shown = rows(client.get("/acdis/table?spec=small").text)
    for region in REGIONS:
        every = [
            [record.dice for record in records_of(levels["fast"], seed) if record.region == region]
            for seed in (0, 1, 2)
        ]
        mean = sum(100 * sum(each) / len(each) for each in every) / 3
        assert shown["fast"]["dice", region].split(" ")[0] == f"{mean:.2f}"


def test_the_notes_and_seeds_are_there(client: Any) -> None:
    text = client.get("/acdis/table?spec=small").text
    assert "Tick marks garbled in the source." in text
    assert "1 of 3" in text
    assert "<td>6</td>" in text  # cases
    assert (
        "Missing: plain seed 1 (not started); plain seed 2 (failed: the loss became NaN in epoch 3)." in text
    )


def test_figures_first_tests_later(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FEW_FILES", -1)
    client = lab.client()
    early = client.get("/acdis/table?spec=small&sort=WT")
    assert "Figures come from MLflow" in early.text
    (source,) = re.findall(r'data-source="([^"]*)"', early.text)
    late = client.get(html.unescape(source)).json()
    assert "Figures come from" not in late["html"]
    before, after = rows(early.text), rows(late["html"])
    assert list(before) == list(after) == ["slow", "plain", "fast"]
    for name, cells in after.items():
        assert {key: text for key, text in before[name].items() if key[0] != "delta"} == {
            key: text for key, text in cells.items() if key[0] != "delta"
        }
    assert "data-source" not in client.get("/acdis/table?spec=small").text  # it is kept by now


def test_sorting(client: Any) -> None:
    def order(sort: str) -> list[str]:
        return list(rows(client.get("/acdis/table", params={"spec": "small", "sort": sort}).text))

    assert order("ET") == ["slow", "plain", "fast"]
    assert order("-ET") == ["fast", "plain", "slow"]
    assert order("label") == ["fast", "plain", "slow"]
    assert order("dWT") == ["plain", "fast", "slow"]  # the baseline has no difference: last either way
    assert order("-dWT") == ["fast", "plain", "slow"]
    assert order("nonsense") == ["slow", "fast", "plain"]


def test_filters(client: Any) -> None:
    def found(**more: str) -> list[str]:
        return list(rows(client.get("/acdis/table", params={"spec": "small", **more}).text))

    assert found(q="GARBLED") == ["fast"]
    assert found(q="one slow") == ["slow"]
    assert found(verdict="none") == ["plain"]  # it has one seed: not tested
    assert found(verdict="better", q="plain") == []
    text = client.get("/acdis/table?spec=small&q=nothing-like-it").text
    assert "No row of 3 matches" in text


def test_changed_records_change_the_table(own_lab: Any, records_of: Any) -> None:
    client = own_lab.client()
    before = rows(client.get("/acdis/table?spec=small").text)
    (other,) = own_lab.cell("fast", 0).evaluations.glob("*/records.parquet")
    (file,) = own_lab.cell("plain", 0).evaluations.glob("*/records.parquet")
    file.write_bytes(other.read_bytes())
    after = rows(client.get("/acdis/table?spec=small").text)
    assert after["slow"] == before["slow"]
    level = sum(r.dice for r in records_of(0.5, 0) if r.region == "WT") / (15 * 6)
    assert after["plain"]["dice", "WT"] == f"{100 * level:.2f}"


def test_half_written_records_cost_one_cell_only(own_lab: Any) -> None:
    (file,) = own_lab.cell("fast", 1).evaluations.glob("*/records.parquet")
    file.write_bytes(file.read_bytes()[:300])
    answer = own_lab.client().get("/acdis/table?spec=small")
    assert answer.status_code == 200
    assert "2 of 3" in answer.text
    assert "its records cannot be read" in answer.text


def test_cells_trained_elsewhere(lab: Any, tmp_path: Path, client: Any) -> None:
    away = lab.client(base=tmp_path, specs=())
    page = away.get("/acdis/table?spec=small").text
    assert "trained elsewhere" in page
    here = rows(client.get("/acdis/table?spec=small").text)
    for name, cells in rows(page).items():
        for region in REGIONS:
            assert cells["dice", region] == here[name]["dice", region]
    assert away.get("/acdis/table/report.csv?spec=small").status_code == 404


def test_without_a_spec_it_asks(client: Any, lab: Any, tmp_path: Path) -> None:
    assert 'href="/acdis/table?spec=small"' in client.get("/acdis/table").text
    assert client.get("/acdis/table?spec=other").status_code == 404
    assert "Known: small" in client.get("/acdis/table?spec=other").text
    assert "No cells yet" in lab.client(base=tmp_path, uri="", specs=()).get("/acdis/table").text


def test_a_spec_that_nobody_has_begun(tmp_path: Path, lab: Any) -> None:
    page = lab.client(base=tmp_path, uri="").get("/acdis/table?spec=small")
    assert page.status_code == 200
    assert rows(page.text)["fast"]["paper", "ET"] == "61.25"
    assert rows(page.text)["fast"]["dice", "ET"] == "–"


def test_facts_of_the_roster_are_those_of_the_spec(lab: Any) -> None:
    from acdis.report import roster
    from acdis.report.collect import outline

    members = resolve([load(lab.spec)], lambda _: Inputs((), (), ()))
    (file,) = roster.files(lab.base)
    assert [roster.read(file)] == outline(members)
