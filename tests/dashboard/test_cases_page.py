"""Cases: how scores lie case by case, two rows against each other, the worst first."""

from __future__ import annotations

import html
import json
import re
import shutil
import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acdis.evaluation import floor_files
from acdis.evaluation.floors import Thresholds, given
from acdis.evaluation.records import Record, read_parquet, write_parquet
from acdis.report import spec_outline
from acdis.vocabulary import SUBSETS

PNG = b"\x89PNG\r\n\x1a\n"


def lines(page: str, name: str) -> list[list[str]]:
    """Texts of a table's cells, row by row, its head left out."""
    found = re.search(rf'<table id="{name}">.*?<tbody>(.*?)</tbody>', page, re.S)
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", found[1], re.S) if found else []
    return [
        [
            " ".join(html.unescape(re.sub(r"<[^>]+>", " ", cell)).split())
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
        ]
        for row in rows
    ]


def data(page: str) -> Any:
    """What the page gives its script."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]


def by_hand(lab: Any, row: str, seed: int, field: str, region: str, subset: str) -> dict[str, float]:
    """Of each case, from the records: one subset, or the mean over all of them."""
    (file,) = lab.cell(row, seed).evaluations.glob("*/records.parquet")
    found = defaultdict(list)
    for record in read_parquet(file):
        if record.region == region and subset in ("mean", record.subset):
            found[record.case].append(getattr(record, field))
    return {case: (1 if field == "hd95" else 100) * sum(each) / len(each) for case, each in found.items()}


@pytest.mark.parametrize(
    ("measure", "field", "region", "subset"),
    [
        ("dice", "dice", "WT", "mean"),
        ("dice", "dice", "TC", "FLAIR_T1ce"),
        ("et500", "dice_et500", "ET", "mean"),
        ("hd95", "hd95", "ET", "T2"),
    ],
)
def test_spreads_are_those_of_the_records(
    client: Any, lab: Any, measure: str, field: str, region: str, subset: str
) -> None:
    address = f"/acdis/cases?spec=small&measure={measure}&region={region}&subset={subset}"
    page = client.get(address).text
    shown = {line[0]: line[1:] for line in lines(page, "spreads")}
    assert list(shown) == ["slow one", "fast one", "plain one"]
    for row, seeds in (("slow", (0, 1, 2)), ("fast", (0, 1, 2)), ("plain", (0,))):
        every = [v for seed in seeds for v in by_hand(lab, row, seed, field, region, subset).values()]
        box = [f"{np.percentile(every, at):.2f}" for at in (5, 25, 50, 75, 95)]
        assert shown[f"{row} one"] == [str(len(seeds)), str(6 * len(seeds)), f"{np.mean(every):.2f}", *box]
    rule = "one empty 373.13 (a penalty). Penalties behind these points: slow one 0, fast one 0, plain one 0."
    assert (rule in page) == (measure == "hd95")
    points = sorted(point[0] for point in data(page)["rows"][2]["points"])
    assert points == pytest.approx(sorted(by_hand(lab, "plain", 0, field, region, subset).values()), abs=1e-4)


@pytest.mark.parametrize(("measure", "field", "sign"), [("dice", "dice", 1), ("hd95", "hd95", -1)])
def test_the_worst_come_first(client: Any, lab: Any, measure: str, field: str, sign: int) -> None:
    page = client.get(f"/acdis/cases?spec=small&y=fast&region=TC&measure={measure}").text
    seeds = [by_hand(lab, "fast", seed, field, "TC", "mean") for seed in (0, 1, 2)]
    means = {case: sum(each[case] for each in seeds) / 3 for case in seeds[0]}
    order = sorted(means, key=lambda case: sign * means[case])
    found = lines(page, "worst")
    assert [line[0] for line in found] == order
    assert [line[4] for line in found] == [f"{means[case]:.2f}" for case in order]
    worst = min(range(3), key=lambda seed: sign * seeds[seed][order[0]])
    assert found[0][1].startswith(f"seed {worst} ")
    assert f"{seeds[worst][order[0]]:.2f}" in found[0][1]


def test_two_rows_against_each_other(client: Any, lab: Any) -> None:
    page = client.get("/acdis/cases?spec=small&x=slow&y=fast&region=ET").text
    sides = []
    for row in ("slow", "fast"):
        seeds = [by_hand(lab, row, seed, "dice", "ET", "mean") for seed in (0, 1, 2)]
        sides.append({case: np.mean([each[case] for each in seeds]) for case in seeds[0]})
    gains = np.array([sides[1][case] - sides[0][case] for case in sides[0]])
    said = re.search(r'id="pair">(.*?)</p>', page, re.S)[1]  # type: ignore[index]
    assert f"is better in {(gains > 0).sum()} and worse in {(gains < 0).sum()}" in said
    assert f"mean difference {gains.mean():+.2f}, median {np.median(gains):+.2f}" in said
    points = {point["case"]: (point["x"], point["y"]) for point in data(page)["pair"]["points"]}
    assert points == {case: pytest.approx((sides[0][case], sides[1][case]), abs=1e-4) for case in sides[0]}


def test_points_lead_to_their_runs(client: Any, lab: Any) -> None:
    page = client.get("/acdis/cases?spec=small&y=fast")
    with sqlite3.connect(lab.base / "mlflow.db") as store:
        query = "SELECT value, run_uuid FROM tags WHERE key = 'acdis.cell'"
        runs = dict(store.execute(query).fetchall())
    for row in data(page.text)["rows"]:
        for seed in row["seeds"]:
            assert seed["page"].endswith(f"/runs/{runs[seed['cell']]}")
    assert f'href="/acdis/run?cell={lab.cell("fast", 1).name}&amp;spec=small"' in page.text
    assert f"/runs/{runs[lab.cell('fast', 1).name]}" in page.text


def test_pictures_of_the_worst_cases(own_lab: Any) -> None:
    """The evaluation's own where it is of this case, and what `report figures` drew."""
    cell = own_lab.cell("plain", 0)
    (records,) = cell.evaluations.glob("*/records.parquet")
    (records.parent / "qualitative").mkdir()
    for case in ("case1", "case2"):
        (records.parent / "qualitative" / f"{case}.png").write_bytes(PNG)
    (cell.folder / "figures").mkdir()
    (cell.folder / "figures" / "figure5-case1.png").write_bytes(PNG)
    (cell.folder / "figures" / "figure1-case0.png").write_bytes(PNG)
    client = own_lab.client()
    page = client.get("/acdis/cases?spec=small&y=plain").text
    sources = dict(re.findall(r'src="([^"]*\.png)" alt="Segmentations of (\w+)', page))
    name, evaluation = cell.name, records.parent.name
    assert sources == {
        f"/acdis/picture/{name}/evaluations/{evaluation}/qualitative/case2.png": "case2",
        f"/acdis/picture/{name}/figures/figure5-case1.png": "case1",
    }
    for source in sources:
        assert client.get(source).content == PNG
    assert f"report figures {name} --case case0" in page


