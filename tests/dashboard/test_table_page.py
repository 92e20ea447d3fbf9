"""The table: the same numbers as `report`, sorted and filtered, whole or at first without tests."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acdis.ablation.expansion import resolve
from acdis.ablation.spec import Question, load
from acdis.dashboard import results
from acdis.dashboard.app import pages
from acdis.dashboard.settings import Settings, from_environment
from acdis.dashboard.state import Site
from acdis.data.inputs import Inputs
from acdis.errors import UserError
from acdis.evaluation import floor_files, incomplete
from acdis.evaluation.floors import Thresholds, given
from acdis.evaluation.records import read_parquet, write_parquet
from acdis.report import phrases, spec_outline, strata
from acdis.report.facts import dump
from acdis.tracking import default_uri
from acdis.verbs.dashboard import DashboardRequest, dashboard
from acdis.verbs.report import ReportRequest, report
from acdis.vocabulary import REGIONS, SUBSETS
from acdis.workflow import opening

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
    monkeypatch.setattr(opening, "prepare", lambda *_: Inputs((), (), ()))

    def printed(form: str, layout: str = "rows", strata: Path | None = None) -> str:
        capsys.readouterr()
        report(ReportRequest([lab.spec], form=form, layout=layout, strata=strata))
        return capsys.readouterr().out

    return printed


@pytest.mark.parametrize("form", ["csv", "latex", "md"])
def test_downloads_are_what_report_prints(client: Any, reported: Any, form: str) -> None:
    answer = client.get(f"/acdis/table/report.{form}?spec=small")
    assert answer.status_code == 200
    assert answer.text == reported(form)
    assert "attachment" in answer.headers["content-disposition"]


@pytest.mark.parametrize("form", ["csv", "latex", "md", "html"])
def test_the_table_of_subsets_is_what_report_prints(client: Any, reported: Any, form: str) -> None:
    answer = client.get(f"/acdis/table/subsets.{form}?spec=small")
    assert answer.status_code == 200
    assert answer.text == reported(form, "subsets")
    assert f"/acdis/table/subsets.{form}?spec=small" in client.get("/acdis/table?spec=small").text
    assert client.get("/acdis/table/subsets.pdf?spec=small").status_code == 404


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
        p, adjusted = (phrases.p_value(float(line[key])) for key in ("p", "p_adjusted"))
        said = f"{delta} {low} to {high} p {p}, adjusted {adjusted} {line['verdict']}"
        assert cells["delta", region].startswith(said)


def test_declared_comparisons_are_all_that_is_tested(own_lab: Any) -> None:
    (file,) = spec_outline.files(own_lab.base)
    family = (Question("fast", "slow", ("TC",)), Question("plain", "fast", ("ET",)))
    file.write_bytes(dump([replace(spec_outline.read(file), family=family, margin=2.0)]))
    text = own_lab.client().get("/acdis/table?spec=small").text
    shown = rows(text)
    assert "adjusted <0.001 better" in shown["fast"]["delta", "TC"]
    assert shown["fast"]["delta", "WT"] == shown["plain"]["delta", "ET"] == "–"
    (declared,) = re.findall(r"<li>(plain one − fast one, ET: [^<]*)</li>", text)
    assert html.unescape(declared).endswith(", adjusted <0.001: one seed: these two trainings only")
    assert "1 question (declared in the spec)" in text
    assert "“equal within 2 points”" in text


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
    assert "Missing: plain seed 1 (missing); plain seed 2 (failed: the loss became NaN in epoch 3)." in text


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
    assert found(verdict="one seed") == ["plain"]
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
    from acdis.report.collect import outline

    members = resolve([load(lab.spec)], lambda _: Inputs((), (), ()))
    (file,) = spec_outline.files(lab.base)
    assert [spec_outline.read(file)] == outline(members)


def test_floors_stand_below_the_rows_and_what_is_below_them_is_said(own_lab: Any) -> None:
    """The whole brain's ET is set above the slow row's; the rule's means are 40, 40.5, 41."""
    rule = {given(subset): Thresholds(1.0, 1.0, 1.0) for subset in SUBSETS}
    names = tuple(f"case{case}" for case in range(6))
    fitted = np.tile([0.4, 0.405, 0.41], (6, 15, 1))
    found = floor_files.Floors(4, rule, names, np.tile([0.01, 0.02, 0.6], (6, 1)), fitted)
    client = own_lab.client()
    assert "floor" not in client.get("/acdis/table?spec=small").text
    for path in own_lab.base.rglob("records.parquet"):
        floor_files.write(path.with_name(floor_files.FILE), found)
    client = own_lab.client()
    page = client.get("/acdis/table?spec=small").text
    lines = re.findall(r'<tr class="quiet" data-floor="\d">(.*?)</tr>', page, re.S)
    figures = [re.findall(r'<td class="group">([\d.]+)</td>', line) for line in lines]
    assert figures == [["1.00", "2.00", "60.00"], ["40.00", "40.50", "41.00"]]
    assert "BELOW THE WHOLE BRAIN painted as tumour" in page
    assert "fitted on the 4 training cases" in page
    page = client.get("/acdis/subsets?spec=small&row=fast").text
    assert re.findall(r'<td class="quiet">([\d.]+)</td>', page) == ["40.00", "40.50", "41.00"] * 16
    assert "WT 1.00, TC 2.00, ET 60.00" in page
    assert "fitted on the 4 training cases" in page
    slow = client.get("/acdis/subsets?spec=small&row=slow").text
    assert re.findall(r"BELOW THE WHOLE BRAIN .*: (\w+) one \(ET [\d.]+ &lt; 60.00\)", slow) == ["slow"]
    assert "BELOW THE WHOLE BRAIN" not in client.get("/acdis/subsets?spec=small&row=slow&metric=hd95").text
    page = client.get(f"/acdis/run?cell={own_lab.cell('fast', 0).name}").text
    assert "Threshold rule: WT 40.00, TC 40.50, ET 41.00 %, mean over 15 subsets." in page
    one, less = (
        re.findall(r'<tr data-subset="mean".*?</tr>', client.get(f"/acdis/subsets?{query}").text, re.S)[0]
        for query in ("spec=small&row=fast", "spec=small&row=fast&against=floor:brain")
    )
    ours, minus = ([float(each) for each in re.findall(r"<td>([-+\d.]+)</td>", line)] for line in (one, less))
    assert minus == pytest.approx(np.subtract(ours, [1, 2, 60]), abs=0.011)


