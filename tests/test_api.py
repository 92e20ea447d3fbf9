"""One import: what a notebook does, without Ray and MLflow, gives what the command line gives."""

import os
import subprocess
import sys

import numpy as np
import pandas
import pytest

import acdis
from acdis import files
from acdis.evaluation import floor_files
from acdis.evaluation.records import read_parquet, summarise
from acdis.training import checkpoint, events
from acdis.verbs.report import ReportRequest, report
from acdis.vocabulary import REGIONS

SMALL = [
    "data.phantoms={cases: 5, seed: 1, shape: [24, 24, 24], spacing: 7.0}",
    "data.split={counts: [3, 0, 2], seed: 0}",
    "data.min_size=24",
    "data.crop=[16, 16, 16]",
    "method.options={base_width: 4, levels: 3, afeb_tokens: 4, synthesis_start: 1}",
    "training.epochs=2",
    "training.iterations=2",
    "training.precision=fp32",
    "evaluation.window=[24, 24, 24]",
    "evaluation.stride=[24, 24, 24]",
    "evaluation.hd95=false",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    base = tmp_path_factory.mktemp("home")
    before = os.environ.get("ACDIS_HOME")
    os.environ["ACDIS_HOME"] = str(base)
    yield base
    os.environ.pop("ACDIS_HOME")
    if before is not None:
        os.environ["ACDIS_HOME"] = before


@pytest.fixture(scope="module")
def trained(home):
    told = []
    experiment = acdis.load(None, SMALL)
    return experiment, acdis.train(experiment, told.append, device="cpu"), told


def test_training_tells_its_events_and_leaves_a_cell(trained, home):
    experiment, cell, told = trained
    assert [event.epoch for event in told if isinstance(event, events.EpochEnd)] == [1, 2]
    assert sum(isinstance(event, events.Step) for event in told) == 2 * 2
    assert cell.folder.parent == home / "cells"
    assert cell.state()["status"] == "done"
    assert len(cell.history()) == 2
    assert acdis.open_cell(cell.name[:10]).folder == cell.folder
    assert len(cell.test_cases()) == 2
    weights = checkpoint.load(cell.weights)
    assert weights.keys() <= acdis.build(experiment).state_dict().keys()
    assert not (cell.folder / "last.pt").exists()


def test_floors_are_stored_with_the_scores(trained):
    """Fitted on the three cases that it was trained on; the whole brain by counting voxels."""
    experiment, cell, _ = trained
    (folder,) = cell.evaluations.iterdir()
    floors = floor_files.read(folder / floor_files.FILE)
    assert (floors.trained, list(floors.cases)) == (3, cell.test_cases())
    scores = acdis.score(cell)
    for entry, brain in zip(acdis.cases(experiment).test, floors.brain, strict=True):
        inside = (np.array(entry.images()) != 0).any(axis=0).sum()
        of_case = scores[(scores.case == entry.name) & (scores.subset == "T1")].set_index("region")
        for region, dice in zip(REGIONS, brain, strict=True):
            truth = of_case.truth_voxels[region]
            assert dice == pytest.approx(2 * truth / (truth + inside), abs=1e-9)


def test_a_trained_cell_is_not_trained_again(trained):
    experiment, cell, _ = trained
    before, told = cell.weights.stat().st_mtime_ns, []
    assert acdis.train(experiment, told.append, device="cpu") == cell
    assert told == []
    assert cell.weights.stat().st_mtime_ns == before


def test_scores_are_those_that_are_kept(trained):
    experiment, cell, _ = trained
    kept = acdis.score(cell)
    assert len(kept) == 2 * 15 * 3
    anew = acdis.score(cell.name, acdis.cases(experiment).test, device="cpu")
    np.testing.assert_array_equal(anew.dice, kept.dice)
    assert list(anew.columns) == list(kept.columns)
    given = acdis.score(cell, acdis.cases(experiment).test, device="cpu", box="given")
    assert np.abs(given.dice - kept.dice).max() < 0.01  # phantoms have one mask
    with pytest.raises(acdis.errors.UserError, match="give the cases"):
        acdis.score(cell, box="given")


def test_results_of_a_spec(trained, tmp_path):
    _, cell, _ = trained
    (tmp_path / "base.yaml").write_text("\n".join(_as_yaml(SMALL)))
    (tmp_path / "two.yaml").write_text(
        "title: two\nbase: base.yaml\nbaseline: plain\nrows:\n  plain: {}\n"
        "  other: {set: {training.epochs: 3}}\nseeds: [0]\n"
    )
    found = acdis.results(tmp_path / "two.yaml")
    assert set(found.row) == {"plain"}  # the other is not trained
    assert set(found.cell) == {cell.name}
    means = found.groupby("region").dice.mean()
    summary = summarise(read_parquet(next(cell.evaluations.glob("*/records.parquet"))))
    for region in REGIONS:
        assert means[region] == pytest.approx(summary[f"dice/{region}/mean"])

    report(ReportRequest([tmp_path / "two.yaml"], out=tmp_path / "scores.csv", cases=True))
    written = pandas.read_csv(tmp_path / "scores.csv")
    assert list(written.columns[:9]) == [
        "spec", "row", "seed", "cell", "phantoms", "case", "subset", "region", "dice",
    ]  # fmt: skip
    assert len(written) == 2 * 15 * 3
    assert written.phantoms.all()
    assert written.hd95_penalty.isna().all()  # evaluation.hd95 is off
    pandas.testing.assert_frame_equal(written, found, check_dtype=False, check_exact=True)
    with pytest.raises(acdis.errors.UserError, match="--cases: is CSV"):
        report(ReportRequest([tmp_path / "two.yaml"], cases=True))


def _as_yaml(overrides):
    tree = {}
    for override in overrides:
        key, _, value = override.partition("=")
        part, _, name = key.partition(".")
        tree.setdefault(part, []).append(f"  {name}: {value}")
    return [line for part, lines in tree.items() for line in (f"{part}:", *lines)]


def test_ray_and_mlflow_are_not_needed(home, tmp_path, checkout):
    """Every import of them fails, and a cell is trained, scored and predicted with."""
    program = f"""
import sys
for name in ("ray", "mlflow", "optuna", "fastapi", "sqlalchemy"):
    sys.modules[name] = None
import acdis, pathlib
assert "torch" not in sys.modules
experiment = acdis.load(None, {SMALL!r} + ["training.epochs=1", "method.options.synthesis_start=0"])
cell = acdis.train(experiment, device="cpu")
entry = acdis.cases(experiment).test[0]
found = acdis.predict(cell, {{"T1": entry.source.images[2]}}, device="cpu")
print("LABELS", found.labels.shape, len(acdis.score(cell)))
"""
    env = {**os.environ, "ACDIS_HOME": str(tmp_path), "PYTHONPATH": str(checkout / "platform")}
    result = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "LABELS (24, 24, 24) 90" in result.stdout


def test_names_are_listed_and_others_refused():
    assert {"load", "cases", "build", "train", "open_cell", "predict", "score", "results"} <= set(dir(acdis))
    with pytest.raises(AttributeError, match="nothing"):
        _ = acdis.nothing
    assert files.__name__ == "acdis.files"
