"""Tasks for worker processes, which import them by name."""

import os
import signal
import time
from pathlib import Path

from acdis.errors import UserError


class OddError(UserError):
    """Of a class whose making takes two words, as pickle does not know."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def start(folder, number):
    """Does what a task's first word says; `meet` waits until another worker is at its task as well."""

    def work(task):
        what = task.split()[0]
        if what == "meet":
            (Path(folder) / task).touch()
            end = time.monotonic() + 300
            while len(list(Path(folder).glob("meet *"))) < 2:
                assert time.monotonic() < end
                time.sleep(0.05)
        elif what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "wait":
            (Path(folder) / f"{os.getpid()}").touch()
            while True:
                signal.pause()
        elif what == "refuse":
            raise OddError("no", "such file")
        elif what == "fail":
            raise ZeroDivisionError("a bug")
        return number, task, os.getpid()

    return work
