"""A job of this checkout on our own head: its lines as they come, its exit code, Ctrl-C that stops it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

from acdis import home
from acdis.cluster import upload
from acdis.cluster.head import environment, start
from acdis.cluster.session import interrupted_by_sigterm
from acdis.errors import UserError
from acdis.files import write_text
from acdis.tracking.lineage import COMMIT, COMMIT_VARIABLE, DIRTY, DIRTY_VARIABLE, git_state
from acdis.tracking.patch import PATCH_VARIABLE, changes

#: Seconds that a job has to end by itself, its MLflow run closed, after it is told to stop.
STOP_SECONDS = 20
#: How lines begin, after their colour, that Ray's own process on a node puts into a job's log.
RAYLET = "(raylet)"
#: Between two looks at a job whose log is read to its end, or cannot be read just now.
PAUSE = 0.5


def submit(base: Path, command: list[str]) -> int:
    """Run a command in a copy of this checkout as a job of this home's head; returns its exit code.

    The copy has no `.git`, and `runs/` is not in it: the commit and the place for outputs travel as
    environment variables.

    Raises:
        UserError: not in a checkout, or Ray does not come up.
    """
    root = home.checkout()
    if root is None:
        raise UserError("submit: needs a checkout with experiments/main.py; run it from one")
    print("Ray: looking for a head of ours on this machine, or starting one (about 10 s)", flush=True)
    state = start(base)
    job = f"acdis-{secrets.token_hex(6)}"
    print(f"job {job}: {shlex.join(command)}", flush=True)
    left_out = upload.left_out(root)
    for line in upload.described(root, left_out):
        print(line, flush=True)
    patch = base / "head" / f"{job}.patch"
    settings = {
        "working_dir": str(root),
        "excludes": [upload.pattern(path.relative_to(root)) for path in left_out],
        "env_vars": _variables(root, base, patch),
    }
    try:
        with interrupted_by_sigterm():
            return _run(state, job, command, settings, patch.parent)
    finally:  # the job has read it
        patch.unlink(missing_ok=True)


def client_of(state: dict[str, Any]) -> Any:
    """Ray's `JobSubmissionClient` of a head."""
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ.update(environment(state))  # read when ray is imported
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what they ignore and upload, and when they hang up
    return JobSubmissionClient(state["address"])


def _variables(root: Path, base: Path, patch: Path) -> dict[str, str]:
    git = git_state(root)
    write_text(patch, changes(root))
    return {
        "ACDIS_HOME": str(base),
        PATCH_VARIABLE: str(patch),
        COMMIT_VARIABLE: git[COMMIT],
        DIRTY_VARIABLE: git[DIRTY],
        "PYTHONUNBUFFERED": "1",
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
    }


def _run(state: dict[str, Any], job: str, command: list[str], settings: dict[str, Any], patches: Path) -> int:
    """Submit, and show the job's lines until it ends. Ctrl-C and SIGTERM stop exactly this job."""
    client = None
    try:
        client = client_of(state)
        client.submit_job(entrypoint=shlex.join(command), submission_id=job, runtime_env=settings)
        _sweep(client, patches)
        _follow(client, job)
        return _judge(client.get_job_info(job))
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("\nstopping the job …", file=sys.stderr, flush=True)
        if client:
            _stop(client, job)
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        return 1
    except (
        RuntimeError,
        OSError,
        ValueError,
    ) as error:  # no connection, too large an upload, a head that ended
        print(f"failed: Ray did not run the job to its end: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _sweep(client: Any, patches: Path) -> None:
    """Remove what commands that were killed have left of jobs that are over."""
    with contextlib.suppress(RuntimeError, OSError):  # a head that does not say keeps them until it ends
        over = {known.submission_id for known in client.list_jobs() if known.status.is_terminal()}
        for patch in patches.glob("*.patch"):
            if patch.stem in over:
                patch.unlink(missing_ok=True)


def _follow(client: Any, job: str) -> None:
    """Show the log until the job is over. A broken connection is made anew, and the log read again."""
    from aiohttp import ClientError

    voice = Voice(job)
    while not client.get_job_status(job).is_terminal():
        with contextlib.suppress(RuntimeError, OSError, ClientError):
            asyncio.run(_tail(client, job, voice))
        time.sleep(PAUSE)
    voice.read(client.get_job_logs(job), last=True)  # Ray stops passing it on when the job ends


async def _tail(client: Any, job: str, voice: Voice) -> None:
    log = ""
    async for more in client.tail_job_logs(job):
        log += more
        voice.read(log)


class Voice:
    """Prints what a job says, each line once, without Ray's own before and among them."""

    def __init__(self, job: str) -> None:
        self.announced = f"Running entrypoint for job {job}: "
        self.shown = 0

    def read(self, log: str, last: bool = False) -> None:
        """Print what is new and whole.

        Args:
            log: from its beginning, as far as it is known.
            last: there will be no more of it, so that its last line is whole.
        """
        said = log.partition(self.announced)[2].partition("\n")[2]
        whole = len(said) if last else said.rfind("\n") + 1
        for line in said[self.shown : whole].splitlines(keepends=True):
            if RAYLET not in line:  # how many processes a node has is nothing that a user could change
                print(line, end="", flush=True)
        self.shown = max(self.shown, whole)


def _judge(info: Any) -> int:
    """The job's own exit code. Where there is none, what Ray says tells why."""
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    if info.status == "STOPPED":
        print("the job was stopped; the same command goes on where it stopped", file=sys.stderr)
        return 1
    print(f"failed: Ray did not run the job: {info.message}", file=sys.stderr)
    return 1


def _stop(client: Any, job: str) -> None:
    """End one job and wait until it is gone; it may not have been submitted yet."""
    deadline = time.monotonic() + STOP_SECONDS + 10
    with contextlib.suppress(RuntimeError, OSError):
        client.stop_job(job)
        while not client.get_job_status(job).is_terminal() and time.monotonic() < deadline:
            time.sleep(PAUSE)