def test_rows_that_are_asked_for(client: Any) -> None:
    page = client.get("/acdis/cases?spec=small&row=plain&row=slow&row=other").text
    assert [line[0] for line in lines(page, "spreads")] == ["slow one", "plain one"]
    assert "has no row other" in page
    page = client.get("/acdis/cases?spec=small&row=fast").text
    assert [line[0] for line in lines(page, "spreads")] == ["fast one"]
    assert 'id="pair"' not in page


def test_only_what_is_shown_is_read(lab: Any) -> None:
    from starlette.testclient import TestClient

    from acdis.dashboard.app import pages

    site = lab.site()
    TestClient(pages(site), root_path="/acdis").get("/acdis/cases?spec=small&row=fast")
    read = [
        (member.row.id, member.seed)
        for member in lab.members
        if site.folders.has_read(member.cell, member.evaluation)
    ]
    assert read == [("fast", 0), ("fast", 1), ("fast", 2)]


def test_wrong_choices_are_replaced(client: Any) -> None:
    page = client.get("/acdis/cases?spec=small&region=XX&subset=nope&measure=%3Cb%3E&x=zz&y=zz")
    assert page.status_code == 200
    assert "Dice, %, WT, mean over the 15 subsets" in page.text
    assert client.get("/acdis/cases?spec=other").status_code == 404
    assert "Of which spec?" in client.get("/acdis/cases").text


