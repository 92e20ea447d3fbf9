"""What `train` decides without Ray: the lock, when a cell is finished, where to look."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from acdis import cells, config, files, methods
from acdis.cells import Cell
from acdis.errors import UserError
from acdis.tracking.epoch_log import EpochLog
from acdis.tracking.epochs import epoch_values
from acdis.verbs.train import decide, train, where_to_look
from acdis.workflow import publish
from acdis.workflow.life import is_finished


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    experiment = methods.resolve(config.load(None, ["training.precision=fp32"]))
    return cells.create(tmp_path, "acdis-1", experiment, {})


def test_one_process_at_a_time_trains_a_cell(cell: Cell) -> None:
    refused = pytest.raises(UserError, match=r"acdis-1: process .* is training this cell")
    with cell.alone(), refused, cell.alone():
        pass
    with cell.alone():
        pass


def test_a_cell_is_finished_with_weights_and_scores(cell: Cell, tmp_path: Path) -> None:
    evaluation = tmp_path / "evaluation"
    assert not is_finished(cell, evaluation, scored=False)
    cell.weights.write_bytes(b"")
    assert is_finished(cell, evaluation, scored=False)
    assert not is_finished(cell, evaluation, scored=True)
    evaluation.mkdir()
    (evaluation / "records.parquet").write_bytes(b"")
    assert is_finished(cell, evaluation, scored=True)


def test_an_evaluation_is_named_by_its_settings_and_cases(cell: Cell) -> None:
    experiment = cell.experiment()
    other = experiment.model_copy(
        update={"evaluation": experiment.evaluation.model_copy(update={"hd95": False})}
    )
    names = {
        cells.evaluation_name(experiment, "a"),
        cells.evaluation_name(experiment, "b"),
        cells.evaluation_name(other, "a"),
    }
    assert len(names) == 3
    assert cells.evaluation_name(experiment, "a") in names


def test_the_line_that_opens_the_dashboard(tmp_path: Path) -> None:
    base = tmp_path / "a home"
    words = shlex.split(where_to_look(config.load(None), base))
    assert words[0] == "dashboard:"
    assert words[1:3] == ["env", f"ACDIS_HOME={base}"]
    assert Path(words[3]).name == "acdis"
    assert words[4:] == ["dashboard"]
    elsewhere = config.load(None, ["tracking.uri=sqlite:////data/other.db"])
    assert shlex.split(where_to_look(elsewhere, base))[-2:] == ["--store", "sqlite:////data/other.db"]
    served = config.load(None, ["tracking.uri=https://me:secret@tracking.example.org"])
    assert where_to_look(served, base) == "dashboard: https://tracking.example.org"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["tracking.uri=nonsense"], "tracking.uri"),
        (["tracking.uri=sqlite:///relative.db"], "must be absolute"),
        (["method.options.base_with=4"], "base_width"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    overrides: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even phantoms are drawn."""
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path / "home"))
    (tmp_path / "one.yaml").write_text("data: {phantoms: {cases: 5}, split: {counts: [3, 0, 2]}}\n")
    with pytest.raises(UserError) as refused:
        train(tmp_path / "one.yaml", overrides)
    assert words in str(refused.value)
    assert not list((tmp_path / "home").rglob("*.nii.gz"))


def test_the_precision_is_decided() -> None:
    assert decide(methods.load(None)).training.precision in ("bf16", "fp32")
    assert decide(methods.load(None, ["training.precision=fp32"])).training.precision == "fp32"


@pytest.mark.parametrize(
    ("state", "cost"),
    [
        ({"workers": 2, "cpus": 3}, {"cpu": 6.0}),
        ({"workers": 2, "cpus": 3, "gpus": 1}, {"gpu": 2.0}),
        ({}, {"cpu": 1.0}),
    ],
)
def test_the_cost_is_worker_time(cell: Cell, state: dict[str, Any], cost: dict[str, float]) -> None:
    files.write_json(cell.folder / "history.json", {"epochs": [{"seconds": 1200.0}, {"seconds": 2400.0}]})
    cell.begin(**state)
    assert cell.hours() == pytest.approx(cost)


def test_the_cost_counts_the_workers_of_each_epoch(cell: Cell) -> None:
    epochs = [{"seconds": 1200.0, "workers": 2}, {"seconds": 2400.0, "workers": 1}]
    files.write_json(cell.folder / "history.json", {"epochs": epochs})
    cell.begin(workers=1, cpus=3)
    assert cell.hours() == pytest.approx({"cpu": (1200 * 2 + 2400) / 3600 * 3})


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([2, 2, 2], "2"),
        ([4, 4, 4, 1, 2, 2], "4 (epochs 1–3), 1 (4), 2 (5–6)"),
        ([1], "1"),
        ([], ""),
        ([None, None, 2], ""),
    ],
)
def test_which_epochs_so_many_workers_trained(counts: list[int | None], told: str) -> None:
    history = [
        {"epoch": number, **({} if count is None else {"workers": count})}
        for number, count in enumerate(counts, 1)
    ]
    assert publish.worker_spans(history) == told


def test_no_more_workers_must_there_be_than_may() -> None:
    with pytest.raises(UserError, match="min_workers 3 is more than workers 2"):
        config.load(None, ["scaling.workers=2", "scaling.min_workers=3"])


@pytest.mark.parametrize("left", [b"", b'{"epochs": [{"epo', None])
def test_a_torn_history_is_written_again_from_the_journal(cell: Cell, left: bytes | None) -> None:
    history = [
        {"epoch": number, "terms": {"loss": 1.5, "dice/WT": 0.5}, "learning_rate": 1e-4, "seconds": 2.0}
        | {"validation": {"dice/mean": 0.25} if number == 2 else {}, "workers": 2}
        for number in (1, 2, 3)
    ]
    told = EpochLog(cell.folder)
    for entry in history:
        told.log_epoch(entry["epoch"], epoch_values(entry))
    if left is not None:
        (cell.folder / "history.json").write_bytes(left)
    assert publish.history(cell) == history
    assert cell.history() == history
