"""Run: settings beside another run's, where it came from, figures and files; nothing outside its folder."""

from __future__ import annotations

import html
import json
import os
import re
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from acdis.evaluation.records import read_parquet

PICTURE = b"\x89PNG\r\n\x1a\n" + b"not really a picture"


def table(page: str, name: str) -> list[list[str]]:
    """Texts of a table's cells, row by row, its head left out."""
    found = re.search(rf'<table id="{name}">(.*?)</table>', page, re.S)
    body = re.search(r"<tbody>(.*)</tbody>", found[1], re.S) if found else None
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body[1], re.S) if body else []
    return [
        [
            html.unescape(re.sub(r"<[^>]+>", "", cell)).strip()
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row)
        ]
        for row in rows
    ]


def shown(lab: Any, row: str, seed: int, **more: str) -> Any:
    cell = lab.cell(row, seed)
    return lab.client().get("/acdis/run", params={"cell": cell.name, "spec": "small", **more})


def test_settings_that_differ(lab: Any) -> None:
    """Beside the baseline of the same seed, unless another is asked for."""
    page = shown(lab, "fast", 1).text
    assert table(page, "differences") == [["training.learning_rate", "0.001", "0.0001"]]
    page = shown(lab, "fast", 1, against=lab.cell("slow", 2).name).text
    ours, theirs = (
        yaml.safe_load((lab.cell(*of).folder / "config.yaml").read_text())
        for of in (("fast", 1), ("slow", 2))
    )
    assert (ours["seed"], theirs["seed"]) == (1, 2)
    assert table(page, "differences") == [
        ["seed", "1", "2"],
        [
            "training.learning_rate",
            str(ours["training"]["learning_rate"]),
            str(theirs["training"]["learning_rate"]),
        ],
    ]
    assert "Choose a run above" in shown(lab, "fast", 1, against="").text
    assert "Choose a run above" in shown(lab, "slow", 1).text  # it is the baseline


def test_figures_are_those_of_the_records(lab: Any) -> None:
    def mean(row: str, field: str, region: str) -> float:
        (file,) = lab.cell(row, 1).evaluations.glob("*/records.parquet")
        return float(np.mean([getattr(each, field) for each in read_parquet(file) if each.region == region]))

    page = shown(lab, "fast", 1).text
    assert "Try again" not in page  # it is done
    assert "stopped" not in page
    found = {(line[0], line[1]): line[2:] for line in table(page, "figures")}
    assert len(found) == 7
    assert "one empty 373.13 (a penalty); penalties: WT 0, TC 0, ET 0 of 90 scores each." in page
    assert "slow one, seed 1: penalties: WT 0, TC 0, ET 0 of 90 scores each." in page
    for measure, field, scale in (
        ("Dice, %", "dice", 100),
        ("ET500, %", "dice_et500", 100),
        ("HD95, mm", "hd95", 1),
    ):
        for region in ("ET",) if field == "dice_et500" else ("WT", "TC", "ET"):
            ours, theirs = scale * mean("fast", field, region), scale * mean("slow", field, region)
            delta = f"{ours - theirs:+.2f}".replace("-", "−")
            assert found[measure, region] == [f"{ours:.2f}", f"{theirs:.2f}", delta]


def test_where_it_came_from(lab: Any) -> None:
    page = shown(lab, "slow", 0).text
    assert "0123456789abcdef" in page
    assert "slow, seed 0 of" in page
    with sqlite3.connect(lab.base / "mlflow.db") as store:
        query = "SELECT run_uuid FROM tags WHERE key = 'acdis.cell' AND value = ?"
        (run,) = store.execute(query, (lab.cell("slow", 0).name,)).fetchone()
    assert f"/runs/{run}" in page
    assert f"/runs/{run}/artifacts" in page
    names = [line[0] for line in table(page, "files")]
    assert "config.yaml" in names
    assert not any("lock" in name for name in names)