def test_records_that_changed_damaged_or_gone(own_lab: Any) -> None:
    client = own_lab.client()
    assert len(lines(client.get("/acdis/cases?spec=small&row=plain").text, "spreads")) == 1
    (file,) = own_lab.cell("plain", 0).evaluations.glob("*/records.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:300])
    page = client.get("/acdis/cases?spec=small&row=plain")
    assert page.status_code == 200
    assert "The records of 1 cell cannot be used" in page.text
    records = read_parquet(_other(file, whole))
    write_parquet(file, [Record(**{**vars(each), "dice": float("nan")}) for each in records])
    assert "The records of 1 cell cannot be used" in client.get("/acdis/cases?spec=small&row=plain").text
    file.unlink()
    page = client.get("/acdis/cases?spec=small&row=plain").text
    assert "None of these rows has scores yet" in page
    shutil.rmtree(own_lab.base / "cells")
    assert client.get("/acdis/cases?spec=small").status_code == 200


def _other(file: Path, content: bytes) -> Path:
    other = file.with_name("whole.parquet")
    other.write_bytes(content)
    return other


def test_floors_of_the_same_cases_stand_below_the_rows(own_lab: Any) -> None:
    """How they lie, and what each of the worst cases would have had; of Dice alone."""
    draw = np.random.default_rng(3)
    brain, fitted = draw.random((7, 3)), draw.random((7, 15, 3))
    names = ("unscored", *(f"case{number}" for number in range(6)))
    rule = {given(subset): Thresholds(1.0, 1.0, 1.0) for subset in SUBSETS}
    address = "/acdis/cases?spec=small&region=TC&y=fast"
    assert "floor" not in own_lab.client().get(address).text
    for path in own_lab.base.rglob("records.parquet"):
        floor_files.write(path.with_name("floors.json"), floor_files.Floors(4, rule, names, brain, fitted))
    client = own_lab.client()
    for chosen, by_rule in (("mean", fitted[1:, :, 1].mean(axis=1)), ("T1ce", fitted[1:, 1, 1])):
        page = client.get(f"{address}&subset={chosen}").text
        for line, values in zip(lines(page, "spreads")[-2:], (brain[1:, 1], by_rule), strict=True):
            assert line[1:3] == ["", "6"]
            due = 100 * np.array([values.mean(), *np.percentile(values, [5, 25, 50, 75, 95])])
            assert [float(figure) for figure in line[3:]] == pytest.approx(due, abs=0.0051)
        for name, *_, ours, theirs in lines(page, "worst"):
            number = int(name.removeprefix("case"))
            due = [100 * brain[number + 1, 1], 100 * by_rule[number]]
            assert [float(ours), float(theirs)] == pytest.approx(due, abs=0.0051)
    for measure in ("hd95", "et500"):
        assert "floor" not in client.get(f"{address}&measure={measure}").text


def test_without_hd95(own_lab: Any) -> None:
    (file,) = own_lab.cell("plain", 0).evaluations.glob("*/records.parquet")
    write_parquet(file, [Record(**{**vars(each), "hd95": None}) for each in read_parquet(file)])
    page = own_lab.client().get("/acdis/cases?spec=small&row=plain&measure=hd95").text
    assert "None of these rows has HD95, mm" in page


def test_cells_trained_elsewhere(lab: Any, tmp_path: Path) -> None:
    page = lab.client(base=tmp_path, specs=()).get("/acdis/cases?spec=small")
    assert page.status_code == 200
    assert "trained elsewhere" in page.text


def test_a_spec_that_only_the_store_knows(own_lab: Any, client: Any) -> None:
    """Its cells are here all the same: the same figures."""
    for file in spec_outline.files(own_lab.base):
        file.unlink()
    for seed in (0, 1, 2):
        cell = own_lab.cell("fast", seed)
        (folder,) = cell.evaluations.iterdir()
        cell.update(evaluation=folder.name)
    page = own_lab.client(specs=()).get("/acdis/cases?spec=small&row=fast").text
    assert (
        lines(page, "spreads")[0][1:] == lines(client.get("/acdis/cases?spec=small").text, "spreads")[1][1:]
    )


def test_hostile_names_of_cases(own_lab: Any) -> None:
    bad = "</script><img src=x onerror=alert(1)>"
    (file,) = own_lab.cell("plain", 0).evaluations.glob("*/records.parquet")
    names = {"case0": bad, "case1": "\x00\n", "case2": "z" * 10_000}
    records = [
        Record(**{**vars(each), "case": names.get(each.case, each.case)}) for each in read_parquet(file)
    ]
    write_parquet(file, records)
    page = own_lab.client().get("/acdis/cases?spec=small&row=plain&row=slow&y=plain")
    assert page.status_code == 200
    assert "<img src=x" not in page.text
    assert "z" * 1000 not in page.text
    assert len(lines(page.text, "worst")) == 6
    assert len(data(page.text)["pair"]["points"]) == 3  # the others have other names now
