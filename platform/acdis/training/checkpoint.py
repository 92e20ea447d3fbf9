"""Checkpoints: written atomically, loaded with `weights_only=True` after a look at what the file would do.

`weights_only` keeps code from running. It does not keep a crafted file from asking for all memory, and does
not look at checksums; both are done here first, without unpickling anything.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from acdis import files
from acdis.errors import UserError

#: All that tensors and plain containers need to be made from.
_MADE_BY = re.compile(r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch \w+Storage")
#: Ways to name or make an object that `torch.save` does not use.
_FOREIGN = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"}
_PROTOCOL = 2
_LARGEST_PICKLE = 2**26  # bytes: names and shapes, no numbers of tensors
_MOST_OPERATIONS = 2_000_000  # of a pickle: a tensor takes some thirty
_DEEPEST = 20


class Damaged(UserError):  # noqa: N818  it says what happened
    """The file cannot be read as a checkpoint."""


def save(path: Path, state: dict[str, Any], keep: Path | None = None) -> None:
    """Write tensors and plain containers; a reader sees the old file or the new one, never half of one.

    Args:
        keep: where the old file goes; none: nowhere.
    """
    with files.replacing(path, keep=keep) as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:  # torch's own, of a file that the disk has taken half of
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save` wrote; nothing in the file is executed.

    Raises:
        Damaged: the file is missing, truncated, altered, or holds more than tensors and plain containers.
    """
    try:
        _inspect(path)
        state = torch.load(path, map_location=device, weights_only=True)
        _check_tensors(state)
    except Exception as error:  # a damaged file can fail anywhere in torch's unpickler, with any error
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise Damaged(
            f"{path}: not a readable checkpoint ({reason}); delete it to train from the start"
        ) from None
    if not isinstance(state, dict):
        raise Damaged(f"{path}: not a checkpoint of this platform; delete it to train from the start")
    return state


def _inspect(path: Path) -> None:
    """Raise on a file that `save` cannot have written; it is read to its end, and nothing is made of it."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")  # a device may have no end
    with path.open("rb", buffering=0) as stream, files.archive(stream) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries are larger than the file")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} has another checksum than when it was written")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                _check_pickle(archive.read(entry) if entry.file_size <= _LARGEST_PICKLE else b"")


def _check_pickle(content: bytes) -> None:
    """Only what tensors, dictionaries, lists, numbers and words are made by, and not too many of them."""
    for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
        if number > _MOST_OPERATIONS:
            raise ValueError(f"it makes more than {_MOST_OPERATIONS:,} values")
        if operation.name == "GLOBAL" and not _MADE_BY.fullmatch(str(argument)):
            raise ValueError(f"it would call {argument}")
        if operation.name in _FOREIGN or (operation.name == "PROTO" and argument != _PROTOCOL):
            raise ValueError(f"it holds objects ({operation.name})")


def _check_tensors(tree: Any, depth: int = 0) -> None:
    """Every tensor has its numbers in the file: a view can claim 10¹² of them and hold one."""
    if depth > _DEEPEST:
        raise ValueError("it is nested too deep")
    if isinstance(tree, torch.Tensor):
        if tree.numel() * tree.element_size() > tree.untyped_storage().nbytes():
            raise ValueError(f"a tensor claims the shape {tuple(tree.shape)}")
    elif isinstance(tree, Mapping | list | tuple):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            _check_tensors(value, depth + 1)
