"""One training step of a cell, measured in a process of its own: `plan` itself imports no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from acdis import methods
from acdis.ablation.expansion import Member
from acdis.ablation.standings import Standing
from acdis.config import Experiment
from acdis.data.prepared_case import Entry
from acdis.errors import UserError
from acdis.machine import WORKER_ENVIRONMENT
from acdis.planning.estimate import Measured
from acdis.planning.placement import WorkerShare

SECONDS = 1800
_MARK = "MEASURED "


def measure_missing(
    standings: Sequence[Standing],
    known: Measured,
    rooms: Mapping[str, WorkerShare],
    say: Callable[[str], None],
) -> Measured:
    """`known`, with a step of each method's first cell that has none; cells that have begun have theirs.

    Args:
        rooms: what a worker gets, by cell.
        say: takes a line for the user.

    Raises:
        UserError: as `measure`.
    """
    left: dict[str, Member] = {}
    for standing in standings:
        member = standing.member
        own = standing.status != "done" and not methods.put_together(member.experiment)
        if own and member.cell not in known.steps:
            left.setdefault(member.experiment.method.name, member)
    if not left:
        say("measure: every cell that is left has measured its step already")
    for member in left.values():
        say(f"measuring a step of {member.spec.name}/{member.row.id} in a process of its own")
        known = _with(known, member.cell, measure(member, rooms[member.cell]))
    return known


def _with(known: Measured, cell: str, measurement: Mapping[str, float]) -> Measured:
    peak, checkpoint = int(measurement["peak"]), int(measurement["checkpoint"])
    return replace(
        known,
        steps={**known.steps, cell: measurement["seconds"]},
        peak=max(known.peak, peak),
        checkpoint=max(known.checkpoint, checkpoint),
        peaks={**known.peaks, cell: peak},
        checkpoints={**known.checkpoints, cell: checkpoint},
    )


def measure(member: Member, room: WorkerShare) -> dict[str, float]:
    """`seconds` of a step of one worker, its `peak` bytes, bytes of a `checkpoint`.

    Raises:
        UserError: the step does not fit, or needs a GPU that is not here.
    """
    job = {
        "experiment": member.experiment.model_dump(mode="json"),
        "threads": room.cpus,
        "entries": [entry.as_dict() for entry in member.inputs.train],
    }
    with tempfile.TemporaryDirectory(prefix="acdis-measure-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "acdis.planning.measure", folder],
            input=json.dumps(job),
            env=os.environ | WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": str(room.cpus)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    answers = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if not answers:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise UserError(f"row {member.row.id!r}: {(lines or ['the measuring process died'])[-1][:300]}")
    measurement: dict[str, float] = json.loads(answers[-1].removeprefix(_MARK))
    return measurement


def _one_worker(experiment: Experiment) -> Experiment:
    """What one of the workers does: its share of the batch."""
    share = experiment.training.batch_size // experiment.scaling.workers
    return experiment.model_copy(
        update={
            "training": experiment.training.model_copy(update={"batch_size": share}),
            "scaling": experiment.scaling.model_copy(update={"workers": 1}),
        }
    )


def _child(folder: Path, job: dict[str, Any]) -> dict[str, float]:
    import torch

    from acdis.training import loop, preflight
    from acdis.training.group import Group

    experiment = _one_worker(Experiment.model_validate(job["experiment"]))
    torch.set_num_threads(int(job["threads"]))
    if experiment.scaling.gpu and not torch.cuda.is_available():
        raise UserError("scaling.gpu: there is no GPU on this machine to measure on")
    device = torch.device("cuda" if experiment.scaling.gpu else "cpu")
    entries = tuple(map(Entry.from_dict, job["entries"]))
    run = loop.begin(experiment, folder, Group(device=device))
    projection = preflight.project(run, loop.Cases(entries))
    weights = sum(weight.nbytes for weight in run.method.state_dict().values())
    copies = 4 if experiment.training.amsgrad else 3  # of each weight: itself and what Adam keeps
    return {"seconds": projection.step_seconds, "peak": projection.peak_bytes, "checkpoint": weights * copies}


if __name__ == "__main__":
    try:
        print(_MARK + json.dumps(_child(Path(sys.argv[1]), json.load(sys.stdin))))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
