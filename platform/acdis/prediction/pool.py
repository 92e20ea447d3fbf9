"""Worker processes of this machine: tasks side by side, and who loses one process loses one task."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import wait
from typing import TypeVar

from acdis.child import Child, LostError, TaskError
from acdis.errors import UserError
from acdis.machine import WORKER_ENVIRONMENT

T = TypeVar("T")
R = TypeVar("R")


def each(
    tasks: Sequence[T], start: Callable[[int], Callable[[T], R]], workers: int, threads: int
) -> Iterator[tuple[T, R | UserError | TaskError]]:
    """Do every task in one of several new processes; those that end first are given first.

    A process that dies, of hunger for memory say, fails the task that it was at, and another takes its
    place. Ends early, by Ctrl-C too, with all processes ended.

    Args:
        tasks: they are pickled, as are `start` and what comes back.
        start: called once in every process with its number from 0, gives what does a task.
        threads: of torch, in each process.
    """
    environment = {name: value for name, value in WORKER_ENVIRONMENT.items() if name not in os.environ}
    waiting = list(tasks)[::-1]
    busy: dict[int, tuple[Child[T, R], T]] = {}

    def begin(number: int) -> Child[T, R]:
        return Child(partial(_with_threads, start, number, threads), environment, apart=False)

    def give(number: int, worker: Child[T, R]) -> None:
        busy[number] = worker, waiting.pop()
        worker.give(busy[number][1])

    try:
        for number in range(min(workers, len(waiting))):
            give(number, begin(number))
        while busy:
            ready = wait([worker.pipe for worker, _ in busy.values()])
            for number, (worker, task) in list(busy.items()):
                if worker.pipe not in ready:
                    continue
                answer: R | UserError | TaskError
                try:
                    answer = worker.answer()
                except LostError as lost:
                    hint = ": memory may have run out; give fewer --workers" if lost.killed else ""
                    answer = UserError(f"its process ended with {lost.how}{hint}")
                    worker.close()
                    if waiting:
                        worker = begin(number)
                del busy[number]
                if waiting:
                    give(number, worker)
                else:
                    worker.close()
                yield task, answer
    finally:
        for worker, _ in busy.values():
            worker.end(signal.SIGTERM)


def _with_threads(start: Callable[[int], Callable[[T], R]], number: int, threads: int) -> Callable[[T], R]:
    import torch

    torch.set_num_threads(threads)
    return start(number)
