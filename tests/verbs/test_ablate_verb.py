"""`ablate` takes over what another process leaves, whenever that one ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from acdis.ablation.survey import Standing, Status
from acdis.verbs import ablate
from acdis.verbs.progress import Display

#: How a cell stands and what its state says.
Look = tuple[Status, str]


@pytest.mark.parametrize(
    ("looks", "trained"),
    [
        # Killed before the first look; its processes die before the second.
        ([("running", "training"), *[("missing", "training")] * 2], 1),
        # They die while we wait.
        ([("running", "training"), ("running", "training"), ("missing", "training")], 1),
        # It was stopped there.
        ([("running", "training"), *[("missing", "stopped")] * 2], 1),
        # A trial of ours found the cell held, and its holder died before we looked.
        ([("missing", "training")] * 3, 2),
        # It came to its end.
        ([("running", "scored"), ("done", "done")], 0),
        # What we train and is asked to stop is not begun again, nor is what we took over.
        ([("missing", "training"), *[("missing", "stopped")] * 2], 1),
        ([("running", "training"), *[("missing", "training")] * 2, *[("missing", "stopped")] * 2], 1),
    ],
)
def test_the_same_command_once_takes_over_what_has_ended_unfinished(
    looks: Sequence[Look], trained: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look sees the next of `looks`, then a cell that is done: one look at first, two a round."""
    script = list(looks)
    runs: list[list[str]] = []

    def survey(members: Any, base: Path) -> list[Standing]:
        status, state = script.pop(0) if script else ("done", "done")
        return [Standing(cast(Any, SimpleNamespace(cell="a")), status, {"status": state}, ())]

    monkeypatch.setattr(ablate, "survey", survey)
    monkeypatch.setattr(ablate, "parents", lambda *_: nullcontext())
    monkeypatch.setattr(ablate, "_jobs", lambda *_: {"a": "a"})
    monkeypatch.setattr(ablate, "generations", lambda _: [[SimpleNamespace(cell="a")]])
    monkeypatch.setattr(ablate, "_run", lambda jobs, *_: runs.append(jobs))
    with Display() as display:
        ablate._all([], ablate.Request([]), tmp_path, display)
    assert runs == [["a"]] * trained
