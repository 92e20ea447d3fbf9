"""`up`, `down`, `submit`: the Ray head of this home, and jobs on it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from acdis import extras, home
from acdis.cluster import head
from acdis.cluster.submit import submit as submit_job
from acdis.errors import UserError


def up() -> None:
    """Start the head unless it runs.

    Raises:
        UserError: Ray does not come up.
    """
    extras.need("cluster", "up")
    state = head.start(home.home())
    print(f"Ray head: {state['address']} (its token is in {state['token']}); `down` ends it")


def down() -> None:
    """End the head of this home and all that runs on it."""
    base = home.home()
    print(f"ended {head.stop(base)} processes of the Ray head in {base}")


def submit(words: Sequence[str]) -> None:
    """Run a verb as a job on the head, which is started if need be; ends with the job's exit code.

    Raises:
        UserError: no verb, not in a checkout, or Ray does not come up.
    """
    if not words:
        raise UserError("submit: say what to run, as in: submit ablate ablations/table2.yaml")
    extras.need("cluster", "submit")
    code = submit_job(home.home(), ["python", "experiments/main.py", *words])
    print("Ray goes on in the background; `down` ends it")
    sys.exit(code)
