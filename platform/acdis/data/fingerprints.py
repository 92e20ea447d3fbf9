"""Which bytes and options a prepared case was made from, as one hash; files' own hashes are remembered."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from acdis import config, files
from acdis.data.cases import Case
from acdis.data.prepared_case import Entry
from acdis.data.preprocess import PREPROCESS_VERSION
from acdis.vocabulary import MODALITIES

_SHA256 = re.compile("[0-9a-f]{64}")


def fingerprint(case: Case, data: config.Data, cache: Path) -> str:
    """SHA-256 (hex) over the bytes of the case's files and the options that change the prepared arrays.

    Raises:
        OSError: a file cannot be read.
    """
    tree = {
        "version": PREPROCESS_VERSION,
        "layout": case.layout,
        "labels": case.scheme.classes,
        "spacing": data.spacing,
        "min_size": data.min_size,
        "background": data.background,
        "files": [file_hash(path, cache) for path in case.files],
        **later_options(data),
    }
    if case.modalities != MODALITIES:  # whole cases keep the mark that they had before there were others
        tree["modalities"] = case.modalities
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def later_options(data: config.Data) -> dict[str, Any]:
    """Options that change the arrays and came after others had made cells: only where they are not as before,
    so that cases and cells which know nothing of them keep their names."""
    cut = {"normalisation": data.normalisation, "percentiles": data.cut} if data.cut else {}
    return cut | ({} if data.last_slice else {"last_slice": False})


def data_fingerprint(entries: Iterable[Entry]) -> str:
    """SHA-256 (hex) over names and fingerprints, in whatever order the entries come."""
    pairs = sorted((entry.name, entry.fingerprint) for entry in entries)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def stamps(case: Case) -> list[tuple[int, ...] | None]:
    """What changes when one of the case's files does, file by file, without reading them."""
    return [_stamp(path) for path in case.files]


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does, without reading it. ctime too: copying tools may set mtime back."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def file_hash(path: Path, cache: Path) -> str:
    """SHA-256 of a file's bytes, remembered as long as path, size and times stay."""
    stamp = _stamp(path)
    key = hashlib.sha256(repr((str(path.absolute()), stamp)).encode()).hexdigest()[:32]
    note = cache / ".hashes" / key
    with suppress(OSError, ValueError):
        known = files.read(note, 64).decode("ascii")
        if _SHA256.fullmatch(known):
            return known
    with files.opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if _stamp(path) == stamp:
        remember(note, digest)
    return digest


def remember(note: Path, text: str) -> None:
    """Keep a small file in the cache; a shortcut, so that it does not matter if it cannot be written."""
    _sweep_once(note.parent)
    with suppress(OSError):
        files.write_text(note, text)


@lru_cache(maxsize=64)
def _sweep_once(folder: Path) -> None:
    """Whoever writes there removes what a killed process left; once, since it lists the folder."""
    files.sweep(folder)