def test_what_the_rows_cost(own_lab: Any) -> None:
    """Of the row's cells the one that takes most; hours of all of them."""
    for seed, step in ((0, 0.5), (1, 0.75)):
        file = own_lab.cell("fast", seed).folder / "history.json"
        told = {"parameters": 2e6, "multiply_adds": 5e3, "window_voxels": 1e6, "step_seconds": step}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"capacity": told}))
    page = own_lab.client().get("/acdis/table?spec=small").text
    lines = re.findall(r'<tr data-cost="([^"]*)">(.*?)</tr>', page)
    costs = {label: re.findall(r"<td>([^<]*)</td>", body) for label, body in lines}
    assert list(costs) == ["slow one", "fast one", "plain one"]
    assert costs["fast one"] == ["0.60 CPU", "2.00", "–", "5.00", "10.00", "–", "0.75", "–"]
    assert costs["slow one"][1:] == ["–"] * 7


def test_other_sources_stand_below_the_rows(own_lab: Any) -> None:
    (file,) = spec_outline.files(own_lab.base)
    spec = spec_outline.read(file)
    first = replace(spec.rows[0], published={"Somebody": {"WT": 75.1, "TC": 65.45, "ET": 47.73}})
    file.write_bytes(dump([replace(spec, rows=(first, *spec.rows[1:]))]))
    page = own_lab.client().get("/acdis/table?spec=small").text
    lines = re.findall(r'<tr data-source-of="slow one">(.*?)</tr>', page)
    shown = [re.findall(r"<td[^>]*>([^<]*)</td>", line) for line in lines]
    assert shown == [
        ["slow one", "the paper", "80.00", "70.00", "60.00"],
        ["slow one", "Somebody", "75.10", "65.45", "47.73"],
    ]


