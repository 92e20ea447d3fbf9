"""The wheel, away from the checkout: it has specs and experiments, and `init` writes them to be edited."""

from __future__ import annotations

import email
import importlib.util
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from acdis.verbs import init as verb

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("ablations", "experiments")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".yaml", ".txt")
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as pip would."""
    for needed in ("pip", "setuptools"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed here: no wheel can be built")
    here = tmp_path_factory.mktemp("wheel")
    source = here / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("platform", "ablations", "experiments"):
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    words = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet", "-w"]
    made = subprocess.run(
        [sys.executable, *words, str(here), str(source)], capture_output=True, text=True, cwd=here
    )
    assert made.returncode == 0, made.stderr[-3000:]
    (built,) = here.glob("acdis_platform-*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(here / "site")
    shutil.rmtree(source)
    return here / "site"


def _run(site: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(site), "ACDIS_HOME": str(cwd / "home")}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True)


def test_it_holds_every_spec_and_experiment(wheel: Path) -> None:
    assert len(SHIPPED) > 15
    held = {path.relative_to(wheel / "acdis" / "shipped") for path in wheel.glob("acdis/shipped/**/*.*")}
    assert sorted(path.as_posix() for path in held) == SHIPPED
    assert (wheel / "acdis" / "dashboard" / "templates" / "base.html").is_file()
    assert (wheel / "acdis" / "report" / "templates" / "report.tex").is_file()


def test_what_it_says_of_itself(wheel: Path) -> None:
    (found,) = wheel.glob("acdis_platform-*.dist-info/METADATA")
    said = email.message_from_string(found.read_text())
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert said.get_all("Project-URL") == [f"Paper, {cited['preferred-citation']['url']}"]
    assert said["Version"] == cited["version"]
    assert said["License-Expression"] == cited["license"]
    assert said["Summary"] == cited["abstract"]
    assert said["Keywords"].split(",") == cited["keywords"]
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # what CFF 1.2.0 demands
    assert cited["type"] == "software"
    extras = said.get_all("Provides-Extra")
    assert {"cluster", "tracking", "all", "test", "docs"} == set(extras)
    needed = {line.split(";")[0].strip() for line in said.get_all("Requires-Dist") if "extra ==" not in line}
    assert not any(line.startswith(("ray", "mlflow", "optuna", "fastapi", "sqlalchemy")) for line in needed)
    asked = said["Requires-Python"].removeprefix(">=")
    classifiers = said.get_all("Classifier")
    assert f"Programming Language :: Python :: {asked}" in classifiers
    assert not any(each.startswith("License ::") for each in classifiers)  # refused beside an expression
    assert "# " in said.get_payload()  # the README


def test_init_writes_files_that_are_read_and_reproduced_from(wheel: Path, tmp_path: Path) -> None:
    done = _run(wheel, tmp_path, "-m", "acdis", "init", "mine")
    assert done.returncode == 0, done.stderr
    mine = tmp_path / "mine"
    written = sorted(path.relative_to(mine).as_posix() for path in mine.rglob("*") if path.is_file())
    assert written == SHIPPED
    for name in SHIPPED:
        assert (mine / name).read_bytes() == (ROOT / name).read_bytes()
    (mine / "experiments" / "phantom.yaml").write_text(
        (ROOT / "experiments" / "phantom.yaml").read_text().replace("cases: 38", "cases: 39")
    )
    program = """
import acdis
from pathlib import Path
from acdis import home
from acdis.ablation.selection import load_specs
from acdis.verbs.reproduce import tables
assert home.checkout() is None
assert acdis.load("experiments/phantom.yaml").data.phantoms.cases == 39
assert acdis.load("experiments/brats2018_split2.yaml").data.split
for name in sorted(Path("ablations").glob("table*.yaml")):
    assert load_specs([name])[0].rows
