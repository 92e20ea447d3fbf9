"""A cell is found by its MLflow run's id and name, in a store that MLflow itself has written."""

import subprocess
import sys

import pytest

from acdis.errors import UserError
from acdis.prediction.hand_on import find
from acdis.tracking import default_uri, experiment_id, open_store


def test_id_and_name(make_cell, tmp_path, checkout):
    first, second = make_cell(tmp_path), make_cell(tmp_path, seed=1)
    uri = default_uri(tmp_path)
    client = open_store(uri)
    place = experiment_id(client, uri, "test")

    def run(name, cell):
        return client.create_run(place, run_name=name, tags={"acdis.cell": cell}).info.run_id

    one = run("table3/syn seed 0", first.name)
    other = run("both", second.name)
    run("both", first.name)
    gone = run("gone", first.name)
    client.delete_run(gone)
    assert find(tmp_path, one).folder == first.folder
    assert find(tmp_path, other).folder == second.folder
    assert find(tmp_path, "table3/syn seed 0").folder == first.folder
    with pytest.raises(UserError, match=rf"several cells: .*{first.name}"):
        find(tmp_path, "both")
    for unknown in (gone, "gone", "' OR 1=1 --"):
        with pytest.raises(UserError, match="names no cell"):
            find(tmp_path, unknown)
    program = (
        "import sys; from pathlib import Path; from acdis.prediction.hand_on import find\n"
        f"assert find(Path({str(tmp_path)!r}), {one!r}).name == {first.name!r}\n"
        "print([name for name in ('mlflow', 'sqlalchemy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(checkout / "platform")},
    )
    assert done.stdout.strip() == "[]"


def test_a_store_that_cannot_be_read_is_none(make_cell, tmp_path):
    cell = make_cell(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    assert find(tmp_path, cell.name).folder == cell.folder
    with pytest.raises(UserError, match="names no cell"):
        find(tmp_path, "0" * 32)
