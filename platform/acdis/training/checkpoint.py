"""Checkpoints: written atomically, loaded with `weights_only=True`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from acdis.errors import UserError

_HALF = ".part"  # the end of a name while its file is being written


class Damaged(UserError):  # noqa: N818  it says what happened
    """The file cannot be read as a checkpoint."""


def save(path: Path, state: dict[str, Any], keep: Path | None = None) -> None:
    """Write tensors and plain containers; a reader sees the old file or the new one, never half of one.

    Args:
        keep: where the old file goes; none: nowhere.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_HALF}")
    try:
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save` wrote; nothing in the file is executed.

    Raises:
        Damaged: the file is missing, truncated, or holds more than tensors and plain containers.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere in torch's unpickler, with any error
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise Damaged(
            f"{path}: not a readable checkpoint ({reason}); delete it to train from the start"
        ) from None
    if not isinstance(state, dict):
        raise Damaged(f"{path}: not a checkpoint of this platform; delete it to train from the start")
    return state


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while it saved has left in the folder."""
    for left in folder.glob(f".*{_HALF}"):
        left.unlink(missing_ok=True)
