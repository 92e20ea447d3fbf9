"""`ray job submit` of this checkout to our own head: the job's lines, its exit code, Ctrl-C that stops it."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from acdis import home
from acdis.cluster.head import environment, ray_command, start
from acdis.errors import UserError
from acdis.files import write_text
from acdis.tracking.lineage import COMMIT, COMMIT_VARIABLE, DIRTY, DIRTY_VARIABLE, git_state
from acdis.tracking.patch import PATCH_VARIABLE, changes

#: Seconds that a job has to end by itself, its MLflow run closed, after it is told to stop.
STOP_SECONDS = 20
TERMINAL = ("STOPPED", "SUCCEEDED", "FAILED")
#: How Ray's own lines look where they do not go to a terminal.
_RAY = re.compile(r"\d{4}-\d\d-\d\d \S+\s+[A-Z]+ (?:cli|sdk|job_manager)\.py:\d+ -- (?P<message>.*)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BEGIN, _ENTRY = "Tailing logs until the job exits", "Running entrypoint for job acdis-"
_END = re.compile(r"Job 'acdis-\w+' (succeeded|failed|was stopped)")


def submit(base: Path, command: list[str]) -> int:
    """`ray job submit` of this checkout to this home's head; returns the job's exit code.

    The upload has no `.git`, and `runs/` is not in it: the commit and the place for outputs travel as
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
    line = _command_line(state, root, base, job, command)
    print("+ ray " + shlex.join(line[line.index("job") :]), flush=True)
    return _run(line, state, job)


def _command_line(state: dict[str, Any], root: Path, base: Path, job: str, command: list[str]) -> list[str]:
    git = git_state(root)
    patch = base / "head" / f"{job}.patch"
    write_text(patch, changes(root))
    variables = {
        "ACDIS_HOME": str(base),
        PATCH_VARIABLE: str(patch),
        COMMIT_VARIABLE: git[COMMIT],
        DIRTY_VARIABLE: git[DIRTY],
        "PYTHONUNBUFFERED": "1",
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
    }
    return [
        *ray_command("job", "submit"),
        f"--address={state['address']}",
        f"--submission-id={job}",
        f"--working-dir={root}",
        f"--runtime-env-json={json.dumps({'env_vars': variables})}",
        "--",
        *command,
    ]


def _run(line: list[str], state: dict[str, Any], job: str) -> int:
    """Show the job's lines until it ends. Ctrl-C and SIGTERM stop exactly this job."""
    before: list[str] = []
    shown: list[str] = []
    signal.signal(signal.SIGTERM, _interrupt)
    process = subprocess.Popen(
        line,
        env=environment(state) | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches this process, which then ends the job in order
    )
    try:
        for said in job_lines(process.stdout or (), before):
            print(said, end="", flush=True)
            shown.append(said)
        code = process.wait()
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("\nstopping the job …", file=sys.stderr, flush=True)
        process.terminate()  # first, lest it submit the job after all
        process.wait()
        _stop(state, job)
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        return 1
    finally:
        process.terminate()
    print(rest("".join(shown), str(_info(state, f"{job}/logs").get("logs", ""))), end="", flush=True)
    return _judge(code, _info(state, job), before)


def rest(shown: str, everything: str) -> str:
    """What Ray did not pass on of a job's log: it stops reading when the job ends."""
    said = shown.rstrip().split("\n") if shown.strip() else []
    lines = [line for line in everything.split("\n") if _of_ray(line) is None]
    return "\n".join(lines[len(said) :]) if lines[: len(said)] == said else ""


def job_lines(lines: Iterable[str], before: list[str]) -> Iterator[str]:
    """What the job says, without Ray's own lines around it; those that come before are added to `before`."""
    inside = ended = False
    for line in lines:
        message = _of_ray(line)
        if not inside:
            before.append(line)
            inside = message is not None and message.startswith(_BEGIN)
        elif message is not None:
            # What follows are the job's last lines again: read, lest Ray's process wait for a reader.
            ended = ended or _END.match(message) is not None
        elif not ended:
            yield line


def _of_ray(line: str) -> str | None:
    """What Ray says in a line of its own; None for a line of the job's."""
    text = _COLOUR.sub("", line).strip()
    found = _RAY.fullmatch(text)
    if found:
        return found["message"]
    return text if text.startswith(_ENTRY) else None


def _judge(code: int, info: dict[str, Any], before: list[str]) -> int:
    """The job's own exit code. Where there is no job's word, what Ray said on submission tells why."""
    exit_code = info.get("driver_exit_code")
    if exit_code is not None:
        return int(exit_code)
    if info.get("status") == "STOPPED":
        print("the job was stopped; the same command goes on where it stopped", file=sys.stderr)
        return 1
    sys.stderr.write("".join(before))
    print(f"failed: Ray did not run the job: {info.get('message') or 'see above'}", file=sys.stderr)
    return code or 1


def _stop(state: dict[str, Any], job: str) -> None:
    """End one job and wait until it is gone."""
    with contextlib.suppress(OSError, ValueError):
        _ask(state, f"/api/jobs/{job}/stop", "POST")
    deadline = time.monotonic() + STOP_SECONDS + 10
    while time.monotonic() < deadline:
        if _info(state, job).get("status", "STOPPED") in TERMINAL:
            return
        time.sleep(0.5)


def _info(state: dict[str, Any], job: str) -> dict[str, Any]:
    """What the Jobs API knows of a job; empty if it knows nothing."""
    try:
        return _ask(state, f"/api/jobs/{job}", "GET")
    except (OSError, ValueError):
        return {}


def _ask(state: dict[str, Any], path: str, method: str) -> dict[str, Any]:
    token = Path(state["token"]).read_text().strip()
    request = urllib.request.Request(
        state["address"] + path, method=method, headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=15) as answer:
        content: dict[str, Any] = json.load(answer)
    return content


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