def test_links_lead_here(lab: Any, client: Any) -> None:
    link = f'href="/acdis/run?cell={lab.cell("fast", 0).name}&amp;spec=small"'
    for address in ("/table?spec=small", "/subsets?spec=small&row=fast", "/run?spec=small"):
        assert link in client.get("/acdis" + address).text
    failed = f'href="/acdis/run?cell={lab.cell("plain", 2).name}&amp;spec=small"'
    assert failed in client.get("/acdis/").text


def test_a_failed_cell_says_why(lab: Any) -> None:
    page = shown(lab, "plain", 2)
    assert page.status_code == 200
    assert "the loss became NaN" in page.text
    assert "No scores yet" in page.text


def test_the_beginning_of_a_name_is_enough(lab: Any, client: Any) -> None:
    name = lab.cell("fast", 0).name
    assert client.get("/acdis/run", params={"cell": name[:-3]}).status_code == 200
    several = client.get("/acdis/run?cell=acdis-")
    assert several.status_code == 404
    assert "Several cells begin so" in several.text
    assert client.get("/acdis/run?cell=nobody").status_code == 404
    assert "Of which spec?" in client.get("/acdis/run").text


def test_a_cell_trained_elsewhere(lab: Any, tmp_path: Path) -> None:
    away = lab.client(base=tmp_path, specs=())
    name = lab.cell("fast", 0).name
    page = away.get("/acdis/run", params={"cell": name, "against": lab.cell("slow", 1).name})
    assert page.status_code == 200
    assert "trained elsewhere" in page.text
    assert table(page.text, "figures") == table(
        shown(lab, "fast", 0, against=lab.cell("slow", 1).name).text, "figures"
    )


@pytest.fixture
def drawn(own_lab: Any) -> Any:
    """A cell with pictures in its folder, and files that are none of its business."""
    folder = own_lab.cell("fast", 0).folder
    (folder / "figures").mkdir()
    for path in ("curves.png", "figures/figure5-case0.png", "../../secret.png", "figures/.half.png"):
        (folder / path).write_bytes(PICTURE)
    (folder / "figures" / "text.png").write_text("no picture")
    os.symlink(own_lab.base / "secret.png", folder / "link.png")
    os.symlink(folder / "circle.png", folder / "circle.png")
    os.mkfifo(folder / "pipe.png")
    return own_lab


def test_a_picture_has_its_caption(drawn: Any) -> None:
    folder = drawn.cell("fast", 0).folder
    (folder / "figures" / "figure5-case0.txt").write_text("Figure 5: <b>one</b>\n\nHow to read it.\n")
    (folder.parent.parent / "secret.txt").write_text("secret words")
    os.symlink(folder.parent.parent / "secret.txt", folder / "curves.txt")
    page = drawn.client().get("/acdis/run", params={"cell": drawn.cell("fast", 0).name}).text
    told = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.S)
    assert [one for one in told if "note" in one] == [
        'figures/figure5-case0.png<span class="note">Figure 5: &lt;b&gt;one&lt;/b&gt;  How to read it.</span>'
    ]
    assert "secret words" not in page
    (folder / "figures" / "figure5-case0.txt").write_text("x" * 20_000)
    page = drawn.client().get("/acdis/run", params={"cell": drawn.cell("fast", 0).name}).text
    assert '<span class="note">' not in "".join(re.findall(r"<figcaption>(.*?)</figcaption>", page, re.S))


