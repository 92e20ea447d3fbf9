"""Trainings that are thought of one by one: the next is asked for when a place is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acdis.cluster.tune import MAX_FAILURES, place_of_driver

Ask = Callable[[], Any]


def run_as_asked(
    drive: Callable[[Any], None],
    ask: Ask,
    over: Callable[[Any, str], None],
    at_once: int,
    watch: Callable[[], None],
) -> None:
    """Call `drive` on what `ask` gives, `at_once` at a time, each in a process of its own. Ray is connected.

    Tune is not used: it wants its trials, or Optuna's own search, for itself, and keeps them in a state of
    its own that would have to be restored.

    Args:
        drive: a function that can be imported; it must not raise for what goes wrong with one training.
        ask: the next order, which can be pickled; none if there is none now. Asked when a place is free.
        over: told each order that is over, with why its process died, or an empty text.
        watch: called every second.
    """
    import ray

    # No CPU of its own: it only waits for its workers, which need them all. Its cell goes on from its
    # checkpoint when the process dies and is started again.
    place = ray.remote(drive).options(num_cpus=0, resources=place_of_driver(), max_retries=MAX_FAILURES)
    running: dict[Any, Any] = {}
    while True:
        while len(running) < at_once and (order := ask()) is not None:
            running[place.remote(order)] = order
        if not running:
            return
        ended, _ = ray.wait(list(running), timeout=1.0)
        watch()
        for reference in ended:
            over(running.pop(reference), _why_died(ray, reference))


def _why_died(ray: Any, reference: Any) -> str:
    try:
        ray.get(reference)
    except Exception as error:  # of the task itself, or of Ray about it
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"its driver died: {(lines[-1] if lines else type(error).__name__)[:300]}"
    return ""
