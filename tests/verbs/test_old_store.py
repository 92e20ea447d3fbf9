"""Every verb that opens MLflow's store says that another MLflow made it, before any case is read."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from acdis import cells, cli, config, methods
from acdis.verbs import figures
from acdis.workflow import opening, score_again, trial_cells

EXPERIMENT = {"data": {"phantoms": {"cases": 4}}}
SEARCH = {
    "base": "base.yaml",
    "search": {"trials": 1, "space": {"training.learning_rate": {"low": 0.1, "high": 0.2}}},
}
SPEC = {
    "title": "One",
    "base": "base.yaml",
    "seeds": [0],
    "baseline": "one",
    "rows": {"one": {"label": "one"}},
}
SPLITS = {"splits": {"train": [], "validation": [], "test": ["case"]}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a store of an old MLflow, a trained cell, and files for each verb; no case may be read."""
    for name, tree in (("base", EXPERIMENT), ("search", SEARCH), ("spec", SPEC)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    base = tmp_path / "home"
    cell = cells.create(base, "acdis-0123456789ab", methods.resolve(config.parse(EXPERIMENT, "test")), SPLITS)
    cell.weights.write_bytes(b"")
    with closing(sqlite3.connect(base / "mlflow.db")) as store:
        store.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        store.execute("INSERT INTO alembic_version VALUES ('bd07f7e963c5')")
        store.commit()

    def never(*_: object) -> None:
        raise AssertionError("cases are looked for")

    for module, name in (
        (opening, "open_inputs"),
        (trial_cells, "open_for_learning"),
        (score_again, "find_cases"),
        (figures, "find_cases"),
    ):
        monkeypatch.setattr(module, name, never)
    monkeypatch.setenv("ACDIS_HOME", str(base))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return base


@pytest.mark.parametrize(
    "words",
    [
        "train base.yaml",
        "ablate spec.yaml",
        "search search.yaml",
        "reproduce --experiment base.yaml",
        "evaluate acdis-01234",
        "external acdis-01234 --root .",
        "report figures acdis-01234",
        "export acdis-01234 exported --log-model",
        "export acdis-01234 exported --register name",
        "evaluate base.yaml --predictions . --row theirs --subset FLAIR",
        "dashboard --port 0",
    ],
)
def test_one_line_with_the_command_that_mends_it(
    place: Path, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["acdis", *words.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the MLflow store ")
    assert line.endswith(f"mlflow db upgrade sqlite:///{place}/mlflow.db")
