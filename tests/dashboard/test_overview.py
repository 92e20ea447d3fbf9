"""The overview: counts, time, hours, and what to do where there is nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from acdis.dashboard.app import pages
from acdis.dashboard.folders import FolderState
from acdis.dashboard.pages.overview import left
from acdis.dashboard.state import SeenCell
from acdis.report.facts import CellFacts
from acdis.tracking.epoch_log import EpochLog


def _specs(client: Any) -> dict[str, dict[str, Any]]:
    answer = client.get("/acdis/overview.json")
    assert answer.status_code == 200
    return {each["spec"]: each for each in answer.json()["specs"]}


def test_counts_and_hours(client: Any) -> None:
    small = _specs(client)["small"]
    assert {key: small[key] for key in ("done", "running", "failed", "stopped", "missing", "cells")} == {
        "done": 7,
        "running": 0,
        "failed": 1,
        "stopped": 0,
        "missing": 1,
        "cells": 9,
    }
    assert small["hours"] == {"cpu": pytest.approx(7 * 0.2)}
    assert small["left_seconds"] is None


def test_the_page(client: Any) -> None:
    page = client.get("/acdis/")
    assert page.status_code == 200
    for text in ("Table 9: a small ablation", "the loss became NaN", "7 done", "1 failed", "phantoms"):
        assert text in page.text


def test_hours_come_from_the_history_where_the_store_is_away(own_lab: Any) -> None:
    (own_lab.base / "mlflow.db").unlink()
    client = own_lab.client()
    small = _specs(client)["small"]
    assert small["done"] == 7
    assert small["hours"] == {"cpu": pytest.approx(7 * 2 * 4 * 90 / 3600)}
    assert "there is no store" in client.get("/acdis/").text


def test_hours_of_an_elastic_training_are_the_reports(own_lab: Any) -> None:
    """Two epochs with two workers and one with one, in a state that says one: the store's figure is older."""
    cell = own_lab.cell("plain", 0)
    epochs = [{"epoch": 1, "seconds": 3600.0, "workers": workers} for workers in (2, 2, 1)]
    (cell.folder / "history.json").write_text(json.dumps({"epochs": epochs}))
    cell.update(workers=1, cpus=3)
    assert cell.hours() == {"cpu": 15.0}
    small = _specs(own_lab.client())["small"]
    assert small["hours"] == {"cpu": pytest.approx(6 * 2 * 4 * 90 / 3600 + 15)}


def test_hours_of_a_cell_that_is_put_together_are_its_parts(own_lab: Any) -> None:
    """In report and dashboard alike; a part that is not there, or itself, adds nothing."""
    cell, parts = own_lab.cell("plain", 0), [own_lab.cell("slow", 0).name, own_lab.cell("fast", 1).name]
    each = 2 * 4 * 90 / 3600
    told = {"epochs": [], "parts": [*parts, "acdis-000000000000", cell.name, "../../elsewhere"]}
    (cell.folder / "history.json").write_text(json.dumps(told))
    assert cell.hours() == {"cpu": pytest.approx(2 * each)}
    small = _specs(own_lab.client())["small"]
    assert small["hours"] == {"cpu": pytest.approx(6 * each + 2 * each)}


def test_hours_of_a_failed_training_count(own_lab: Any) -> None:
    """It has no history: two epochs of half an hour with two CPUs are in its journal."""
    cell = own_lab.cell("plain", 2)
    cell.update(workers=1, cpus=2, gpus=0)
    log = EpochLog(cell.folder)
    for epoch in (1, 2):
        log.log_epoch(epoch, {"learning_rate": 1e-4, "epoch_seconds": 1800.0})
    small = _specs(own_lab.client())["small"]
    assert small["failed"] == 1
    assert small["hours"] == {"cpu": pytest.approx(7 * 0.2 + 2)}


def test_a_torn_file_is_told_where_its_cell_is_shown(own_lab: Any) -> None:
    torn = own_lab.cell("plain", 0)
    (torn.folder / "state.json").write_text('{"status": "do')
    client = own_lab.client()
    small = _specs(client)["small"]
    assert (small["done"], small["failed"], small["stopped"], small["missing"]) == (6, 1, 1, 1)
    page = client.get(f"/acdis/run?cell={torn.name}").text
    assert "state.json: is damaged (it ends in the middle); weights and scores stay" in page


