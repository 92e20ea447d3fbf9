"""How far a training is, and how long it will take, from its cell's state."""

from __future__ import annotations

from typing import Any


def steps_done(state: dict[str, Any]) -> int:
    """Optimiser steps over all epochs; the end of an epoch may be newer than its last step that was told."""
    steps = int(state.get("steps", 0))
    told = (int(state.get("epoch", 1)) - 1) * steps + int(state.get("step", 0))
    return max(int(state.get("done", 0)) * steps, told)


def remaining(state: dict[str, Any]) -> float:
    """Seconds of training steps that are left, from the measured step."""
    if not state.get("steps"):
        return float(state.get("projected_seconds", 0.0))
    return max(0, state["epochs"] * state["steps"] - steps_done(state)) * float(state["step_seconds"])


def clock(seconds: float) -> str:
    """`2 h 05 min`, `3 min 10 s`, `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
