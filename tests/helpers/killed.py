"""Runs commands one after the other, each in a process of its own that kills itself at a chosen write.

Takes lines of JSON, [folder, n, words], and answers each with the exit code. The process of a command gets
SIGKILL when it is about to put its n-th file or folder on the disk (`os.fsync`); with n = 0 it runs to its
end. It runs in the folder, its ACDIS_HOME is `home` there; what it said and how many writes it has begun
stand in `said.txt` and `writes.txt`.

Everything is imported once, and forked: what a command to its end has imported of others' modules, the next
ones find imported. Ray is left out: trainings run in the process of their command, so
that their writes are among those that are counted.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  imported before the fork: it takes seconds
import torch

from acdis import cli
from acdis.cluster import session, train, worker
from acdis.planning.placement import WorkerShare
from acdis.training.group import Group
from acdis.verbs import ablate, evaluate, search  # noqa: F401
from acdis.workflow import train_missing

ROOM = WorkerShare(1, 0)


def without_ray() -> None:
    """One training after the other, here."""
    stand_in = ModuleType("ray.train")
    stand_in.report = lambda values: None  # type: ignore[attr-defined]
    sys.modules["ray"], sys.modules["ray.train"] = ModuleType("ray"), stand_in
    for name in ("ray", "ray.train"):  # `importlib.util.find_spec` looks there whether it is installed
        sys.modules[name].__spec__ = ModuleSpec(name, None)
    sys.modules["ray"].train = stand_in  # type: ignore[attr-defined]
    replace: Any = setattr
    replace(session, "connected", lambda nested=False: contextlib.nullcontext())
    replace(session, "nodes", lambda *_: [{"CPU": 1.0}])
    replace(session, "room", lambda scaling: ROOM)
    replace(worker, "_group", lambda threads: Group())
    replace(train, "_trainer", lambda settings, *_: settings)
    replace(train, "_fit", lambda settings, job, show: worker.run(settings))
    replace(search, "run_as_asked", one_by_one)
    replace(train_missing, "run_all", one_after_the_other)


def one_by_one(run: Any, ask: Any, over: Any, at_once: int, watch: Any) -> None:
    """As `cluster.search.run_as_asked`."""
    while (order := ask()) is not None:
        search.drive(order)
        watch()
        over(order, "")


def one_after_the_other(run: Any, orders: Any, at_once: int, base: Path, watch: Any) -> None:
    """As `cluster.tune.run_all`."""
    for order in orders:
        train_missing.train_one(order)
        watch()


def killed_at(number: int, folder: Path) -> None:
    """From now on."""
    begun, real = 0, os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal begun
        begun += 1
        if begun == number:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)
        if not number:
            (folder / "writes.txt").write_text(str(begun))

    os.fsync = fsync


def run(folder: Path, number: int, words: list[str]) -> None:
    """The command in this process, which ends with it."""
    with (folder / "said.txt").open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.chdir(folder)
    os.environ["ACDIS_HOME"] = str(folder / "home")
    sys.argv = ["acdis", *words]
    without_ray()
    killed_at(number, folder)
    try:
        cli.main()
    except SystemExit as end:
        (folder / "imported.txt").write_text("\n".join(sys.modules))
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)


def import_too(names: list[str]) -> None:
    """In this process, for those to come. Ours are left out: they would import Ray."""
    for name in names:
        if name.partition(".")[0] not in ("acdis", "ray", "__main__", "__mp_main__"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def main() -> None:
    """See the module's docstring."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        folder, number, words = json.loads(line)
        child = os.fork()
        if not child:
            run(Path(folder), number, words)
        _, status = os.waitpid(child, 0)
        if not number and (Path(folder) / "imported.txt").exists():
            import_too((Path(folder) / "imported.txt").read_text().split())
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