def test_pictures_are_shown(drawn: Any) -> None:
    name = drawn.cell("fast", 0).name
    client = drawn.client()
    page = client.get("/acdis/run", params={"cell": name}).text
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert f"/acdis/picture/{name}/curves.png" in sources
    assert f"/acdis/picture/{name}/figures/figure5-case0.png" in sources
    assert not any("secret" in each or "link.png" in each for each in sources)
    answer = client.get(f"/acdis/picture/{name}/figures/figure5-case0.png")
    assert (answer.status_code, answer.content) == (200, PICTURE)
    assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    "path",
    [
        "../../secret.png",
        "..%2f..%2fsecret.png",
        "%2e%2e/%2e%2e/secret.png",
        "figures/../../../secret.png",
        "/secret.png",
        "link.png",
        "circle.png",
        "pipe.png",
        "figures/.half.png",
        "figures/text.png",
        "figures",
        "config.yaml",
        "state.json",
        "weights.pt",
        "nothing.png",
        "%00.png",
        "x" * 5000 + ".png",
    ],
)
def test_nothing_else_is_sent(drawn: Any, path: str) -> None:
    name = drawn.cell("fast", 0).name
    answer = drawn.client().get(f"/acdis/picture/{name}/{path}")
    assert answer.status_code == 404
    assert PICTURE not in answer.content
    for other in ("..", "%2e%2e", "a%2fb", "%00"):
        assert drawn.client().get(f"/acdis/picture/{other}/secret.png").status_code == 404


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"[1, 2]", b'"x"', b"null", b"\xff\xfe", b"a: [", b"1: {2: 2020-01-01}"]
)
@pytest.mark.parametrize("file", ["config.yaml", "lineage.json", "roles.json", "history.json"])
def test_half_written_files(own_lab: Any, file: str, content: bytes) -> None:
    (own_lab.cell("fast", 0).folder / file).write_bytes(content)
    page = shown(own_lab, "fast", 0)
    assert page.status_code == 200
    if file == "config.yaml":
        assert "is not known here" in page.text


def test_half_written_records(own_lab: Any) -> None:
    (file,) = own_lab.cell("fast", 0).evaluations.glob("*/records.parquet")
    file.write_bytes(file.read_bytes()[:200])
    page = shown(own_lab, "fast", 0)
    assert page.status_code == 200
    assert "The scores of this cell cannot be read" in page.text


def test_hostile_values(own_lab: Any) -> None:
    bad = "</script><script>alert(1)</script>"
    cell = own_lab.cell("fast", 0)
    tree = yaml.safe_load((cell.folder / "config.yaml").read_text())
    tree["training"][bad] = bad + "y" * 10_000
    (cell.folder / "config.yaml").write_text(yaml.safe_dump(tree))
    (cell.folder / "roles.json").write_text(
        json.dumps({"roles": [{"spec": bad, "row": bad, "seed": 1}, 5, {}]})
    )
    tags = {"acdis.device": bad, "acdis.git_commit": 7, bad: bad}
    splits = {bad: [bad, 3], "train": 5}
    (cell.folder / "lineage.json").write_text(json.dumps({"tags": tags, "splits": splits}))
    (cell.folder / f"a{os.sep.join(['', 'b'])}").parent.mkdir()
    for name in ("<img src=x>.png", "a\nb.png", "é.txt"):
        (cell.folder / name).write_bytes(PICTURE)
    (Path(os.fsdecode(os.fsencode(cell.folder) + b"/\xff.png"))).write_bytes(PICTURE)
    state = cell.state() | {"step_seconds": "soon", "peak_bytes": None, "epochs": bad}
    (cell.folder / "state.json").write_text(json.dumps(state))  # `update` would refuse it
    page = shown(own_lab, "fast", 0)
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert "<img src=x>" not in page.text
    assert "y" * 1000 not in page.text


def test_a_cell_that_goes_while_shown(own_lab: Any) -> None:
    import shutil

    client = own_lab.client()
    params = {"cell": own_lab.cell("fast", 0).name, "spec": "small"}
    assert client.get("/acdis/run", params=params).status_code == 200
    shutil.rmtree(own_lab.cell("fast", 0).folder)
    page = client.get("/acdis/run", params=params)
    assert page.status_code == 200
    assert "trained elsewhere" in page.text
    with sqlite3.connect(own_lab.base / "mlflow.db") as store:
        store.execute("UPDATE runs SET lifecycle_stage = 'deleted'")
    page = client.get("/acdis/run", params=params)
    assert page.status_code == 404
    assert "There is no cell of this name" in page.text
