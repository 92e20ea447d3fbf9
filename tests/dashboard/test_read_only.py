"""A home that was copied and mounted read-only: looked at, reported, scored from, and never written to."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MOUNT = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


#: `killed.py` runs a command here, in the folder whose `home` is its ACDIS_HOME.
WITHOUT_RAY = "import sys, killed; from pathlib import Path; killed.run(Path(sys.argv[1]), 0, sys.argv[2:])"


@pytest.fixture(scope="module")
def copy(ablated: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home in another place, whose name is as people have them."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a folder read-only takes root, or a user namespace")
    place = tmp_path_factory.mktemp("Kopie für alle") / "home 1"
    shutil.copytree(ablated.base, place)
    return place


@pytest.fixture
def untouched(copy: Path) -> Iterator[None]:
    """Nothing in the copy changes, nor is anything made."""
    before = _stamps(copy)
    yield
    assert _stamps(copy) == before


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def _line(copy: Path, ablated: Any, *words: str) -> list[str]:
    return ["unshare", "-m", "sh", "-c", MOUNT, str(copy), *ablated.command(*words)]


def _run(copy: Path, ablated: Any, *words: str) -> subprocess.CompletedProcess[str]:
    environment = ablated.environment() | {"ACDIS_HOME": str(copy)}
    line = _line(copy, ablated, *words)
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=1100, check=False)


@pytest.mark.ray
@pytest.mark.usefixtures("untouched")
def test_status_and_report(copy: Path, ablated: Any) -> None:
    seen = _run(copy, ablated, "status", str(ablated.spec), "--once")
    assert seen.returncode == 0, seen.stderr
    assert "4 done" in seen.stdout, seen.stdout
    told = _run(copy, ablated, "report", str(ablated.spec), "--format", "csv")
    assert told.returncode == 0, told.stderr
    assert told.stdout == ablated.run("report", str(ablated.spec), "--format", "csv")


@pytest.mark.ray
def test_no_file_says_where_the_home_is(ablated: Any) -> None:
    """But MLflow's store, whose addresses are rewritten."""
    place = str(ablated.base).encode()
    every = [path for path in ablated.base.rglob("*") if path.is_file()]
    assert len(every) > 50
    named = {path.name for path in every if place in path.read_bytes()}
    assert named <= {"mlflow.db", "dashboard.log"}


@pytest.mark.ray
@pytest.mark.usefixtures("untouched")
def test_what_cannot_be_written_is_one_line(copy: Path, ablated: Any) -> None:
    for words in (
        ("ablate", str(ablated.spec)),
        ("report", str(ablated.spec), "--out", str(copy / "report.md")),
        ("report", str(ablated.spec), "--bundle", str(copy / "bundle.zip")),
    ):
        done = _run(copy, ablated, *words)
        assert done.returncode == 2, done.stdout + done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "cannot be written" in line
        assert "Traceback" not in done.stderr


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("untouched")
def test_dashboard(copy: Path, ablated: Any, tmp_path: Path) -> None:
    environment = ablated.environment() | {"ACDIS_HOME": str(copy), "TMPDIR": str(tmp_path)}
    line = _line(copy, ablated, "dashboard", str(ablated.spec), "--port", "0")
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None
    try:
        lines = iter(server.stdout.readline, "")
        address = next((line.split()[1] for line in lines if line.startswith("dashboard: ")), "")
        assert address, (tmp_path / "log").read_text()
        overview = json.loads(_get(f"{address}overview.json"))
        assert overview["specs"][0]["done"] == 4
        root = address.removesuffix("acdis/")
        wanted = {"experiment_ids": ["1"], "filter": "tags.`acdis.cell` LIKE 'acdis-%'"}
        cells = json.loads(_get(f"{root}api/2.0/mlflow/runs/search", wanted))["runs"]
        assert len(cells) == 4
        run = cells[0]["info"]["run_id"]
        listed = json.loads(_get(f"{root}api/2.0/mlflow/artifacts/list?run_id={run}"))
        assert "config.yaml" in {each["path"] for each in listed["files"]}
        assert "seed:" in _get(f"{root}get-artifact?path=config.yaml&run_uuid={run}")
    finally:
        server.send_signal(signal.SIGINT)
        try:
            assert server.wait(300) == 0, (tmp_path / "log").read_text()
        finally:
            server.kill()
            server.stdout.close()
    assert not list(tmp_path.glob("acdis-store-*"))


@pytest.mark.slow
@pytest.mark.usefixtures("untouched")
def test_a_colleagues_cell_is_scored_in_a_home_of_ones_own(copy: Path, ablated: Any, tmp_path: Path) -> None:
    """Without Ray: tests/cluster scores with it."""
    theirs = min((copy / "cells").iterdir())
    mine = tmp_path / "home"
    shutil.copytree(copy / "phantoms", mine / "phantoms")
    words = [sys.executable, "-c", WITHOUT_RAY, str(tmp_path), "evaluate", str(theirs)]
    path = {"PYTHONPATH": str(Path(__file__).resolve().parents[1] / "helpers")}
    line = ["unshare", "-m", "sh", "-c", MOUNT, str(copy), *words]
    done = subprocess.run(line, env=ablated.environment() | path, capture_output=True, text=True, check=False)
    said = (tmp_path / "said.txt").read_text()
    assert done.returncode == 0, done.stderr + said
    assert f"a copy of it is scored in {mine / 'cells' / theirs.name}" in said.replace("\n", "")
    name = f"evaluations/{min((theirs / 'evaluations').iterdir()).name}/records.parquet"
    assert (mine / "cells" / theirs.name / name).read_bytes() == (theirs / name).read_bytes()


def _get(address: str, content: dict[str, Any] | None = None) -> str:
    body = None if content is None else json.dumps(content).encode()
    asked = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=600) as answer:
        return str(answer.read().decode())
