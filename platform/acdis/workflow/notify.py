"""Tell somebody that an ablation has ended: a command of the user's, or a webhook. Never from a spec file.

Specs are passed on, and what they hold runs nothing (SECURITY.md); so the command line says whom to tell.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from acdis.ablation.expansion import Member
from acdis.ablation.standings import counted, survey
from acdis.errors import UserError
from acdis.files import reason

#: Seconds that a command or a server has.
PATIENCE = 30.0
MESSAGE = "ACDIS_MESSAGE"


def check(target: str | None) -> None:
    """Refuse what can never be told, before anything is trained.

    Raises:
        UserError: an empty word, or a scheme that is no webhook's.
    """
    if target is not None and (not target.strip() or ("://" in target.split()[0] and not _is_url(target))):
        raise UserError(
            f"--notify {target!r}: give a command, or an address that begins with https:// or http://"
        )


def _is_url(target: str) -> bool:
    return target.startswith(("https://", "http://"))


@contextmanager
def told(
    target: str | None, members: Sequence[Member], base: Path, say: Callable[[str], None]
) -> Iterator[None]:
    """Tell `target` how the block ended; what goes wrong with that is a line, and changes nothing else.

    A command gets the message in place of a word `{}`, as its input and in `ACDIS_MESSAGE`, and no shell; a
    webhook gets `{"text": message, …}`.
    """
    check(target)
    outcome = "ended"
    try:
        yield
    except KeyboardInterrupt:
        outcome = "was stopped"
        raise
    except BaseException:
        outcome = "ended with failures"
        raise
    finally:
        if target:
            specs = sorted({member.spec.name for member in members})
            message = f"acdis: {', '.join(specs)} {outcome}: {counted(survey(members, base))}"
            try:
                _tell(target, message, specs)
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                say(f"--notify: not told ({reason(error)})")


def _tell(target: str, message: str, specs: Sequence[str]) -> None:
    if _is_url(target):
        body = json.dumps({"text": message, "specs": specs}).encode()
        request = urllib.request.Request(target, body, {"Content-Type": "application/json"}, method="POST")
        with urllib.request.urlopen(request, timeout=PATIENCE):
            return
    words = [message if word == "{}" else word for word in shlex.split(target)]
    surroundings = {**os.environ, MESSAGE: message}
    subprocess.run(words, check=True, timeout=PATIENCE, env=surroundings, input=message + "\n", text=True)
