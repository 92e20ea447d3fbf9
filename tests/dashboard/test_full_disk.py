"""The disk of a home fills up while its pages are served: a line in the server's log, and it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MOUNT = 'mount -t tmpfs -o size=6m tmpfs "$0" && exec "$@"'
#: Serves a new store as `mlflow server` does, in this process; prints what was answered: path -> status.
SERVER = """
import json, os, sys
from pathlib import Path
base, folder = Path(os.environ["ACDIS_HOME"]), Path(sys.argv[1])
uri = f"sqlite:///{base / 'mlflow.db'}"
os.environ |= {
    "_MLFLOW_SERVER_FILE_STORE": uri, "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(base / "mlartifacts"),
    "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true", "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
}
from acdis.tracking import open_store
open_store(uri)
from starlette.testclient import TestClient
from acdis.dashboard.app import create_app
from mlflow.server import handlers
handlers._get_tracking_store(uri, "mlflow-artifacts:/")
client = TestClient(create_app(), base_url="http://localhost", raise_server_exceptions=False)

def ask():
    tags = [{"key": "long", "value": 4000 * "n"}]
    made = [
        client.post("/api/2.0/mlflow/experiments/create", json={"name": os.urandom(4).hex(), "tags": tags})
        for _ in range(5)
    ]
    stored = client.put("/api/2.0/mlflow-artifacts/artifacts/x.bin", content=bytes(200_000))
    return [max(each.status_code for each in made), stored.status_code, client.get("/acdis/").status_code]

told = [ask()]
with (base / "filler").open("wb", buffering=0) as filler:
    try:
        while filler.write(bytes(4096)):
            pass
    except OSError:
        print("FULL", flush=True)
told.append(ask())
(base / "filler").unlink()
print("FREE", flush=True)
told.append(ask())
(folder / "told.json").write_text(json.dumps(told))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[list[int]], str]:
    """Statuses of an experiment, an artifact and our page, before, while and after; and what it said."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a small disk takes root, or a user namespace")
    folder = tmp_path_factory.mktemp("full")
    (folder / "home").mkdir()
    line = ["unshare", "-m", "sh", "-c", MOUNT, str(folder / "home")]
    line += [sys.executable, "-c", SERVER, str(folder)]
    environment: dict[str, Any] = os.environ | {"ACDIS_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    with (folder / "said.txt").open("w") as said:
        done = subprocess.run(line, env=environment, stdout=said, stderr=said, timeout=500, check=False)
    text = (folder / "said.txt").read_text()
    assert done.returncode == 0, text
    return json.loads((folder / "told.json").read_text()), text


def test_what_needs_no_space_is_served_and_the_rest_comes_back(served: tuple[list[list[int]], str]) -> None:
    before, full, after = served[0]
    assert before == after == [200, 200, 200]
    assert full[2] == 200
    assert min(full[:2]) >= 500


def test_a_full_disk_is_a_line_and_no_traceback(served: tuple[list[list[int]], str], tmp_path: Path) -> None:
    lines = served[1].partition("FULL\n")[2].partition("FREE\n")[0].splitlines()
    assert not any("Traceback" in line for line in lines)
    said = [line for line in lines if "nothing more can be written" in line]
    assert len(said) == 1, lines
