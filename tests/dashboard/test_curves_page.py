"""Curves: losses and validation over epochs, seeds as a band; from history, journal or MLflow's store."""

from __future__ import annotations

import html
import json
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from starlette.testclient import TestClient

from acdis.dashboard.app import pages
from acdis.dashboard.settings import Settings
from acdis.dashboard.state import Site
from acdis.tracking import default_uri, journal


def history(level: float, epochs: int = 5) -> list[dict[str, Any]]:
    """Losses fall, validation every other epoch rises."""
    return [
        {
            "epoch": n,
            "epochs": epochs,
            "terms": {"loss": level + 1 / n, "seg/fuse/dice": level / n},
            "learning_rate": 0.1,
            "seconds": 1.0,
            "validation": {"dice/mean": level * n / 10, "dice/WT/mean": level * n / 20} if n % 2 == 0 else {},
        }
        for n in range(1, epochs + 1)
    ]


#: A history of one epoch.
REST = (
    '{{"epochs": [{{"epoch": {epoch}, "terms": {terms}, "learning_rate": 0, "seconds": 0, '
    '"validation": {{}}}}]}}'
)
LEVELS = {("slow", 0): 0.5, ("slow", 1): 0.9, ("slow", 2): 0.6, ("fast", 0): 0.2}


@pytest.fixture
def trained(own_lab: Any) -> Any:
    """Row slow in three seeds, one of them stopped early; row fast in one."""
    for (row, seed), level in LEVELS.items():
        epochs = history(level, 3 if (row, seed) == ("slow", 2) else 5)
        (own_lab.cell(row, seed).folder / "history.json").write_text(json.dumps({"epochs": epochs}))
    return own_lab


def curves(page: str) -> dict[str, dict[str, Any]]:
    """By chart's title: by row's label: its curve."""
    titles = [html.unescape(each) for each in re.findall(r'<h2 id="curve-\d+">(.*?)</h2>', page)]
    found = re.search(r'id="data">(.*?)</script>', page, re.S)
    given = json.loads(found[1]) if found else []
    assert len(given) == len(titles)
    return {
        title: {curve["label"]: curve for curve in each["curves"]}
        for title, each in zip(titles, given, strict=True)
    }


def test_mean_and_range_over_seeds(trained: Any) -> None:
    found = curves(trained.client().get("/acdis/curves?spec=small").text)
    assert list(found) == [
        "validation Dice, mean of the regions",
        "validation Dice, WT",
        "training, whole loss",
        "training, seg/fuse/dice",
    ]
    slow = found["training, whole loss"]["slow one"]
    assert slow["epochs"] == [1, 2, 3, 4, 5]
    assert slow["seeds"] == 3
    for at, epoch in enumerate(slow["epochs"]):
        seeds = [level + 1 / epoch for level in ((0.5, 0.9, 0.6) if epoch <= 3 else (0.5, 0.9))]
        assert slow["mean"][at] == pytest.approx(statistics.mean(seeds), rel=1e-4)
        assert (slow["low"][at], slow["high"][at]) == pytest.approx((min(seeds), max(seeds)), rel=1e-4)
    dice = found["validation Dice, WT"]["slow one"]
    assert dice["epochs"] == [2, 4]  # the others were not validated
    assert dice["mean"] == pytest.approx([2 / 20 * (0.5 + 0.9 + 0.6) / 3, 4 / 20 * 0.7], rel=1e-4)
    assert found["training, whole loss"]["fast one"]["seeds"] == 1
    assert "plain one" not in found["training, whole loss"]


def test_interval_of_the_mean(trained: Any) -> None:
    page = trained.client().get("/acdis/curves?spec=small&row=slow&band=ci&show=train/loss").text
    (found,) = curves(page).values()
    for at, epoch in enumerate(found["slow one"]["epochs"]):
        seeds = [level + 1 / epoch for level in ((0.5, 0.9, 0.6) if epoch <= 3 else (0.5, 0.9))]
        low, high = stats.t.interval(0.95, len(seeds) - 1, np.mean(seeds), stats.sem(seeds))
        assert (found["slow one"]["low"][at], found["slow one"]["high"][at]) == pytest.approx(
            (low, high), rel=1e-4
        )
    assert "Band: 95 % interval of the mean over seeds" in page


def test_one_seed_has_no_interval(trained: Any) -> None:
    found = curves(trained.client().get("/acdis/curves?spec=small&row=slow&band=ci&seed=1").text)
    loss = found["training, whole loss"]["slow one"]
    assert loss["mean"] == pytest.approx([0.9 + 1 / n for n in range(1, 6)], rel=1e-4)
    assert loss["low"] == loss["high"] == [None] * 5


def test_last_values(trained: Any) -> None:
    page = trained.client().get("/acdis/curves?spec=small&row=slow&show=train/").text
    row = re.search(r'data-curve="train/loss">(.*?)</tr>', page, re.S)[1]  # type: ignore[index]
    words = " ".join(re.sub(r"<[^>]+>", " ", row).split())
    assert (
        words == f"training, whole loss {0.7 + 0.2:.4g} {0.5 + 0.2:.4g} to {0.9 + 0.2:.4g} epoch 5, 2 seeds"
    )
    assert set(curves(page)) == {"training, whole loss", "training, seg/fuse/dice"}


