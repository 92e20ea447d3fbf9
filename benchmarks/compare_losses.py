"""Do two commits train alike? The losses of both, step by step, from one seed; equal, or where they part.

    python benchmarks/compare_losses.py A B [KEY=VALUE ...] [--spec FILE ...] [--hand-over] [--json FILE]

A and B are commits (`.`: the files as they are here; without both, HEAD is compared with these). Each trains
every row of the specs (Tables 2 and 3) on the same phantoms, in fp32 on one thread, in a process of its own
that has that commit's package: `--epochs` of `--iterations` steps, MFSB and other late blocks from the second
epoch on. Compared to the last bit are the loss of every step and every term of every epoch. Specs, their base
and the overrides are this checkout's. With `--hand-over` both begin with A's weights: for commits that change
the initialisation on purpose. Ends with 0 if all is equal and with 1 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import machine

ROOT = Path(__file__).resolve().parents[1]
SPECS = tuple(ROOT / "ablations" / f"{table}.yaml" for table in ("table2", "table3"))
#: Options that hold a block back for some epochs, whichever method has them.
LATE = ("synthesis_start", "fusion_start")

#: {row: {"steps": [loss, …], "epochs": [{term: value}, …]}}
Losses = dict[str, dict[str, list[Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        losses = [_train(side, name, options, scratch) for side, name in ((options.a, "a"), (options.b, "b"))]
    lines = [f"{row}: {difference(losses[0].get(row), losses[1].get(row))}" for row in losses[0] | losses[1]]
    print("\n".join(lines))
    machine.save(options.json, {"a": losses[0], "b": losses[1]})
    equal = all(line.endswith(": equal") for line in lines)
    print(f"{options.a} and {options.b}: " + ("equal" if equal else "different"))
    return 0 if equal else 1


def difference(one: dict[str, list[Any]] | None, other: dict[str, list[Any]] | None) -> str:
    """ "equal", or the first step, else the first epoch, in which two trainings of a row differ."""
    if one is None or other is None:
        return f"only {'B' if one is None else 'A'} has this row"
    for number, (left, right) in enumerate(zip(one["steps"], other["steps"], strict=False), 1):
        if left != right:
            return f"step {number} differs: {left!r} and {right!r} ({right - left:+.1e})"
    for number, (left, right) in enumerate(zip(one["epochs"], other["epochs"], strict=False), 1):
        for term in sorted(left.keys() | right.keys()):
            if left.get(term) != right.get(term):
                return f"epoch {number}, {term} differs: {left.get(term)!r} and {right.get(term)!r}"
    same = len(one["steps"]) == len(other["steps"]) and len(one["epochs"]) == len(other["epochs"])
    return "equal" if same else f"{len(one['steps'])} steps and {len(other['steps'])}"


def _train(commit: str, name: str, options: argparse.Namespace, scratch: Path) -> Losses:
    """In a fresh process that imports the commit's package."""
    weights = ["--weights", str(scratch / "weights")] if options.hand_over else []
    own = ["--epochs", str(options.epochs), "--iterations", str(options.iterations), *weights]
    base = ["--experiment", str(options.experiment)] if options.experiment else []
    with _package(commit, scratch / name) as platform:
        environment = os.environ | {"PYTHONPATH": str(platform), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--measure", str(scratch), *own, *base]
        command += ["--spec", *map(str, options.spec), "--", commit, commit, *options.overrides]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{commit}: its training failed with code {done.returncode}; its words stand above")
    losses: Losses = json.loads(done.stdout.splitlines()[-1])
    return losses


@contextlib.contextmanager
def _package(commit: str, folder: Path) -> Iterator[Path]:
    """The source root of a commit; of `.` that of this checkout."""
    if commit == ".":
        yield ROOT / "platform"
        return
    git = ("git", "-C", str(ROOT))
    subprocess.run((*git, "worktree", "add", "--quiet", "--detach", str(folder), commit), check=True)
    try:
        yield folder / "platform"
    finally:
        subprocess.run((*git, "worktree", "remove", "--force", str(folder)), check=True)


def measure(options: argparse.Namespace) -> Losses:
    """In the fresh process: every row of the specs, trained for some steps.

    Calls only what any commit has: what is private or may move stands at one place here.
    """
    import torch

    from acdis import config
    from acdis.ablation import spec
    from acdis.data.inputs import open_inputs
    from acdis.training import loop
    from acdis.training.events import Step
    from acdis.training.group import Group

    torch.set_num_threads(1)
    short = [f"training.epochs={options.epochs}", f"training.iterations={options.iterations}"]
    overrides = [*short, "training.precision=fp32", *options.overrides]
    losses: Losses = {}
    for path in options.spec:
        table = spec.load(path, options.experiment, overrides)
        draft = config.draft(table.base, overrides)
        for row in table.rows:
            experiment = _earlier(spec.experiment_of(draft, row))
            opened = open_inputs(experiment.data, options.measure / "home", 1, lambda *_: None)
            key = f"{path.stem}/{row.id}"
            if options.weights:
                _hand_over(options.weights / f"{key}.pt".replace("/", "-"))
            steps: list[float] = []

            def note(event: object, steps: list[float] = steps) -> None:
                if isinstance(event, Step):
                    steps.append(event.loss)

            folder = Path(tempfile.mkdtemp(dir=options.measure))
            run = loop.train(experiment, loop.Cases(opened.train), folder, Group(), note)
            losses[key] = {"steps": steps, "epochs": [entry["terms"] for entry in run.history]}
    return losses


def _earlier(experiment: Any) -> Any:
    """With blocks that wait at work from the second epoch on."""
    method = experiment.method
    sooner = {key: 1 for key in LATE if key in method.options}
    changed = method.model_copy(update={"options": method.options | sooner})
    return experiment.model_copy(update={"method": changed})


def _hand_over(file: Path) -> None:
    """New methods begin with the weights in `file`; the first one writes them."""
    import torch

    from acdis.training import run

    begin = run.new_method.__globals__.setdefault("_untouched_new_method", run.new_method)

    def new_method(experiment: Any) -> Any:
        method = begin(experiment)
        if file.exists():
            method.load_state_dict(torch.load(file, weights_only=True))
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(method.state_dict(), file)
        return method

    run.new_method = new_method


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("a", metavar="A", nargs="?", default="HEAD", help="a commit; . for the files here")
    parser.add_argument("b", metavar="B", nargs="?", default=".", help="another")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="on top of the specs' experiment")
    parser.add_argument("--spec", type=Path, nargs="+", default=list(SPECS), help="spec files")
    parser.add_argument("--experiment", type=Path, help="takes the place of the specs' base")
    parser.add_argument("--epochs", type=int, default=2, help="of each training")
    parser.add_argument("--iterations", type=int, default=3, help="steps an epoch")
    parser.add_argument("--hand-over", action="store_true", help="B begins with A's weights")
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
