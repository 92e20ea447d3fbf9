"""A loss that is not finite stops every process, and the message says term, case and epoch."""

import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from acdis.data.loader import epoch_order
from acdis.training import loop


@pytest.fixture
def poisoned(entries, tmp_path):
    """Three cases; the second's voxels are finite, or the cache would be called damaged, and overflow."""
    folder = tmp_path / "poisoned"
    shutil.copytree(entries[1].path, folder)
    images = np.load(folder / "image.npy")
    np.save(folder / "image.npy", np.full_like(images, np.finfo(np.float32).max))
    return loop.Cases([entries[0], replace(entries[1], path=folder), entries[2]])


def first_epoch_with(name, cases, seed, batch):
    """Counted from 1, one step an epoch."""
    names = [entry.name for entry in cases.train]
    drawn = ([case for case, _ in epoch_order(names, seed, epoch, batch)] for epoch in range(100))
    return next(number for number, case in enumerate(drawn, 1) if name in case)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_poisoned_case_is_named(poisoned, small, train, tmp_path, accumulation):
    """Dice sums over the batch make every sample's loss NaN; only one case is to blame. The preflight, which
    may have the case in its batch, leaves it to the epoch."""
    bad = poisoned.train[1].name
    settings = {"training.iterations": 1, "scaling.accumulation": accumulation}
    seed = next(seed for seed in range(50) if first_epoch_with(bad, poisoned, seed, 2) == 2)
    with pytest.raises(loop.Diverged) as caught:
        train(small({**settings, "seed": seed}), tmp_path / "run", poisoned)
    message = str(caught.value)
    assert "seg/fuse/dice" in message
    assert "seg/fuse/wce" in message
    assert "became NaN in term" in message
    assert message.endswith(f"case {bad}, epoch 2")
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    assert len(checkpointed(tmp_path / "run")) == 1


def checkpointed(folder):
    import json

    from acdis.training import checkpoint

    return json.loads(checkpoint.load(folder / loop.LAST)["history"])


def test_both_ranks_stop(poisoned, small, finish, tmp_path):
    """With the same message, whichever of them holds the case."""
    bad = poisoned.train[1].name
    seed = next(seed for seed in range(50) if first_epoch_with(bad, poisoned, seed, 2) == 1)
    experiment = small({"training.iterations": 1, "seed": seed})
    task = ("train", {"experiment": experiment, "cases": poisoned, "folder": tmp_path / "run"})
    one, other = (results[0]["diverged"] for results in finish(tmp_path, [task], world=2))
    assert one == other
    assert one.endswith(f"case {bad}, epoch 1")
    assert not (tmp_path / "run" / loop.LAST).exists()


def test_weights_that_are_not_finite_blame_every_case(three, small, tmp_path):
    from acdis.training.batches import batches
    from acdis.training.group import Group
    from acdis.training.step import optimiser_step

    run = loop.begin(small(), tmp_path, Group())
    with torch.no_grad():
        run.method.fusion_decoder.decoder.head.weight.fill_(torch.inf)
    samples = next(batches(run, three, 0))
    with pytest.raises(loop.Diverged) as caught:
        optimiser_step(run, samples, 0)
    assert all(name in str(caught.value) for name in samples.names)
    assert "seg/mono" not in str(caught.value)  # D_Aux is sound


def test_a_batch_that_diverges_only_together(three, small, tmp_path, monkeypatch):
    """Nobody is blamed alone."""
    from acdis.training.batches import batches
    from acdis.training.divergence import stop_if_diverged
    from acdis.training.group import Group

    run = loop.begin(small(), tmp_path, Group())
    samples = next(batches(run, three, 0))
    with pytest.raises(
        loop.Diverged, match=r"infinite in term odd, case .*, .* \(together; each alone is finite\), epoch 8"
    ):
        stop_if_diverged(run, samples, {"loss": np.inf, "odd": np.inf, "even": 1.0}, 7)
