"""What every method asks of a GPU, counted on one that is not there: host waits, copies, clones.

ACDIS and RFNet here; all methods in `make test-gpu`. Real time, cuDNN's choices and numbers it cannot show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from acdis import methods

Ask = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
TINY = Path(__file__).parents[1] / "methods" / "tiny"
#: The one place where a step waits: its terms, in one transfer, when backward is on its way.
STEP_WAITS = {"list training/step.py:_as_floats"}
#: Beside it, by method, with the reason.
MORE_STEP_WAITS = {
    "m3ae": {"list methods/m3ae/method.py:_cubes"},  # which cubes are hidden is drawn anew for each sample
}
#: Where a case waits: once, whether its sums are finite.
CASE_WAITS = {"value evaluation/sliding.py:predict"}
QUICK = ("acdis", "rfnet")


def jobs() -> list[Any]:
    found = []
    for name in methods.names():
        for label, options in yaml.safe_load((TINY / f"{name}.yaml").read_text(encoding="utf-8")).items():
            step, least = methods.validate(name, options).crop_rule()
            side = math.ceil(max(least, 16) / step) * step
            for precision in ("bf16", "fp32"):
                job = {"method": name, "options": options, "side": side, "precision": precision}
                quick = name in QUICK and precision == "bf16"
                marks = () if quick else (pytest.mark.gpu,)
                found.append(pytest.param(job, id=f"{name}-{label}-{precision}", marks=marks))
    return found


@pytest.mark.parametrize("job", jobs())
def test_a_step_and_a_case_hold_their_budgets(ask: Ask, job: dict[str, Any]) -> None:
    trains = not methods.validate(job["method"], job["options"]).parts()
    *steps, case = ask([job | {"what": what} for what in ("step", "predict") if trains or what == "predict"])
    allowed = STEP_WAITS | MORE_STEP_WAITS.get(job["method"], set())
    for step in steps:
        assert set(step["waits"]) <= allowed, step["waits"]
        assert sum(step["waits"].values()) <= len(allowed)
        assert step["kernels"] > 100
    assert set(case["waits"]) <= CASE_WAITS, case["waits"]
    assert sum(case["waits"].values()) <= 1
    # Labels are made from probabilities where these lie; nothing of a case comes back before.
    back = {place: size for place, size in case["copies"].items() if place.startswith("cuda to cpu")}
    assert not back
    assert case["moved"] > 1e6


def test_what_waits_is_seen(ask: Ask) -> None:
    """The census finds a value that is read: here by a guard on a term, as a method might write one."""
    (found,) = ask(
        [
            {
                "method": "acdis",
                "options": {"base_width": 4, "levels": 3},
                "side": 16,
                "what": "read",
                "precision": "fp32",
            }
        ]
    )
    assert sum(found["waits"].values()) == 3, found["waits"]
    assert found["copies"] == {"cuda to cpu elsewhere": 16}
