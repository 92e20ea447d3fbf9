"""A server that ends with whoever started it, also where that one was killed and could not say so.

The command that starts it keeps the other end of its standard input, which the system closes when the command
ends, whatever has ended it.
"""

from __future__ import annotations

import os
import signal
import threading
import time

#: Set by `dashboard` for its server; `mlflow server` by itself has an input that means nothing.
LEASH_VARIABLE = "ACDIS_LEASH"
#: Seconds that open connections have to end.
PATIENCE = 5.0


def follow() -> None:
    """End this process's group when its standard input ends, if the variable asks for that."""
    if os.environ.get(LEASH_VARIABLE):
        threading.Thread(target=_wait, name="acdis-leash", daemon=True).start()


def _wait() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(PATIENCE)
    os.killpg(0, signal.SIGKILL)
