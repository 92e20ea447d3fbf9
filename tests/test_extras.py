"""The core without Ray or MLflow or both: what works, and the one line that says what is missing."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from acdis import extras
from acdis.tracking import open_store
from acdis.tracking.journal import JOURNAL
from acdis.training import checkpoint
from acdis.vocabulary import REGIONS

ROOT = Path(__file__).resolve().parents[1]
#: What a system that is no Linux, such as macOS, does not tell; nothing that runs without Ray may need it.
LESS_TOLD = """
import os
from pathlib import Path
del os.sched_getaffinity
from acdis import machine
machine._PROC = machine._CGROUPS = Path("/not/there")
"""
TINY = """\
data:
  phantoms: {cases: 5, seed: 1, shape: [24, 24, 24], spacing: 7.0}
  split: {counts: [3, 0, 2], seed: 0}
  min_size: 24
  crop: [16, 16, 16]
method:
  options: {base_width: 4, levels: 3, afeb_tokens: 4, synthesis_start: 1}
training: {epochs: 2, iterations: 2, precision: fp32}
evaluation: {window: [24, 24, 24], stride: [24, 24, 24]}
scaling: {cpus_per_worker: 1}
"""


def _acdis(without: str, home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line where the packages of these extras cannot be imported; without Ray as on macOS."""
    blocked = [package for extra in without.split() for package in extras.EXTRAS[extra][1]]
    program = (LESS_TOLD if "cluster" in without else "") + (
        f"import sys\nfor name in {blocked!r}:\n    sys.modules[name] = None\n"
        f"sys.argv = ['acdis', *{list(words)!r}]\nfrom acdis.cli import main\nmain()"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_"))}
    env |= {"ACDIS_HOME": str(home), "PYTHONPATH": str(ROOT / "platform"), "OMP_NUM_THREADS": "1"} | variables
    line = [sys.executable, "-c", program]
    return subprocess.run(line, env=env, cwd=home, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "one.yaml").write_text(
        "title: one\nbase: tiny.yaml\nbaseline: one\nrows:\n  one: {}\n"
        "  other: {set: {training.epochs: 3}}\nseeds: [0]\n"
    )
    return folder


@pytest.fixture(scope="module")
def trained(home: Path) -> subprocess.CompletedProcess[str]:
    done = _acdis("cluster tracking", home, "train", "tiny.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def _cell(home: Path) -> Path:
    (found,) = (home / "cells").iterdir()
    return found


@pytest.mark.slow
def test_the_core_trains_and_says_once_what_it_does_without(
    trained: subprocess.CompletedProcess[str], home: Path
) -> None:
    said = trained.stdout + trained.stderr
    assert said.count("pip install 'acdis-platform[cluster]'") == 1
    assert said.count("MLflow is not installed") == 1
    assert "Traceback" not in said
    assert "Warning" not in said
    assert not (home / "mlflow.db").exists()
    assert all(region in trained.stdout for region in REGIONS)
    state = json.loads((_cell(home) / "state.json").read_text())
    assert (state["status"], state["workers"]) == ("done", 1)
    assert (_cell(home) / JOURNAL).stat().st_size > 0


@pytest.mark.slow
def test_the_core_scores_predicts_and_reports(trained: subprocess.CompletedProcess[str], home: Path) -> None:
    name = _cell(home).name
    again = _acdis("cluster tracking", home, "evaluate", name, "evaluation.box=given")
    assert again.returncode == 0, again.stderr[-3000:]
    assert len(list((_cell(home) / "evaluations").glob("*/records.parquet"))) == 2
    image = next((home / "phantoms").rglob("*t1ce.nii.gz"))
    drawn = _acdis("cluster tracking", home, "predict", name, "--t1ce", str(image), "-o", "seg.nii.gz")
    assert drawn.returncode == 0, drawn.stderr[-3000:]
    assert (home / "seg.nii.gz").stat().st_size > 0
    report = _acdis("cluster tracking", home, "report", "one.yaml", "--format", "md")
    assert report.returncode == 0, report.stderr[-3000:]
    assert "| one" in report.stdout


@pytest.mark.slow
def test_mlflow_gets_what_was_trained_without_it(
    trained: subprocess.CompletedProcess[str], home: Path
) -> None:
    client = open_store(f"sqlite:///{home}/mlflow.db")  # making it may take longer than a command waits
    for _ in range(5):  # as importing MLflow may, on a busy machine
        later = _acdis("cluster", home, "train", "tiny.yaml")
        assert later.returncode == 0, later.stderr[-3000:]
        assert "trained and scored already" in later.stdout + later.stderr
        if "were not sent" not in later.stdout + later.stderr:
            break
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.info.status == "FINISHED"
    steps = [each.step for each in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == [1, 2]
    assert "dice/ET/mean" in run.data.metrics


@pytest.mark.ray
@pytest.mark.slow
def test_with_ray_and_without_mlflow_the_weights_are_the_same(
    trained: subprocess.CompletedProcess[str], home: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    for _ in range(5):  # Ray gives up after 30 s where others keep the machine busy, and says so
        done = _acdis("tracking", tmp_path, "train", "tiny.yaml")
        if "this machine is busy" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Ray: connecting" in done.stdout + done.stderr
    assert _cell(tmp_path).name == _cell(home).name
    ours, theirs = (checkpoint.load(_cell(each) / "weights.pt") for each in (home, tmp_path))
    assert ours.keys() == theirs.keys()
    assert all((ours[key] == theirs[key]).all() for key in ours)


@pytest.mark.parametrize(
    ("words", "extra", "variables"),
    [
        ("ablate one.yaml", "cluster", {}),
        ("reproduce", "cluster", {}),
        (f"search {ROOT}/ablations/search.yaml", "cluster", {}),
        ("up", "cluster", {}),
        ("submit train tiny.yaml", "cluster", {}),
        ("train tiny.yaml scaling.workers=2", "cluster", {}),
        ("train tiny.yaml scaling.storage=s3://bucket", "cluster", {}),
        ("train tiny.yaml", "cluster", {"RAY_ADDRESS": "10.0.0.1:6379"}),
        ("dashboard", "tracking", {}),
        ("train tiny.yaml tracking.uri=http://127.0.0.1:1", "tracking", {}),
        ("train tiny.yaml", "tracking", {"MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:1"}),
    ],
)
def test_what_is_missing_is_one_line(words: str, extra: str, variables: dict[str, str], home: Path) -> None:
    done = _acdis("cluster tracking", home, *words.split(), **variables)
    assert done.returncode == 2, done.stderr[-3000:]
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(f"; pip install 'acdis-platform[{extra}]'")
    assert "secret" not in line


def test_an_import_that_fails_elsewhere_is_one_line_and_a_bug_stays_one() -> None:
    absent = ModuleNotFoundError("No module named 'ray'", name="ray.train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        said = extras.missing(absent)
    assert str(said) == "the package 'ray' is not installed; pip install 'acdis-platform[cluster]'"
    assert extras.missing(absent) is None  # it is here: what failed is something else
    assert extras.missing(ModuleNotFoundError("No module named 'acdis.x'", name="acdis.x")) is None


#: Distributions that are imported under another name.
IMPORTED_AS = {"pyyaml": "yaml", "types-pyyaml": "yaml"}


def _packages(requirements: list[str]) -> set[str]:
    names = (re.match(r"[A-Za-z0-9-]+", line).group().lower() for line in requirements)  # type: ignore[union-attr]
    return {IMPORTED_AS.get(name, name) for name in names}


def test_every_import_belongs_to_the_core_or_stands_where_its_extra_is_needed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core, optional = _packages(project["dependencies"]), project["optional-dependencies"]
    cluster, tracking = (set(extras.EXTRAS[extra][1]) for extra in ("cluster", "tracking"))
    assert cluster == _packages(optional["cluster"])
    assert tracking == _packages(optional["tracking"]) | {"starlette"}  # FastAPI brings it
    assert optional["all"] == ["acdis-platform[cluster,tracking]"]
    assert "acdis-platform[all]" in optional["test"]
    allowed = core | {"acdis", "markupsafe"} | set(sys.stdlib_module_names)  # Jinja2 brings it
    assert not allowed & (cluster | tracking)
    rooms = {
        "cluster": cluster | {"aiohttp"},  # Ray's Jobs API brings it
        "ablation": {"optuna"},
        "tracking": {"mlflow", "sqlalchemy"},
        "dashboard": tracking,
    }
    package = ROOT / "platform" / "acdis"
    strange = {
        f"{path.relative_to(package)}: {name}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported(node)
        if name not in allowed | rooms.get(path.relative_to(package).parts[0], set())
    }
    assert strange == set()


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.partition(".")[0]]
    return []
