"""Processes that do tasks for this one, which hands them over a pipe, one at a time.

Not forked, which a process that has threads or has used CUDA must not be, and not `multiprocessing`'s own:
those run the caller's script once more. A child ends with its pipe, for who started it may be killed at any
moment.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

from acdis.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


class TaskError(RuntimeError):
    """A bug that a child ran into at a task; its traceback is the message."""


class LostError(RuntimeError):
    """A child is gone.

    Attributes:
        how: the signal's name, or `exit code 1`.
        killed: by SIGKILL, as the system does when memory runs out.
    """

    def __init__(self, code: int) -> None:
        self.how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.killed = code == -signal.SIGKILL
        super().__init__(self.how)


class Child(Generic[T, R]):
    """A process, and the pipe to it.

    Args:
        start: called once in the process, gives what does a task. It is pickled, as are tasks and answers.
        environment: what stands there beside this process's variables, and over them.
        apart: in a session of its own, which no signal of the terminal reaches. Else it stays in this one's
            and has no ear for Ctrl-C, which ends it here.
        options: of Python.
    """

    def __init__(
        self,
        start: Callable[[], Callable[[T], R]],
        environment: Mapping[str, str],
        apart: bool,
        options: Sequence[str] = (),
    ) -> None:
        here = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]  # wherever it was found
        warnings = [f"-W{rule}" for rule in sys.warnoptions]
        self.pipe, theirs = multiprocessing.Pipe()
        with theirs, nullcontext() if apart else _deaf_to_ctrl_c():
            program = f"from acdis import child; child.serve({theirs.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-P", *warnings, *options, "-c", program],
                env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(filter(None, here))},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=apart,
            )
        self.give(start)

    def give(self, task: Any) -> None:
        """Hand over a task; it waits as long as the pipe has no room for it."""
        with suppress(ConnectionError):  # the child is gone, and `answer` says so
            self.pipe.send(task)

    def answer(self) -> R | UserError | TaskError:
        """What came of the oldest task: as it was returned, or raised.

        Raises:
            LostError: the child is gone.
        """
        try:
            answer: R | UserError | TaskError = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise LostError(self._process.wait()) from None
        return answer

    def end(self, by: signal.Signals) -> None:
        """At once, whatever it is at."""
        self._process.send_signal(by)
        self._process.wait()

    def close(self) -> None:
        """The connection, when no thread uses it any more; the child ends with it."""
        self.pipe.close()
        self._process.wait()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """A process that starts meanwhile ignores SIGINT. Only the main thread can have it so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)


def serve(descriptor: int) -> None:
    """In the child: do tasks until nobody gives one, also because the other side is dead."""
    pipe = Connection(descriptor)
    given = _given(pipe)
    start = next(given, None)
    if start is None:
        return
    work = start()
    for task in given:
        try:
            answer = work(task)
        except UserError as error:
            answer = UserError(str(error))  # others of this kind may not be pickled
        except Exception:
            answer = TaskError(traceback.format_exc())
        try:
            pipe.send(answer)
        except ConnectionError:
            return


def _given(pipe: Connection) -> Iterator[Any]:
    with suppress(EOFError, ConnectionError):
        while True:
            yield pipe.recv()
