"""A small study on paper: rows with scores, a teacher, a failed training, another tool. Nothing trains."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from acdis import cells
from acdis.ablation.expansion import Member, resolve
from acdis.ablation.selection import load_specs
from acdis.data.inputs import Inputs
from acdis.evaluation.records import Record, write_parquet
from acdis.report import bundle
from acdis.report.collect import collect, reader
from acdis.report.formats import compared
from acdis.report.paperwork import cell_papers, elsewhere
from acdis.report.paperwork.study import Study, study
from acdis.tracking.epoch_log import EpochLog
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

EXPERIMENT = """
data:
  root: /somewhere
  split: {train: lists/my_train.txt, validation: lists/my_val.txt, test: lists/my_test.txt}
  min_size: 16
  crop: [16, 16, 16]
  augmentation: {rotation: 7, flip: 0.25}
training: {epochs: 9, iterations: 11, batch_size: 3, learning_rate: 2.0e-4, precision: fp32}
evaluation: {window: [16, 16, 16], stride: [8, 8, 8], metrics: [nsd]}
method:
  options_for:
    mmanet: {base_width: 4, levels: 3, begin_epoch: 2, ranking_epochs: 1}
    rfnet: {base_width: 4, levels: 3, fusion_start: 2}
scaling: {gpu: true}
"""
SPEC = """
title: A small study
base: experiment.yaml
seeds: [4, 7]
baseline: rfnet
margin: 0.5
rows:
  rfnet: {label: RFNet, set: {method.name: rfnet}}
  pupil: {label: MMANet, set: {method.name: mmanet, method.parents.teacher: master}}
  master: {label: its teacher, set: {method.name: mmanet, method.options.stage: teacher, scored: false}}
  theirs: {label: nnU-Net, predictions: somewhere}
"""
#: Five scans of four patients train, one validates, three of two patients test.
SPLITS = {
    "train": [
        f"BraTS-GLI-{name}" for name in ("00003-000", "00001-000", "00001-001", "00002-000", "00004-000")
    ],
    "validation": ["BraTS-GLI-00005-000"],
    "test": [f"BraTS-GLI-{name}" for name in ("00007-000", "00006-001", "00006-000")],
}
TAGS = {
    "acdis.git_commit": "0123456789abcdef0123456789abcdef01234567",
    "acdis.git_dirty": "true",
    "acdis.version.acdis": "0.1.0",
    "acdis.version.python": "3.11.9",
    "acdis.version.torch": "2.11.0",
    "acdis.version.monai": "1.6.0",
    "acdis.version.ray": "absent",
    "acdis.device": "1 × NVIDIA H200",
}
FINGERPRINTS = {"learnt": "1e" * 32, "scored": "5c" * 32}
FOREIGN = "external-0123456789ab"


def patient(case: str) -> str:
    return case.rpartition("-")[0]


#: As a cell notes them: of the cases that it has learned from.
PATIENTS = {case: patient(case) for case in (*SPLITS["train"], *SPLITS["validation"])}
LINEAGE = {"tags": TAGS, "splits": SPLITS, "fingerprints": FINGERPRINTS, "patients": PATIENTS}


def records(level: float, seed: int) -> list[Record]:
    """Dice about `level`; the last case has no ET, and a prediction of it in two subsets."""
    draw = np.random.default_rng([int(1000 * level), seed])
    return [
        Record(
            case=case,
            subset=subset_name(subset),
            region=region,
            dice=float(np.clip(level + 0.1 * place + 0.05 * draw.standard_normal(), 0, 1)),
            dice_et500=level if region == "ET" else None,
            hd95=373.13 if (place, region) == (2, "ET") and number < 2 else 3.0,
            predicted_voxels=1,
            truth_voxels={"WT": 3000, "TC": 2000, "ET": 1000 * (place < 2)}[region] * (place + 1),
            voxel_volume=1.0,
            patient=patient(case),
            nsd_1mm=0.5,
            nsd_2mm=0.6,
        )
        for place, case in enumerate(SPLITS["test"])
        for number, subset in enumerate(SUBSETS)
        for region in REGIONS
    ]


def end(base: Path, member: Member, level: float | None) -> cells.Cell:
    """What a finished cell leaves: two hours of one GPU; scores where there is a level."""
    cell = cells.create(base, member.cell, member.experiment, LINEAGE)
    cell.update(status="done", workers=1, cpus=4, gpus=1, evaluation=member.evaluation)
    history = {
        "epochs": [{"seconds": 3600.0}] * 2,
        "capacity": {"parameters": 8.5e6, "peak_bytes": 3 * 2**30},
    }
    (cell.folder / "history.json").write_text(json.dumps(history))
    (cell.folder / "changes.patch").write_text("-old\n+new\n")
    if level is not None:
        folder = cell.evaluations / member.evaluation
        folder.mkdir(parents=True)
        write_parquet(folder / "records.parquet", records(level, member.seed))
    return cell


def fail(base: Path, member: Member) -> cells.Cell:
    """A training that failed after half an hour of one GPU: it has a journal and no history."""
    cell = cells.create(base, member.cell, member.experiment, LINEAGE)
    cell.update(status="failed", reason="the loss became NaN", workers=1, cpus=4, gpus=1)
    EpochLog(cell.folder).log_epoch(1, {"learning_rate": 2e-4, "epoch_seconds": 1800.0})
    return cell


def made(
    folder: Path, spec: str = SPEC, experiment: str = EXPERIMENT, failed: bool = True
) -> SimpleNamespace:
    """Home, members and specs' facts: every row finished; the pupil's second seed may have failed."""
    (folder / "experiment.yaml").write_text(experiment)
    path = folder / "small.yaml"
    path.write_text(spec)
    base = folder / "home"
    members = resolve(load_specs([path]), lambda _: Inputs((), (), ()), lambda *_: FOREIGN)
    levels = {"rfnet": 0.4, "pupil": 0.6, "master": None, "theirs": 0.7}
    for member in members:
        if failed and (member.row.id, member.seed) == ("pupil", 7):
            fail(base, member)
        else:
            end(base, member, levels.get(member.row.id, 0.5))
    return SimpleNamespace(base=base, members=members, specs=collect(members, base))


def of_home(place: SimpleNamespace) -> Study:
    names = {cell.cell for spec in place.specs for row in (*spec.rows, *spec.unscored) for cell in row.cells}
    contents = cell_papers.of_home(place.base)
    others = elsewhere.look(place.base, names)
    return study(
        compared(place.specs, reader(place.base)), lambda cell: cell_papers.read(cell, contents), others
    )


def of_bundle(place: SimpleNamespace, path: Path) -> Study:
    bundle.write(path, place.specs, [], place.base, {})
    specs, read = bundle.read(path)
    contents = bundle.cell_files(path)
    return study(compared(specs, read), lambda cell: cell_papers.read(cell, contents), None)


@pytest.fixture
def home(tmp_path: Path) -> SimpleNamespace:
    """A home that the test may spoil."""
    return made(tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study of such a home, to be looked at."""
    return of_home(made(tmp_path_factory.mktemp("paperwork")))


@pytest.fixture(scope="session")
def paper() -> SimpleNamespace:
    """The makers of this file."""
    return SimpleNamespace(
        made=made, of_home=of_home, of_bundle=of_bundle, splits=SPLITS, spec=SPEC, experiment=EXPERIMENT
    )
