"""Many cells on Ray Tune: each trial drives the Ray Train run of one cell after another.

What a trial says to Tune is only that it is over; what became of a cell stands in its folder. So nothing of
Tune's own state is needed to go on: the cells that are missing are given to a new Tuner.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from acdis.files import is_held, locked, write_text
from acdis.planning.resources import DRIVER

#: A trial waits for its workers, on the head. It asks for no CPU, which they need: two trials that held a
#: hundredth of a CPU each would keep the second of two one-CPU workers from ever starting.
ON_HEAD = {"node:__internal_head__": 0.001}
#: How often a trial whose process died is started again; its cell goes on from its checkpoint.
MAX_FAILURES = 3

Drive = Callable[[Any], None]


def run_all(drive: Drive, jobs: Sequence[Any], at_once: int, base: Path, watch: Callable[[], None]) -> None:
    """Call `drive` on every job, `at_once` at a time, each in a process of a Ray Tune trial.

    Args:
        drive: a function that can be imported; it must not raise for what goes wrong with one cell.
        jobs: can be pickled.
        base: ACDIS_HOME; Tune keeps its own state below it while it runs.
        watch: called every second.

    Raises:
        RuntimeError: Tune itself failed; the message says where its report is.
    """
    name = f"ablation-{socket.gethostname()}-{time.time_ns():x}"
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            results = _tuner(drive, jobs, at_once, base / "ray", name).fit()
            failures.extend(error for error in results.errors if error is not None)
        except BaseException as error:
            failures.append(error)

    # In a thread, as in `train`: in the main thread Tune takes Ctrl-C for itself.
    tuning = threading.Thread(target=fit, name="ray-tune", daemon=True)
    sweep(base / "ray")
    with locked(base / "ray" / f"{name}.lock", remove=True):
        tuning.start()
        try:
            while tuning.is_alive():
                tuning.join(1.0)
                watch()
        finally:
            shutil.rmtree(base / "ray" / name, ignore_errors=True)
    if failures:
        report = base / "ablation-error.txt"
        write_text(report, "\n\n".join(str(failure) for failure in failures))
        raise RuntimeError(f"Ray Tune failed with {len(failures)} trials; its report is {report}")


def sweep(folder: Path) -> None:
    """Remove what commands that were killed on this host have left of Tune's state."""
    for lock in folder.glob(f"ablation-{socket.gethostname()}-*.lock"):
        if not is_held(lock):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)


def place_of_driver() -> dict[str, float]:
    """What a trial's driver takes: one of the head's `driver` where it has any. Ray is connected."""
    import ray

    return {DRIVER: 1.0} if ray.cluster_resources().get(DRIVER) else ON_HEAD


def _tuner(drive: Drive, jobs: Sequence[Any], at_once: int, storage: Path, name: str) -> Any:
    # Read when Tune is imported. One line per trial and result would drown what `watch` shows.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # with it `verbose=0` is still a box of lines
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    from ray import tune

    trainable = tune.with_resources(
        tune.with_parameters(_trial, drive=drive, jobs=list(jobs)),
        tune.PlacementGroupFactory([place_of_driver()]),
    )
    return tune.Tuner(
        trainable,
        param_space={"job": tune.grid_search(list(range(len(jobs))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=at_once, reuse_actors=True),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(storage),
            verbose=0,
            callbacks=[_silence()],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )


def _silence() -> Any:
    """Takes the place of the callback that announces every trial, whatever `verbose` says."""
    from ray.tune.progress_reporter import TrialProgressCallback

    class Silence(TrialProgressCallback):
        def log_result(self, *_: Any, **__: Any) -> None:
            """Says nothing."""

        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            """Nor that a trial is over: `watch` does."""

    return Silence()


def _trial(config: dict[str, Any], drive: Drive, jobs: list[Any]) -> None:
    drive(jobs[config["job"]])
