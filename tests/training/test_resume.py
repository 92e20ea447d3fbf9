"""Resuming is exact: what was killed and started again ends with the same bits."""

import signal

import pytest
import torch

from acdis.errors import UserError
from acdis.training import checkpoint, loop
from acdis.training.events import EpochEnd
from acdis.training.group import Group


def without_seconds(history):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


def assert_same_bits(one, other):
    """Nested dicts and lists of tensors and numbers."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_bits(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same_bits(left, right)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_killed_in_the_third_epoch_and_started_again(tmp_path, small, three, start, train, all_losses):
    """Synthesis starts in the second epoch: the checkpoint holds MFSB's and the discriminator's Adam."""
    settings = {"training.iterations": 3}
    experiment = small(settings, synthesis_start=1, **all_losses)
    task = {"experiment": experiment, "cases": three, "folder": tmp_path / "killed", "killed_at": (3, 1)}
    (process,) = start(tmp_path / "killed", [("train", task)])
    assert process.wait() == -signal.SIGKILL, process.errors.read_text()
    assert "EpochEnd 2" in process.said.read_text()
    state = checkpoint.load(tmp_path / "killed" / loop.LAST)
    assert state["history"].count('"learning_rate"') == 2  # the third epoch was not finished
    names = [name for name in state["method"] if not name.startswith(("discriminator.", "synthesising"))]
    stepped = {names[index].split(".")[0] for index in state["optimisers"]["main"]["state"]}
    assert "synthesisers" in stepped
    assert state["optimisers"]["discriminator"]["state"]

    whole, resumed = (train(experiment, tmp_path / name)[0] for name in ("whole", "killed"))
    assert_same_bits(whole.method.state_dict(), resumed.method.state_dict())
    assert without_seconds(whole.history) == without_seconds(resumed.history)
    assert len(whole.history) == 4
    ends = [checkpoint.load(tmp_path / name / loop.LAST) for name in ("whole", "killed")]
    assert_same_bits(ends[0]["optimisers"], ends[1]["optimisers"])


def test_ranks_with_different_checkpoints_say_so(tmp_path, small, three, start):
    """As where two nodes have homes of their own: one has a checkpoint of two epochs, the other of one."""
    experiment = small({"training.iterations": 1})
    for name, epochs in (("one", 1), ("two", 2)):
        _train_until(epochs, experiment, three, tmp_path / name)
    tasks = [
        [("train", {"experiment": experiment, "cases": three, "folder": tmp_path / name})]
        for name in ("two", "one")
    ]
    for process in start(tmp_path / "job", tasks, 2, own=True):
        assert process.wait() == 1
        errors = process.errors.read_text()
        assert "UserError" in errors
        assert "different checkpoints (epochs done: rank 0 2, rank 1 1)" in errors


def test_a_finished_run_is_left_alone(tmp_path, small, train):
    experiment = small({"training.epochs": 1})
    first, _ = train(experiment, tmp_path)
    second, events = train(experiment, tmp_path)
    assert events == []
    assert second.history == first.history
    assert_same_bits(first.method.state_dict(), second.method.state_dict())


@pytest.mark.parametrize("options", [{"base_width": 8}, {"levels": 2}, {"synthesis": ["adver"]}])
def test_the_checkpoint_of_another_model_is_refused(tmp_path, small, train, options):
    train(small({"training.epochs": 1}), tmp_path)
    with pytest.raises(UserError, match=r"last\.pt: belongs to another model .*delete it"):
        train(small({"training.epochs": 2}, **options), tmp_path)


def test_the_checkpoint_of_another_version_is_refused(tmp_path, small, train, monkeypatch):
    run, _ = train(small({"training.epochs": 1}), tmp_path)
    monkeypatch.setattr(type(run.method), "version", run.method.version + 1)
    with pytest.raises(UserError, match="version"):
        train(small({"training.epochs": 2}), tmp_path)


@pytest.mark.parametrize("state", [{}, {"version": 1, "method": 3}, {"version": 1, "method": {}}])
def test_a_checkpoint_that_lacks_parts_is_refused(tmp_path, small, train, state):
    checkpoint.save(tmp_path / loop.LAST, state)
    with pytest.raises(UserError, match="belongs to another model"):
        train(small(), tmp_path)


def test_what_a_kill_left_half_written_is_removed(tmp_path, small, train):
    (tmp_path / ".last.pt.123.part").write_bytes(b"half")
    train(small({"training.epochs": 1}), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {loop.LAST}


def _cut_short(path, length):
    path.write_bytes(path.read_bytes()[:length])


class Enough(BaseException):
    """Ends a training after an epoch."""


def _train_until(epoch, experiment, cases, folder):
    def listen(event):
        if isinstance(event, EpochEnd) and event.epoch == epoch:
            raise Enough

    folder.mkdir()
    with pytest.raises(Enough):
        loop.train(experiment, cases, folder, Group(), listen)


@pytest.mark.parametrize("harm", ["cut short", "gone"])
def test_without_the_last_checkpoint_the_one_before_is_taken_up(tmp_path, small, three, train, harm):
    """Gone: a process was killed when the old file was moved aside and the new one not yet in its place."""
    whole, _ = train(small({"training.epochs": 4}), tmp_path / "whole")
    _train_until(3, small({"training.epochs": 4}), three, tmp_path / "harmed")
    last = tmp_path / "harmed" / loop.LAST
    _cut_short(last, 1000) if harm == "cut short" else last.unlink()
    again, events = train(small({"training.epochs": 4}), tmp_path / "harmed")
    assert events[0].epoch == 2
    assert without_seconds(again.history) == without_seconds(whole.history)
    assert_same_bits(whole.method.state_dict(), again.method.state_dict())
    assert checkpoint.load(last)["history"].count('"learning_rate"') == 4
    assert checkpoint.load(last.with_name(loop.BEFORE))["history"].count('"learning_rate"') == 3


def test_when_both_are_damaged_the_user_is_asked(tmp_path, small, train):
    train(small({"training.epochs": 2}), tmp_path)
    for name in (loop.LAST, loop.BEFORE):
        _cut_short(tmp_path / name, 1000)
    with pytest.raises(UserError, match=r"before\.pt: not a readable checkpoint .*delete it"):
        train(small({"training.epochs": 4}), tmp_path)
    with pytest.raises(UserError, match=r"before\.pt"):  # and again: it is not trained anew behind his back
        train(small({"training.epochs": 4}), tmp_path)