def test_long_trainings_are_thinned(own_lab: Any) -> None:
    (own_lab.cell("slow", 0).folder / "history.json").write_text(json.dumps({"epochs": history(1.0, 1000)}))
    found = curves(own_lab.client().get("/acdis/curves?spec=small&show=train/loss").text)
    loss = found["training, whole loss"]["slow one"]
    assert len(loss["epochs"]) == 300
    assert (loss["epochs"][0], loss["epochs"][-1]) == (1, 1000)
    assert loss["mean"] == pytest.approx([1 + 1 / n for n in loss["epochs"]], rel=1e-4)


def test_while_it_is_trained_the_journal_tells(own_lab: Any) -> None:
    folder = own_lab.cell("slow", 0).folder
    (folder / "history.json").unlink()
    lines = [{"op": "epoch", "time": 1, "step": n, "values": {"train/loss": 3.0 / n}} for n in (1, 2)]
    lines.append({"op": "epoch", "time": 1, "step": 3, "values": {"train/loss": "nan", "train/x": 1}})
    text = "".join(json.dumps(each) + "\n" for each in lines)
    (folder / journal.JOURNAL).write_text(text + '{"op": "epoch", "ti')
    client = own_lab.client()
    loss = curves(client.get("/acdis/curves?spec=small").text)["training, whole loss"]["slow one"]
    assert (loss["epochs"], loss["mean"]) == ([1, 2], [3.0, 1.5])
    more = json.dumps({"op": "epoch", "time": 1, "step": 4, "values": {"train/loss": 0.5}}) + "\n"
    (folder / journal.JOURNAL).write_text(text + more)
    loss = curves(client.get("/acdis/curves?spec=small").text)["training, whole loss"]["slow one"]
    assert loss["epochs"] == [1, 2, 4]


def test_cells_trained_elsewhere_have_mlflow_s_curves(lab: Any, tmp_path: Path) -> None:
    import shutil
    import sqlite3

    shutil.copy(lab.base / "mlflow.db", tmp_path / "mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        query = "SELECT run_uuid FROM tags WHERE key = 'acdis.cell' AND value = ?"
        (run,) = store.execute(query, (lab.cell("fast", 0).name,)).fetchone()
        values = [("train/loss", 2.0 / n, n, run, n, n == 3) for n in (1, 2, 3)]
        columns = "key, value, timestamp, run_uuid, step, is_nan"
        store.executemany(f"INSERT INTO metrics ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)
    client = lab.client(base=tmp_path, uri=f"sqlite:///{tmp_path}/mlflow.db", specs=())
    found = curves(client.get("/acdis/curves?spec=small&row=fast").text)
    assert found["training, whole loss"]["fast"]["mean"] == [2.0, 1.0]


def test_without_an_epoch(client: Any) -> None:
    page = client.get("/acdis/curves?spec=small")
    assert page.status_code == 200
    assert "None of these rows has finished an epoch" in page.text
    assert "Of which spec?" in client.get("/acdis/curves").text


def test_wrong_choices(trained: Any) -> None:
    client = trained.client()
    assert "There is no such curve" in client.get("/acdis/curves?spec=small&show=train/nothing").text
    assert "with seed 77" in client.get("/acdis/curves?spec=small&seed=77").text
    assert "has no row nobody" in client.get("/acdis/curves?spec=small&row=nobody&band=%00").text


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"epochs": 5}',
        '{"epochs": [1, {}, null]}',
        REST.format(epoch='"x"', terms="{}"),
        REST.format(epoch="1", terms="5"),
        REST.format(epoch="1", terms='{"loss": "x"}'),
        REST.format(epoch="1", terms='{"loss": NaN}'),
        REST.format(epoch="1", terms='{"loss": 1e999}'),
    ],
)
def test_damaged_histories(trained: Any, content: str) -> None:
    (trained.cell("fast", 0).folder / "history.json").write_text(content)
    page = trained.client().get("/acdis/curves?spec=small")
    assert page.status_code == 200
    assert "fast one" not in curves(page.text)["training, whole loss"]
    (trained.cell("fast", 0).folder / journal.JOURNAL).write_bytes(b'{"op": "epoch", "step": 1}\n{"epoch"\n')
    assert trained.client().get("/acdis/curves?spec=small").status_code == 200


def test_hostile_names_of_terms(trained: Any) -> None:
    bad = "</script><img src=x onerror=alert(1)>"
    epochs = history(0.5)
    for entry in epochs:
        entry["terms"] |= {bad: 1.0, "t" * 10_000: 2.0} | {f"term{n}": 1.0 for n in range(60)}
    (trained.cell("fast", 0).folder / "history.json").write_text(json.dumps({"epochs": epochs}))
    page = trained.client().get("/acdis/curves?spec=small")
    assert page.status_code == 200
    assert "<img src=x" not in page.text
    assert len(curves(page.text)) == 36
    assert "more curves can be chosen above" in page.text


def test_system_metrics_of_a_training_are_in_mlflow_and_no_curves_here(ablated: Any) -> None:
    """A point for each of three epochs, under the names that MLflow's own page shows."""
    from mlflow import MlflowClient

    uri = default_uri(ablated.base)
    site = Site(Settings(ablated.base, uri, (ablated.spec,)))
    client = MlflowClient(uri)
    for run in site.runs().values():
        points = client.get_metric_history(run.id, "system/cpu_utilization_percentage")
        assert [point.step for point in points] == [1, 2, 3]
        assert all(0 <= point.value <= 100 for point in points)
    page = TestClient(pages(site), root_path="/acdis").get("/acdis/curves?spec=tiny_table").text
    assert "system/" not in page
