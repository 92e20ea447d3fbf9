"""Worker processes: side by side, a loss is the loss of one task, and Ctrl-C leaves none."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pool_tasks
import psutil
import pytest

from acdis.child import TaskError
from acdis.errors import UserError
from acdis.machine import WORKER_ENVIRONMENT
from acdis.prediction import pool


@pytest.mark.slow
def test_every_task_is_answered_whatever_becomes_of_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(pool_tasks.__file__).parent))
    tasks = ["meet a", "meet b", "refuse", "die", "fail", "last", "really last"]
    before = dict(os.environ)
    found = dict(pool.each(tasks, partial(pool_tasks.start, tmp_path), 2, 1))
    assert os.environ == before
    assert set(WORKER_ENVIRONMENT) - set(before)  # that there was something to put back
    assert found.keys() == set(tasks)
    assert {found["meet a"][0], found["meet b"][0]} == {0, 1}
    for last in ("last", "really last"):
        assert found[last][1] == last
    assert type(found["refuse"]) is UserError
    assert str(found["refuse"]) == "no such file"
    assert isinstance(found["fail"], TaskError)
    assert str(found["fail"]).strip().endswith("ZeroDivisionError: a bug")
    assert (
        str(found["die"]) == "its process ended with SIGKILL: memory may have run out; give fewer --workers"
    )
    assert not [own for own in psutil.Process().children() if "acdis import child" in " ".join(own.cmdline())]


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_no_traceback_of_workers(tmp_path, checkout):
    program = (
        "import functools, pool_tasks; from acdis.prediction import pool\n"
        f"start = functools.partial(pool_tasks.start, {str(tmp_path)!r})\n"
        "try:\n"
        "    for task, answer in pool.each(['wait a', 'wait b', 'c'], start, 2, 1): print(task)\n"
        "except KeyboardInterrupt: print('stopped')\n"
    )
    path = os.pathsep.join([str(checkout / "platform"), str(Path(pool_tasks.__file__).parent)])
    done = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    end = time.monotonic() + 300
    while len(workers := [int(path.name) for path in tmp_path.iterdir()]) < 2:
        assert done.poll() is None, done.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(done.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    out, err = done.communicate(timeout=300)
    assert (done.returncode, out, err) == (0, "stopped\n", "")
    assert not any(psutil.pid_exists(worker) for worker in workers)
