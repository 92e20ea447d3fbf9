"""The notebooks of docs/notebooks run from a fresh home to their last line, without Ray and MLflow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from acdis.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

#: Runs the cells of argv[1] in one namespace, as a kernel would: the value of a last expression is shown.
RUNNER = """
import ast, json, os, sys
for name in os.environ["BLOCKED"].split():
    sys.modules[name] = None
import matplotlib
matplotlib.use("Agg")
space = {"__name__": "__main__"}
for number, source in enumerate(json.load(open(sys.argv[1]))):
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"code cell {number}", "exec"), space)
    if last is not None:
        shown = compile(ast.Expression(last.value), f"code cell {number}", "eval")
        print(f"OUT {number}:", eval(shown, space))
"""


def _cells(notebook: Path, kind: str) -> list[str]:
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def _run(notebook: Path, folder: Path, steps: str, fewer: str) -> str:
    """Run the notebook with `fewer` in the place of `steps`; what it prints."""
    code = _cells(notebook, "code")
    assert sum(cell.count(steps) for cell in code) == 1
    (folder / "cells.json").write_text(json.dumps([cell.replace(steps, fewer) for cell in code]))
    blocked = " ".join(package for _, packages in EXTRAS.values() for package in packages)
    env = {**os.environ, "ACDIS_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT / "platform")}
    env |= {"BLOCKED": blocked, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, "cells.json"], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_first_cell_to_a_picture(tmp_path: Path) -> None:
    import nibabel
    from matplotlib import image

    said = _run(ROOT / "docs" / "notebooks" / "first-cell.ipynb", tmp_path, "iterations=20", "iterations=5")
    losses = [float(each) for each in re.findall(r"epoch \d+: loss ([\d.]+)", said)]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert "(12, 0, 4) cases" in said
    assert said.count("FLAIR") >= 8  # of the 15 subsets 8 have it
    assert np.isin(np.unique(nibabel.load(tmp_path / "first-cell.nii.gz").get_fdata()), [0, 1, 2, 4]).all()
    drawn = image.imread(tmp_path / "first-cell.png")[..., :3]
    coloured = np.ptp(drawn, axis=2) > 0.2  # truth and prediction; the images are grey
    thirds = np.array_split(coloured, 3, axis=1)
    assert not thirds[0].any()
    assert thirds[1].any()


@pytest.mark.slow
def test_a_test_is_redone(tmp_path: Path) -> None:
    """Its last cells compare what it works out with `statistics.compare`; a difference fails there."""
    said = _run(
        ROOT / "docs" / "notebooks" / "redo-a-test.ipynb", tmp_path, "iterations: 12", "iterations: 3"
    )
    assert re.search(r"points, 95 % interval -?[\d.]+ to -?[\d.]+, p = [01]\.\d+", said)
    assert re.search(r"OUT \d+: (undecided|equal|better|worse)", said)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_kept_without_outputs_and_need_no_kernels_magic(notebook: Path) -> None:
    assert len(NOTEBOOKS) == 2
    tree = json.loads(notebook.read_text())
    assert tree["nbformat"] == 4
    assert len({cell["id"] for cell in tree["cells"]}) == len(tree["cells"])
    for cell in tree["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            assert not re.search(r"^\s*[%!]", "".join(cell["source"]), re.M)
