"""Processes that compute metrics while the device predicts the next case.

Processes and not threads: a thread that computes holds Python's lock, and the one that feeds a GPU would wait
for it.
"""

from __future__ import annotations

import queue
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

from acdis.child import Child, LostError
from acdis.config import Evaluation
from acdis.evaluation.map_scores import LabelMap, MapScores, Scorer
from acdis.vocabulary import SUBSETS

#: More would wait for the device: HD95 of a case takes some four times as long as its prediction on a GPU.
MOST = 8
#: One thread each, no GPU.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
_OPTIONS = ("-W", "ignore::FutureWarning")  # MONAI's, of what it calls itself


class MetricsLost(RuntimeError):  # noqa: N818  it says what happened
    """A process that computed metrics is gone; the message says of what."""


class MetricsFailed(RuntimeError):  # noqa: N818
    """Computing metrics in a process has raised; the message says of what, and has the traceback."""


def processes_for(
    choice: int | None, device: torch.device, evaluation: Evaluation, cases: int, threads: int
) -> int:
    """How many processes compute metrics beside the device; 0: this one does, between two predictions.

    Args:
        choice: `scaling.metric_processes`; none: on a GPU one for each of `threads` but one, at most 8. A CPU
            that predicts has none to spare.
        cases: that are to be scored here: of one alone there is no next.
    """
    if not (evaluation.hd95 or evaluation.metrics) or cases < 2:
        return 0
    if choice is not None:
        return choice
    return min(MOST, max(1, threads - 1)) if device.type == "cuda" else 0


class MetricPool:
    """Scores label maps in processes of its own, or without any at once in this one.

    Beside the maps at work those of one case wait, at most: `submit` blocks until there is room. When the
    block ends, so do the processes, whatever they are at.
    """

    def __init__(self, processes: int, waiting: int = len(SUBSETS)) -> None:
        self._scorer = Scorer()
        self._room = threading.BoundedSemaphore(processes + waiting)
        self._free: queue.SimpleQueue[Child[LabelMap, MapScores]] = queue.SimpleQueue()
        self._processes: list[Child[LabelMap, MapScores]] = []
        self._threads: ThreadPoolExecutor | None = None
        self._count = processes

    def __enter__(self) -> MetricPool:
        try:
            for _ in range(self._count):
                self._processes.append(Child(Scorer, _ENVIRONMENT, apart=True, options=_OPTIONS))
                self._free.put(self._processes[-1])
        except BaseException:
            self._end()
            raise
        if self._processes:  # a thread for each: it waits for what its process says
            self._threads = ThreadPoolExecutor(self._count, "metrics")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.end(signal.SIGKILL)  # it holds nothing that would be lost
        if self._threads:
            self._threads.shutdown(cancel_futures=True)  # what a thread waits for has ended
        for process in self._processes:
            process.close()

    def submit(self, given: LabelMap) -> Future[MapScores]:
        """The scores, when they are there; `result` raises MetricsLost or MetricsFailed.

        Raises:
            Exception: without processes, what computing them raises.
        """
        if self._threads is None:
            done: Future[MapScores] = Future()
            done.set_result(self._scorer(given))
            return done
        self._room.acquire()
        future = self._threads.submit(self._ask, given)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _ask(self, given: LabelMap) -> MapScores:
        process = self._free.get()
        try:
            process.give(given)
            answer = process.answer()
        except LostError as lost:
            why = "killed; was there memory enough?" if lost.killed else lost.how
            raise MetricsLost(
                f"{given}: the process that computed its metrics is gone ({why}); with "
                "scaling.metric_processes=0 they are computed between the predictions"
            ) from None
        finally:
            self._free.put(process)
        if isinstance(answer, Exception):
            raise MetricsFailed(f"{given}: its metrics cannot be computed\n{answer}")
        return answer
