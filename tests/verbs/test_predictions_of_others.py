"""`evaluate FILE --predictions DIR`, and rows of predictions in a spec: scored and reported. No training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml

from acdis import config
from acdis.ablation.spec import load
from acdis.ablation.standings import survey
from acdis.cells import Cell, find_trained
from acdis.cluster.train import TrainingFailed
from acdis.data.inputs import open_inputs
from acdis.data.prepared_case import Entry
from acdis.errors import UserError
from acdis.evaluation.records import read_parquet
from acdis.report.collect import collect
from acdis.terminal.progress import Display
from acdis.tracking import default_uri, open_store
from acdis.verbs.evaluate_predictions import Request, evaluate_predictions
from acdis.verbs.plan import spec_table
from acdis.vocabulary import SUBSETS, subset_name
from acdis.workflow import others, train_missing
from acdis.workflow.opening import open_specs

EXPERIMENT: dict[str, Any] = {
    "data": {
        "phantoms": {"cases": 5, "shape": [20, 20, 20], "spacing": 8.0},
        "split": {"counts": [2, 1, 2], "seed": 0},
        "min_size": 16,
        "crop": [16, 16, 16],
    },
    "method": {"options": {"base_width": 4, "levels": 3, "synthesis_start": 1}},
    "training": {"epochs": 1, "iterations": 1, "batch_size": 1, "precision": "fp32"},
    "evaluation": {"window": [16, 16, 16], "stride": [16, 16, 16], "hd95": False},
}
SPEC = {
    "title": "Ours and theirs",
    "base": "tiny.yaml",
    "seeds": [0, 1],
    "baseline": "usual",
    "rows": {"usual": {}, "theirs": {"label": "nnU-Net", "predictions": "predicted"}},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiment, spec and predictions: the truth, moved by as many voxels as modalities are missing."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    for entry in cases_to_score(folder):
        for subset in SUBSETS:
            path = folder / "predicted" / subset_name(subset) / f"{entry.name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert entry.source
            image = nibabel.load(entry.source.segmentation)
            moved = np.roll(np.asanyarray(image.dataobj), 4 - len(subset), axis=1)
            nibabel.save(nibabel.Nifti1Image(moved, image.affine), path)
    return folder


def cases_to_score(folder: Path) -> tuple[Entry, ...]:
    return open_inputs(config.load(folder / "tiny.yaml").data, folder / "home", 1, lambda *_: None).test


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACDIS_HOME", str(folder / "home"))
    return folder


def dice(one: np.ndarray, other: np.ndarray) -> float:
    both = one.sum() + other.sum()
    return 2 * (one & other).sum() / both if both else 1.0


def test_scores_are_those_of_plain_numpy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_predictions(Request(Path("tiny.yaml"), Path("predicted"), "nnU-Net"))
    said = capsys.readouterr().out
    assert f'nnu_net: {{label: "nnU-Net", predictions: "{here / "predicted"}"}}' in said.replace(
        "nnu-net", "nnu_net"
    )
    (file,) = (here / "home" / "cells").glob("external-*/evaluations/*/records.parquet")
    found = {(row.case, row.subset, row.region): row.dice for row in read_parquet(file)}
    assert len(found) == 2 * 15 * 3
    regions = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
    for entry in cases_to_score(here):
        assert entry.source
        truth = np.asanyarray(nibabel.load(entry.source.segmentation).dataobj)
        for subset in SUBSETS:
            moved = np.roll(truth, 4 - len(subset), axis=1)
            for region, labels in regions.items():
                expected = dice(np.isin(moved, labels), np.isin(truth, labels))
                assert found[entry.name, subset_name(subset), region] == pytest.approx(expected, abs=1e-7)
    cell = Cell(file.parents[2])
    assert cell.state()["status"] == "done"
    known = cell.lineage()
    assert known["tags"]["acdis.external"] == "nnU-Net"
    assert known["splits"]["train"] == []
    with pytest.raises(UserError, match="holds scores of another tool's predictions, and no weights"):
        find_trained(here / "home", cell.name)
    client = open_store(default_uri(here / "home"))
    (run,) = client.search_runs([client.get_experiment_by_name("acdis").experiment_id])
    assert run.data.tags["acdis.method"] == run.data.params["method.name"] == "external"
    assert not [name for name in run.data.params if name.startswith("method.options.")]  # they are of ours


def test_a_row_of_predictions_stands_beside_ours(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_missing, "_run", lambda *_: None)  # no Ray here: ours stays missing
    with Display() as display:
        members = open_specs([Path("spec.yaml")], None, [], None, None, here / "home", display)
        with pytest.raises(TrainingFailed, match="2 cells have not come to an end"):
            train_missing.train_missing(members, here / "home", display)
    standings = survey(members, here / "home")
    assert [(each.member.row.id, each.member.seed, each.status) for each in standings] == [
        ("usual", 0, "missing"),
        ("usual", 1, "missing"),
        ("theirs", 0, "done"),
    ]
    (facts,) = collect(members, here / "home")
    assert [[cell.scored for cell in row.cells] for row in facts.rows] == [[False, False], [True]]
    assert spec_table(members[0].spec, standings).row_count == 2
    name = standings[-1].member.cell
    cell = Cell(here / "home" / "cells" / name)
    served = [{"spec": "spec", "table": "spec", "row": "theirs", "seed": 0}]
    assert cell.roles() == served
    (cell.folder / "roles.json").write_text('{"roles": [')  # a power cut ends no ablation
    with Display() as display, pytest.raises(TrainingFailed, match="2 cells have not come to an end"):
        train_missing.train_missing(members, here / "home", display)
    assert cell.roles() == served
    shutil.rmtree("predicted")  # as on a laptop that has the home alone
    with Display() as display:
        again = open_specs([Path("spec.yaml")], None, [], None, None, here / "home", display)
    assert again[-1].cell == name


def test_predictions_that_are_wrong_are_told_before_anything_is_trained(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_missing, "_run", lambda *_: pytest.fail("training began"))
    (here / "predicted" / "FLAIR_T2" / f"{cases_to_score(here)[0].name}.nii.gz").unlink()
    with Display() as display:
        members = open_specs([Path("spec.yaml")], None, [], None, None, here / "home", display)
        with pytest.raises(
            UserError, match=r"FLAIR_T2: no .*\.nii\.gz \(1 of 2 cases to score are missing\)"
        ):
            train_missing.train_missing(members, here / "home", display)


def test_scoring_goes_on_after_the_last_case(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = others.others.predictions.read

    def read(path: Path, case: Any, scheme: str | None) -> np.ndarray:
        asked.append(case.name)
        if len(set(asked)) == 2:
            raise UserError("as if killed")
        return real(path, case, scheme)

    monkeypatch.setattr(others.others.predictions, "read", read)
    request = Request(Path("tiny.yaml"), Path("predicted"), "nnU-Net")
    with pytest.raises(UserError, match="as if killed"):
        evaluate_predictions(request)
    first = asked[0]
    asked.clear()
    monkeypatch.setattr(others.others.predictions, "read", lambda *of: asked.append(of[1].name) or real(*of))
    evaluate_predictions(request)
    assert len(asked) == 15
    assert first not in asked


def test_one_subset_alone_is_shown_and_not_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = here / "predicted" / "FLAIR_T1ce_T1_T2"
    request = Request(Path("spec.yaml"), folder, "nnU-Net", subset="FLAIR_T1ce_T1_T2")
    evaluate_predictions(request)
    said = capsys.readouterr().out
    assert "dice WT: 100.00 %" in said
    assert "373.13" not in said
    assert "shown and not kept" in said
    assert not list((here / "home" / "cells").glob("external-*"))
    with_et = next(path for path in folder.iterdir() if 4 in np.asanyarray(nibabel.load(path).dataobj))
    image = nibabel.load(with_et)
    without = np.where(np.asanyarray(image.dataobj) == 4, 1, image.dataobj).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(without, image.affine), with_et)
    evaluate_predictions(replace(request, overrides=["evaluation.hd95=true"]))
    said = " ".join(capsys.readouterr().out.split())
    assert "one empty 373.13 (a penalty); penalties: WT 0, TC 0, ET 1 of 2 scores each." in said


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"predictions": "p", "set": {"training.epochs": 2}},
            r"rows\.theirs\.set: predictions are only scored",
        ),
        ({"predictions": "p", "absent": "why"}, r"rows\.theirs\.absent: predictions are only scored"),
        ({"predictions": "p", "scheme": "brats"}, r"rows\.theirs\.scheme: .*unknown scheme 'brats'"),
        ({"scheme": "brats2023", "set": {"training.epochs": 2}}, r"rows\.theirs\.scheme: is for predictions"),
    ],
)
def test_what_a_row_of_predictions_cannot_say(here: Path, row: dict[str, Any], said: str) -> None:
    (here / "spec.yaml").write_text(
        yaml.safe_dump(SPEC | {"rows": {"usual": {}, "theirs": row}}, sort_keys=False)
    )
    with pytest.raises(UserError, match=said):
        load(here / "spec.yaml")


def test_a_spec_trains_something(here: Path) -> None:
    rows = {"theirs": {"predictions": "predicted"}}
    (here / "spec.yaml").write_text(
        yaml.safe_dump(SPEC | {"rows": rows, "baseline": "theirs"}, sort_keys=False)
    )
    with pytest.raises(UserError, match="all are predictions; give at least one that is trained"):
        load(here / "spec.yaml")


def test_a_folder_for_each_seed(here: Path) -> None:
    for seed in (0, 1):
        shutil.copytree(here / "predicted", here / f"of{seed}")
    changed = SPEC | {"rows": {"usual": {}, "theirs": {"predictions": "of{seed}"}}}
    (here / "spec.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    with Display() as display:
        with pytest.raises(UserError, match=r"row 'theirs', seed 0, and row 'theirs', seed 1, have the same"):
            open_specs([Path("spec.yaml")], None, [], None, None, here / "home", display)
        changed_file = next((here / "of1" / "FLAIR").iterdir())
        shutil.copy(next((here / "of1" / "FLAIR_T1ce").iterdir()), changed_file)
        members = open_specs([Path("spec.yaml")], None, [], None, None, here / "home", display)
    assert [(each.row.id, each.seed) for each in members] == [
        ("usual", 0),
        ("usual", 1),
        ("theirs", 0),
        ("theirs", 1),
    ]
    assert members[2].cell != members[3].cell
