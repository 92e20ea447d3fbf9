"""A training that is asked to stop: every rank ends after the same epoch, and never after the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray.train

from acdis.cells import Cell, attempts, stop_request
from acdis.cells.attempts import Attempt
from acdis.cluster import listeners, train, worker
from acdis.cluster.listeners import Heartbeat, Listener, Superseded
from acdis.config import Scaling
from acdis.errors import UserError
from acdis.training.events import EpochEnd, Saving, Step
from acdis.training.group import Group


class Follower(Group):
    """The second of two ranks: it learns from the first what the first has read."""

    def gather(self, items: list[Any]) -> list[Any]:
        assert items == [None]
        return ["hopeless", *items]


def _end(epoch: int) -> EpochEnd:
    return EpochEnd(epoch, 3, {"loss": 1.0}, 1e-3, 1.0, {"dice/mean": 0.5})


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    told: list[int] = []
    monkeypatch.setattr(ray.train, "report", lambda values: told.append(values["epoch"]))
    return told


def _listener(folder: Path, group: Group) -> Listener:
    attempt = Attempt(folder, *attempts.fresh(folder), group.rank)
    return Listener(Heartbeat(Cell(folder), group, attempt), group)


def test_it_stops_after_the_epoch_in_which_it_was_asked(tmp_path: Path, reports: list[int]) -> None:
    cell = Cell(tmp_path)
    listener = _listener(tmp_path, Group())
    listener(_end(1))
    stop_request.ask(cell, "hopeless")
    listener.tracker = None  # nobody answers there, and closing would wait for it
    with pytest.raises(listeners.AskedToStop, match="hopeless"):
        listener(_end(2))
    assert reports == [1, 2]
    assert cell.state()["done"] == 2
    listener(_end(3))  # the last: nothing is left to stop
    stop_request.forget(cell)
    listener(_end(2))


def test_other_ranks_stop_with_the_first(tmp_path: Path, reports: list[int]) -> None:
    stop_request.ask(Cell(tmp_path), "only the first rank reads this")
    with pytest.raises(listeners.AskedToStop, match="hopeless"):
        _listener(tmp_path, Follower(rank=1, world=2))(_end(1))


def test_who_was_given_up_while_cut_off_writes_no_more(tmp_path: Path, reports: list[int]) -> None:
    """Its last step of the epoch ends it, so its checkpoint does not take the place of the other's."""
    cell = Cell(tmp_path)
    cell.update(done=2)
    listener = _listener(tmp_path, Group())
    listener(Step(3, 4, 1, 4, 1.0))
    other = Attempt(tmp_path, *attempts.fresh(tmp_path))
    other.update(status="training", done=3)
    listener(Step(3, 4, 2, 4, 1.0))  # less than two seconds after the last word: nothing is read or written
    for event in (Step(3, 4, 4, 4, 1.0), _end(3)):
        with pytest.raises(Superseded, match=other.mark):
            listener(event)
    assert (cell.state()["done"], cell.state()["attempt"]) == (3, other.mark)
    assert reports == []


def test_who_was_given_up_while_validating_writes_no_checkpoint(tmp_path: Path, reports: list[int]) -> None:
    """The epoch's last step was still his; the word comes while he looks at the validation cases."""
    cell = Cell(tmp_path)
    cell.update(done=2)
    listener = _listener(tmp_path, Group())
    listener(Step(3, 4, 4, 4, 1.0))
    listener(Saving(3))  # still his
    cell.begin(status="starting")
    with pytest.raises(Superseded, match="of the driver"):
        listener(Saving(3))
    listener.heartbeat.leads = False
    listener(Saving(3))  # who does not lead writes nothing, so is not asked


class Two(Group):
    """One of two ranks; the other sees `other`."""

    other = False

    def gather(self, items: list[Any]) -> list[Any]:
        return [*items, self.other] if self.leads else [self.other, *items]


@pytest.mark.parametrize(
    ("rank", "there", "lacking"), [(0, True, 1), (1, True, 0), (0, False, 0), (1, False, 1)]
)
def test_ranks_that_see_different_files_say_who_does_not(rank: int, there: bool, lacking: int) -> None:
    group = Two(rank=rank, world=2)
    group.__class__.other = not there
    with pytest.raises(UserError, match=rf"weights\.pt: not seen by rank {lacking} of 2; every node"):
        worker._agreed(group, there, Path("weights.pt"))
    group.__class__.other = there
    assert worker._agreed(group, there, Path("weights.pt")) is there


def test_the_driver_tells_a_stop_from_ctrl_c(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    cell.update(status="stopped", reason="hopeless")
    with pytest.raises(train.TrainingStopped, match="hopeless"):
        train._judge(cell)
    cell.begin(status="stopped")
    train._judge(cell)


@pytest.mark.parametrize(
    ("scaling", "limits"),
    [
        ({}, (900.0, 3)),
        ({"patience": 100.0}, (25.0, 3)),
        ({"workers": 2, "min_workers": 1}, (60.0, 59)),
        ({"workers": 2, "min_workers": 1, "patience": 40.0}, (10.0, 3)),
    ],
)
def test_ray_waits_for_places_as_long_as_patience_says(
    scaling: dict[str, Any], limits: tuple[float, int]
) -> None:
    seconds, retries = train.start_limits(Scaling(**scaling))
    assert (seconds, retries) == limits
    assert seconds * (retries + 1) == Scaling(**scaling).patience
