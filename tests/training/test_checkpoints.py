"""Checkpoints behind the next epoch, or every few minutes: nothing is told that is not on the disk."""

import json
import threading

import pytest
import torch

from acdis.errors import UserError
from acdis.training import checkpoint, checkpoints, loop
from acdis.training.checkpoints import Checkpoints, copied
from acdis.training.events import EpochEnd, Saving, Step
from acdis.training.group import Group
from acdis.training.run import begin

PATIENCE = 300  # seconds
LONG = {"training.epochs": 3, "training.iterations": 3}


@pytest.fixture
def behind(monkeypatch):
    """As on a GPU: a thread writes; an epoch is told of after the second step of the next one."""
    monkeypatch.setattr(checkpoints, "written_behind", lambda group: True)
    monkeypatch.setattr(checkpoints, "STEPS_AHEAD", 2)


def kept(folder, name=loop.LAST):
    """Epochs in a checkpoint."""
    return len(json.loads(checkpoint.load(folder / name)["history"]))


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


def brief(events):
    return [
        f"{type(event).__name__} {event.epoch}" + (f".{event.step}" if isinstance(event, Step) else "")
        for event in events
        if isinstance(event, Step | Saving | EpochEnd)
    ]


def test_training_goes_on_while_a_thread_writes(small, three, train, tmp_path, behind, monkeypatch):
    """The first write waits for a step of the second epoch: who waited for the write would wait for ever.

    What it writes is the first epoch's all the same, and weights and checkpoints are those of no thread.
    """
    stepped, write = threading.Event(), checkpoints.write
    found, events = {}, []

    def late(folder, state, best):
        assert stepped.wait(PATIENCE)
        write(folder, state, best)

    def listen(event):
        events.append(event)
        if isinstance(event, Step) and (event.epoch, event.step) == (2, 1):
            assert not (tmp_path / "behind" / loop.LAST).exists()
            stepped.set()
        if isinstance(event, EpochEnd):
            found[event.epoch] = checkpoint.load(tmp_path / "behind" / loop.LAST)

    monkeypatch.setattr(checkpoints, "write", late)
    (tmp_path / "behind").mkdir()
    run = loop.train(small(LONG), three, tmp_path / "behind", Group(), listen)
    first, *_ = (f"Step 1.{step}" for step in (1, 2, 3))
    assert brief(events)[0] == first
    assert brief(events)[3:] == [
        "Saving 1", "Step 2.1", "Step 2.2", "EpochEnd 1", "Step 2.3",
        "Saving 2", "Step 3.1", "Step 3.2", "EpochEnd 2", "Step 3.3",
        "Saving 3", "EpochEnd 3",
    ]  # fmt: skip
    monkeypatch.setattr(checkpoints, "written_behind", lambda group: False)
    monkeypatch.setattr(checkpoints, "write", write)
    usual = {}

    def note(event):
        if isinstance(event, EpochEnd):
            usual[event.epoch] = checkpoint.load(tmp_path / "usual" / loop.LAST)

    (tmp_path / "usual").mkdir()
    other = loop.train(small(LONG), three, tmp_path / "usual", Group(), note)
    same(run.method.state_dict(), other.method.state_dict())
    for epoch in (1, 2, 3):
        same(found[epoch]["method"], usual[epoch]["method"])
        for index, state in usual[epoch]["optimisers"]["main"]["state"].items():
            same(found[epoch]["optimisers"]["main"]["state"][index], state)
        assert len(json.loads(found[epoch]["history"])) == epoch