def test_kinds_of_cases(lab: Any, records_of: Any, levels: Any, reported: Any, tmp_path: Path) -> None:
    """By plain sums over the cases of each kind; the download is what `report --strata` prints."""
    sites = tmp_path / "sites.csv"
    sites.write_text("case,site\n" + "".join(f"case{case},{'AAAABB'[case]}\n" for case in range(6)))
    client = lab.client(groups=strata.read_groups(sites))
    page = client.get("/acdis/table?spec=small").text
    lines = [
        re.findall(r"<td[^>]*>([^<]*)</td>", body)
        for body in re.findall(r'<tr data-of="By kind of case">(.*?)</tr>', page)
    ]
    found = {(line[0], line[1]): line[2:] for line in lines}
    assert {row for row, _ in found} == {"slow one", "fast one", "plain one"}
    for kind, cases in {"site A": "0123", "site B": "45", "a large lesion (0.001 to 0.001 ml)": "45"}.items():
        every = {
            region: [
                100 * record.dice
                for seed in (0, 1, 2)
                for record in records_of(levels["fast"], seed)
                if record.region == region and record.case[4:] in cases
            ]
            for region in REGIONS
        }
        due = [f"{sum(values) / len(values):.2f}" for values in every.values()]
        assert found["fast one", kind] == [str(len(cases)), *due]
    text = client.get("/acdis/table/report.md?spec=small").text
    assert text == reported("md", strata=sites)
    assert "site A" in text
    assert "site A" not in lab.client().get("/acdis/table?spec=small").text


def test_test_cases_that_lack_modalities(lab: Any, records_of: Any) -> None:
    """Two cases with T1 and T2 alone, beside the scores of one cell of three; the page has them by row."""
    cell = lab.cell("fast", 1)
    (evaluation,) = cell.evaluations.iterdir()
    own = [
        replace(record, case=f"lacking {record.case}")
        for record in records_of(0.5, 7)
        if record.case in ("case0", "case1") and record.subset in ("T1", "T2", "T1_T2")
    ]
    write_parquet(evaluation / incomplete.FILE, own)
    try:
        page = lab.client().get("/acdis/table?spec=small").text
    finally:
        (evaluation / incomplete.FILE).unlink()
    (body,) = re.findall(r'<tr data-of="Test cases that lack modalities">(.*?)</tr>', page)
    line = re.findall(r"<td[^>]*>([^<]*)</td>", body)
    means = [np.mean([100 * each.dice for each in own if each.region == region]) for region in REGIONS]
    assert line == ["fast one", "T1 + T2", "2", "3", *(f"{mean:.2f}" for mean in means)]


def test_the_server_reads_kinds_of_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = tmp_path / "sites.csv"
    monkeypatch.setenv("ACDIS_STRATA", str(sites))
    with pytest.raises(UserError, match=r"sites\.csv: cannot be read"):
        from_environment()
    with pytest.raises(UserError, match=r"sites\.csv: cannot be read"):
        dashboard(DashboardRequest(strata=sites, port=0))
    sites.write_text("case,site\ncase0,A\n")
    assert from_environment().groups == {"site": {"case0": "A"}}


def test_calibration_from_a_training_to_the_page(ablated: Any) -> None:
    """ECE of the page is the mean over the records of all cells of a row, and MLflow has each cell's."""
    from mlflow import MlflowClient
    from starlette.testclient import TestClient

    uri = default_uri(ablated.base)
    site = Site(Settings(ablated.base, uri, (ablated.spec,)))
    page = TestClient(pages(site), root_path="/acdis").get("/acdis/table?spec=tiny_table").text
    shown = [
        re.findall(r"<td[^>]*>([^<]*)</td>", body)
        for body in re.findall(r'<tr data-of="Calibration">(.*?)</tr>', page)
    ]
    cells = [cell for row in site.looked("tiny_table")[0].rows for cell in row.cells if row.id == "syn"]
    folders = [ablated.base / "cells" / cell.cell / "evaluations" / cell.evaluation for cell in cells]
    records = [record for folder in folders for record in read_parquet(folder / "records.parquet")]
    for region in REGIONS:
        mean = np.mean([record.ece for record in records if record.region == region])
        (line,) = (line for line in shown if line[:2] == ["MFSB + L_Syn", region])
        assert line[2] == f"{100 * mean:.2f}"
    assert all((folder / "reliability.png").stat().st_size > 1000 for folder in folders)
    run = MlflowClient(uri).get_run(site.runs()[cells[0].cell].id)
    ours = [each.ece for each in read_parquet(folders[0] / "records.parquet") if each.region == "ET"]
    assert run.data.metrics["ece/ET/mean"] == pytest.approx(np.mean(ours))