print(*tables())
print(load_specs(tables())[0].base)
"""
    inside = _run(wheel, mine, "-c", program)
    assert inside.returncode == 0, inside.stderr[-2000:]
    tables, base = inside.stdout.splitlines()
    assert tables.split() == [str(mine / "ablations" / name) for name in ("table2.yaml", "table3.yaml")]
    assert Path(base).resolve() == mine / "experiments" / "phantom.yaml"
    outside = _run(wheel, tmp_path, "-c", "from acdis.verbs.reproduce import tables; print(*tables())")
    assert outside.stdout.split() == [
        str(wheel / "acdis" / "shipped" / "ablations" / name) for name in ("table2.yaml", "table3.yaml")
    ]

    again = _run(wheel, tmp_path, "-m", "acdis", "init", "mine")  # nothing that was edited is lost
    assert again.returncode == 2
    assert "phantom.yaml: is there and was changed (1 such files)" in again.stderr
    assert "cases: 39" in (mine / "experiments" / "phantom.yaml").read_text()


def test_a_folder_is_filled_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verb.init(tmp_path / "new")
    (tmp_path / "new" / SHIPPED[0]).unlink()
    (tmp_path / "new" / "ablations" / "own.yaml").write_text("title: mine\n")
    verb.init(tmp_path / "new")
    assert (tmp_path / "new" / SHIPPED[0]).read_text() == (ROOT / SHIPPED[0]).read_text()
    assert (tmp_path / "new" / "ablations" / "own.yaml").read_text() == "title: mine\n"
    assert f"{len(SHIPPED)} files" in capsys.readouterr().out


def _core(requirements: list[str]) -> Iterator[metadata.Distribution]:
    """The distributions that pip would install for these, each once."""
    waiting, seen = list(requirements), set()
    while waiting:
        wanted = Requirement(waiting.pop())
        name = wanted.name.lower().replace("_", "-")
        extras = ["", *wanted.extras]
        marker = wanted.marker
        if name in seen or (marker and not any(marker.evaluate({"extra": extra}) for extra in extras)):
            continue
        seen.add(name)
        found = metadata.distribution(name)
        yield found
        waiting += found.requires or []


@pytest.mark.slow
def test_in_an_environment_of_what_it_declares_it_trains_and_predicts(wheel: Path, tmp_path: Path) -> None:
    """A real one without extras: links to the core's packages, whatever they bring, and nothing else."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (found,) = wheel.glob("acdis_platform-*.dist-info/METADATA")
    asked = email.message_from_string(found.read_text()).get_all("Requires-Dist")
    for each in wheel.iterdir():
        (packages / each.name).symlink_to(each)
    for each in _core([line for line in asked if "extra ==" not in line]):
        for top in {file.parts[0] for file in each.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(each.locate_file(top))))
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MLFLOW", "RAY"))}
    env |= {"ACDIS_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    def acdis(*words: str) -> subprocess.CompletedProcess[str]:
        line = [str(tmp_path / "env" / "bin" / "python"), "-m", "acdis", *words]
        return subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)

    (tmp_path / "tiny.yaml").write_text(
        "data:\n  phantoms: {cases: 3, seed: 1, shape: [24, 24, 24], spacing: 7.0}\n"
        "  split: {counts: [2, 0, 1], seed: 0}\n  min_size: 24\n  crop: [16, 16, 16]\n"
        "method: {options: {base_width: 4, levels: 3, afeb_tokens: 4}}\n"
        "training: {epochs: 1, iterations: 1, precision: fp32}\n"
        "evaluation: {window: [24, 24, 24], stride: [24, 24, 24]}\n"
    )
    done = acdis("train", "tiny.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Ray is not installed" in done.stdout + done.stderr
    (cell,) = (tmp_path / "home" / "cells").iterdir()
    image = next((tmp_path / "home" / "phantoms").rglob("*flair.nii.gz"))
    done = acdis("predict", cell.name, "--flair", str(image), "-o", "seg.nii.gz", "--picture")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "seg.nii.gz").is_file()
    for command, extra in (("ablate", "cluster"), ("dashboard", "tracking")):
        done = acdis(command)
        assert done.returncode == 2
        assert done.stderr.splitlines()[0].endswith(f"pip install 'acdis-platform[{extra}]'")
