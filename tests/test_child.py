"""Processes that do tasks: where they stand, what they answer, and what is known of one that is gone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from acdis.child import Child, LostError, TaskError

#: What its process does with a task: Python works it out.
EVALUATE = partial(partial, eval)


@contextmanager
def begun(apart: bool) -> Iterator[Child[str, object]]:
    child: Child[str, object] = Child(EVALUATE, {"OMP_NUM_THREADS": "3"}, apart)
    try:
        yield child
    finally:
        child.end(signal.SIGKILL)
        child.close()


def ask(child: Child[str, object], task: str) -> object:
    child.give(task)
    return child.answer()


@pytest.mark.parametrize("apart", [False, True])
def test_ctrl_c_is_not_for_it(apart: bool) -> None:
    """In a session of its own it does not come there; in this one's it is ignored. Here all is as before."""
    heard = signal.getsignal(signal.SIGINT)
    with begun(apart) as child:
        assert signal.getsignal(signal.SIGINT) is heard
        here, group = os.getsid(0), os.getpgrp()
        session, its_group = ask(child, "(__import__('os').getsid(0), __import__('os').getpgrp())")
        assert ((session, its_group) == (here, group)) is not apart
        ignored = ask(child, "__import__('signal').getsignal(2) is __import__('signal').SIG_IGN")
        assert ignored is not apart
        assert ask(child, "__import__('os').environ['OMP_NUM_THREADS']") == "3"


def test_one_that_is_started_beside_the_main_thread() -> None:
    answers: list[object] = []

    def work() -> None:
        with begun(False) as child:
            answers.append(ask(child, "6 * 7"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [42]


def test_it_goes_on_after_a_bug_and_ends_with_the_pipe() -> None:
    with begun(False) as child:
        failed = ask(child, "1 / 0")
        assert isinstance(failed, TaskError)
        assert str(failed).strip().endswith("ZeroDivisionError: division by zero")
        number = ask(child, "__import__('os').getpid()")
        child.close()
        assert isinstance(number, int)
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


@pytest.mark.parametrize(
    ("task", "how", "killed"),
    [
        ("__import__('os')._exit(3)", "exit code 3", False),
        ("__import__('os').kill(__import__('os').getpid(), 15)", "SIGTERM", False),
        ("__import__('os').kill(__import__('os').getpid(), 9)", "SIGKILL", True),
    ],
)
def test_how_one_was_lost(task: str, how: str, killed: bool) -> None:
    with begun(True) as child:
        with pytest.raises(LostError) as lost:
            ask(child, task)
        assert (lost.value.how, lost.value.killed) == (how, killed)
        child.give("1")  # nobody is there to take it, and that is no error here
