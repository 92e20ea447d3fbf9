"""A row of several cells: each part is validated on its subset, and the whole trains nothing."""

import numpy as np
import pytest
import torch

from acdis import methods
from acdis.cluster.worker import _parts
from acdis.evaluation.scoring import score
from acdis.training import checkpoint, loop
from acdis.training.events import EpochEnd
from acdis.vocabulary import SUBSETS, subset_name

NAMES = [subset_name(subset) for subset in SUBSETS]


@pytest.fixture(scope="module")
def experiment(small):
    """A function to the experiment of a subset, or of all."""
    tiny = small({"training.epochs": 1, "training.iterations": 2, "evaluation.hd95": False})

    def of(subset=None, parents=None):
        options = {"base_width": 2, "levels": 2, "subset": subset}
        choice = tiny.method.model_copy(
            update={"name": "unet_dedicated", "options": options, "parents": parents or {}}
        )
        return methods.resolve(tiny.model_copy(update={"method": choice}))

    return of


def test_a_part_is_validated_on_its_subset(experiment, train, entries, tmp_path):
    """The same numbers as when all fifteen are scored and its own are looked up."""
    cases = loop.Cases(entries[:3], entries[3:5])
    run, events = train(experiment("T1ce"), tmp_path / "part", cases)
    (end,) = [event for event in events if isinstance(event, EpochEnd)]
    records = score(run.method, entries[3:5], run.experiment.evaluation, torch.device("cpu"), None)
    for region in ("WT", "TC", "ET"):
        dice = [record.dice for record in records if (record.subset, record.region) == ("T1ce", region)]
        assert len(dice) == 2
        assert end.validation[f"dice/{region}/mean"] == pytest.approx(np.mean(dice), abs=1e-12)


def test_the_whole_scores_with_its_parts_networks(experiment, train, entries, tmp_path):
    cells, scores = {}, {}
    for name in NAMES:
        run, _ = train(experiment(name), tmp_path / f"part-{name}")
        checkpoint.save(tmp_path / f"part-{name}" / "weights.pt", loop.final_state(run, tmp_path))
        cells[name] = f"part-{name}"
        records = score(run.method, entries[4:], run.experiment.evaluation, torch.device("cpu"), None)
        scores |= {(r.case, r.subset, r.region): r for r in records if r.subset == name}
    whole = experiment(parents=cells)
    assert methods.put_together(whole)
    assert _parts(whole) == sorted(cells.values())
    run, events = train(whole, tmp_path / "whole")
    assert (run.history, events) == ([], [])
    records = score(run.method, entries[4:], whole.evaluation, torch.device("cpu"), None)
    assert {(r.case, r.subset, r.region): r for r in records} == scores
    assert len({r.predicted_voxels for r in records}) > 1


def test_without_parents_all_are_trained_side_by_side(experiment, train, tmp_path):
    run, events = train(experiment(), tmp_path / "all")
    assert len(run.history) == 1
    assert any(isinstance(event, EpochEnd) for event in events)