def test_a_cell_at_work_is_seen_at_once(own_lab: Any) -> None:
    client = own_lab.client()
    assert _specs(client)["small"]["running"] == 0
    cell = own_lab.cell("plain", 1)
    cell.folder.mkdir()
    progress = {"epochs": 4, "steps": 10, "step_seconds": 2.5}
    with cell.alone():
        cell.update(status="training", epoch=2, step=5, done=1, validation={"dice/mean": 0.456}, **progress)
        small = _specs(client)["small"]
        assert (small["running"], small["missing"]) == (1, 0)
        assert small["left_seconds"] == pytest.approx(2.5 * (40 - 15))
        page = client.get("/acdis/").text
        assert "training, epoch 2 of 4, 38 %" in page
        assert "45.6 %" in page
    assert _specs(client)["small"]["running"] == 0


def test_a_finished_cell_is_seen_at_once(own_lab: Any) -> None:
    client = own_lab.client()
    assert _specs(client)["small"]["done"] == 7
    own_lab.cell("slow", 0).weights.unlink()
    assert _specs(client)["small"]["done"] == 6


def test_without_anything(tmp_path: Path, lab: Any) -> None:
    client = lab.client(base=tmp_path / "none", uri=f"sqlite:///{tmp_path}/none.db", specs=())
    page = client.get("/acdis/")
    assert page.status_code == 200
    assert "No cells yet" in page.text
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "none.db").exists()


def test_a_spec_that_nobody_has_begun(tmp_path: Path, lab: Any) -> None:
    client = lab.client(base=tmp_path, uri="")
    small = _specs(client)["small"]
    assert (small["missing"], small["cells"]) == (9, 9)
    assert "No cell is done yet" in client.get("/acdis/").text


def test_a_wrong_spec_file_is_said(tmp_path: Path, lab: Any) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("rows: {a: {lable: x}}\n")
    page = lab.client(specs=(wrong, lab.spec)).get("/acdis/")
    assert "wrong.yaml" in page.text
    assert "lable" in page.text
    assert "Table 9" in page.text


def test_a_search_file_is_no_spec(lab: Any, checkout: Path) -> None:
    specs = tuple(sorted((checkout / "ablations").glob("*.yaml")))
    found = lab.client(base=None, uri="", specs=specs).get("/acdis/overview.json").json()
    assert [each["spec"] for each in found["specs"]] == [
        "grid",
        "planted",
        "table1",
        "table1_published",
        "table2",
        "table3",
    ]


def test_what_only_the_store_knows(lab: Any, tmp_path: Path) -> None:
    small = _specs(lab.client(base=tmp_path, specs=()))["small"]
    assert small["cells"] == 9


@pytest.mark.parametrize(
    ("states", "seconds"),
    [
        # one at work with 30 of 40 steps left, one not begun that will need 40: both after each other
        ([("running", {"done": 1}), ("missing", {})], 2.0 * 30 + 2.0 * 40),
        # two at work side by side, the longer one counts
        ([("running", {"done": 1}), ("running", {"done": 3})], 2.0 * 30),
        # trained already, being scored: no step is left
        ([("running", {"status": "scoring"})], 0.0),
        # nobody at work: nobody knows
        ([("missing", {"done": 1})], None),
        ([], None),
    ],
)
def test_time_left(states: list[tuple[str, dict[str, Any]]], seconds: float | None) -> None:
    measured = {"epochs": 4, "steps": 10, "step_seconds": 2.0, "status": "training"}
    looks = [
        SeenCell(
            "r",
            "r",
            CellFacts(n, str(n), "", False, "", {}, ""),
            FolderState(status, measured | state if state else {}, None),
            None,
        )  # type: ignore[arg-type]
        for n, (status, state) in enumerate(states)
    ]
    assert left(looks) == seconds


def test_half_written_state(own_lab: Any) -> None:
    (own_lab.cell("slow", 0).folder / "state.json").write_text('{"status": "do')
    small = _specs(own_lab.client())["small"]
    assert (small["done"], small["stopped"], small["missing"]) == (6, 1, 1)


def test_the_fragment_is_what_the_page_holds(client: Any) -> None:
    html = json.loads(client.get("/acdis/overview.json").text)["html"]
    assert html.strip() in client.get("/acdis/").text


def test_behind_a_proxy_that_takes_a_path_off(lab: Any) -> None:
    """`uvicorn --root-path /proxy`: addresses on the page begin with it, ours and MLflow's."""
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.testclient import TestClient

    app = Starlette(routes=[Mount("/acdis", pages(lab.site()))])
    page = TestClient(app, root_path="/proxy").get("/proxy/acdis/table?spec=small").text
    links = re.findall(r'(?:href|src|action)="(/[^"?#]*)', page)
    assert {"/proxy/", "/proxy/acdis/", "/proxy/acdis/table", "/proxy/acdis/static/style.css"} <= set(links)
    assert all(link.startswith("/proxy/") for link in links)