def test_a_write_that_fails_ends_the_training_and_is_told_of_nobody(
    small, three, train, tmp_path, behind, monkeypatch
):
    """As on a full disk; the same command then goes on from the epoch before, to the same weights."""
    write = checkpoints.write

    def full(folder, state, best):
        if state["history"].count('"learning_rate"') == 2:
            raise UserError("no room")
        write(folder, state, best)

    monkeypatch.setattr(checkpoints, "write", full)
    events = []
    with pytest.raises(UserError, match="no room"):
        loop.train(small(LONG), three, tmp_path, Group(), events.append)
    assert [event.epoch for event in events if isinstance(event, EpochEnd)] == [1] == [kept(tmp_path)]
    monkeypatch.setattr(checkpoints, "write", write)
    run, later = train(small(LONG), tmp_path)
    assert [event.epoch for event in later if isinstance(event, EpochEnd)] == [2, 3]
    monkeypatch.setattr(checkpoints, "written_behind", lambda group: False)
    whole, _ = train(small(LONG), tmp_path / "whole")
    same(run.method.state_dict(), whole.method.state_dict())


def test_leaving_waits_for_the_write(small, three, tmp_path, behind, monkeypatch):
    """Whatever ends the training: a writer left behind could replace a later checkpoint."""
    going, write = threading.Event(), checkpoints.write

    def slow(folder, state, best):
        going.wait(0.3)
        write(folder, state, best)

    def listen(event):
        if isinstance(event, Step) and event.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "write", slow)
    with pytest.raises(KeyboardInterrupt):
        loop.train(small(LONG), three, tmp_path, Group(), listen)
    assert kept(tmp_path) == 1


@pytest.mark.parametrize("thread", [False, True])
def test_every_few_minutes(small, tmp_path, monkeypatch, thread):
    """By a clock that is set: epochs are told of together, when they are in a checkpoint; the last always is.

    The best weights are those of their epoch, though they reach the disk with a later one's checkpoint.
    """
    monkeypatch.setattr(checkpoints, "written_behind", lambda group: thread)
    told, now, weights = [], [0.0], {}
    settings = {"scaling.checkpoint_minutes": 2.0, "training.selection": "best"}
    run = begin(small(settings), tmp_path, Group())

    def listen(event):
        told.append((type(event).__name__, event.epoch))
        if isinstance(event, EpochEnd):
            assert kept(tmp_path) >= event.epoch

    writer = Checkpoints(run, tmp_path, listen, clock=lambda: now[0])
    with writer:
        # seconds at the epoch's end, its Dice
        for epoch, (seconds, dice) in enumerate(
            [(50, 0.1), (119, 0.6), (130, 0.5), (200, 0.2), (210, 0.3)], 1
        ):
            with torch.no_grad():
                next(run.method.parameters()).fill_(epoch)
            weights[epoch] = {name: value.clone() for name, value in run.method.kept_state().items()}
            now[0] = seconds
            entry = EpochEnd(epoch, 5, {"loss": 1.0}, 1e-3, 1.0, {"dice/mean": dice})
            run.history.append(entry.as_dict())
            writer.after_epoch(entry)
            writer.after_step(checkpoints.STEPS_AHEAD)
    ends = [("EpochEnd", epoch) for epoch in range(1, 6)]
    assert told == [("Saving", 3), *ends[:3], ("Saving", 5), *ends[3:]]
    assert kept(tmp_path, loop.BEFORE) == 3
    same(checkpoint.load(tmp_path / loop.BEST), weights[2])
    assert checkpoint.load(tmp_path / loop.LAST)["best"] == {"dice": 0.6, "epoch": 2.0}


def test_a_copy_is_one():
    """Same values, types and strides; nothing shared."""
    map_ = torch.rand(2, 3, 4, 4, 4).to(memory_format=torch.channels_last_3d)
    state = {
        "a": [map_, {"step": torch.tensor(3.0)}],
        "b": (1, "x", None),
        5: torch.nn.Parameter(torch.ones(2)),
    }
    found = copied(state)
    assert torch.equal(found["a"][0], map_)
    assert found["a"][0].stride() == map_.stride()
    assert found["b"] == state["b"]
    assert found["a"][1]["step"] == 3
    assert not found[5].requires_grad
    map_.zero_()
    assert found["a"][0].sum() > 0
