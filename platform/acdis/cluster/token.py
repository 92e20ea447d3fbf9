"""The secret that whoever speaks to a Ray must have: in a file that only its owner can read."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from acdis.errors import UserError
from acdis.files import locked, write_text

MODE, VALUE, FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def own(folder: Path) -> Path:
    """The file `token` in `folder`, made if it is not there; its path may be told, its content never.

    Raises:
        UserError: others can read it whatever is done.
    """
    file = folder / "token"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(folder / "token.lock", remove=True):  # two that are started at once have one
        if not file.exists():
            write_text(file, secrets.token_hex(32), mode=0o600)
    close(file)
    if file.stat().st_mode & 0o077:
        raise UserError(
            f"{file}: others can read it, and its file system keeps no rights; set {FILE} to a file that "
            "only you can read, or ACDIS_HOME to a folder elsewhere"
        )
    return file


@contextlib.contextmanager
def settled(environment: MutableMapping[str, str], folder: Path) -> Iterator[None]:
    """A token for a Ray that is started in the block, in a folder of its own; what the user has set stays."""
    environment.setdefault(MODE, "token")
    if environment.get(VALUE) or environment.get(FILE):
        yield
        return
    write_text(folder / "token", _of_this_process(), mode=0o600)
    environment[FILE] = str(folder / "token")
    try:
        yield
    finally:
        del environment[FILE]


@functools.cache
def _of_this_process() -> str:
    """Ray reads its token once in the life of a process, which may start one Ray after the other."""
    return secrets.token_hex(32)


def known(environment: MutableMapping[str, str]) -> Path:
    """Where Ray looks for a token that is in no variable: the file that one names, or `~/.ray/auth_token`."""
    return Path(environment.get(FILE) or Path.home() / ".ray" / "auth_token").expanduser()


def close(file: Path) -> bool:
    """Take from all others the right to read one's own file; whether they had it."""
    with contextlib.suppress(OSError):
        status = file.stat()
        if status.st_mode & 0o077 and status.st_uid == os.getuid():
            file.chmod(0o600)
            return True
    return False
