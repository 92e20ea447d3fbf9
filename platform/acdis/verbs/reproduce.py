"""`reproduce`: Tables 2 and 3 of the paper, trained and reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acdis import home
from acdis.cluster.train import TrainingFailed
from acdis.errors import UserError
from acdis.verbs.ablate import Request, ablate

TABLES = ("table2.yaml", "table3.yaml")


def reproduce(
    experiment: Path | None, overrides: Sequence[str], seeds: Sequence[int] | None, at_once: int | None
) -> None:
    """`ablate` what is missing of both tables, then `report` them. Failed cells are said at the end.

    Raises:
        UserError: not in a checkout, which has the specs, or as `ablate`.
        TrainingFailed: some cells failed; the report shows the others.
    """
    root = home.checkout()
    if root is None:
        raise UserError(
            "no verb given; outside a checkout name what to do: acdis ablate SPEC, acdis train FILE (acdis --help)"
        )
    request = Request(
        [root / "ablations" / name for name in TABLES], experiment, overrides, seeds=seeds, at_once=at_once
    )
    failure = None
    try:
        ablate(request)
    except TrainingFailed as error:
        failure = error
    _report(request)
    if failure is not None:
        raise failure


def _report(request: Request) -> None:
    raise NotImplementedError
