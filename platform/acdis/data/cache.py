"""The cache of prepared cases: a folder each, named by what went in, written atomically, read by memory map.

    <cache>/<case>-<first 12 hex of the fingerprint>/image.npy label.npy native_label.npy lesion.npy case.json
    <cache>/.hashes/     one small file per source file: its SHA-256, found by path, size and times
    <cache>/.locks/      one empty file per case that is being made: who else wants it waits
    <cache>/.tmp-*       what is being written; left over by a killed process, removed after a day

The fingerprint covers the bytes of the case's files and the options that change the arrays, so a changed file
or option leads to another folder. A folder appears by one rename: it is whole or it is not there. Nobody ever
writes into one: on a file system without locks two processes may both make a case, and the first one's stays.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from acdis import config, files
from acdis.data.cases import Case, copies, image_digest, read
from acdis.data.fingerprints import fingerprint, stamps
from acdis.data.prepared_case import ARRAYS, MAX_LESION_VOXELS, Entry, open_entry
from acdis.data.preprocess import preprocess
from acdis.data.problems import gathered_lines
from acdis.errors import UserError

_STALE_SECONDS = 24 * 3600


def prepare(
    cases: Sequence[Case],
    data: config.Data,
    cache: Path,
    processes: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Entry]:
    """Make what is missing in the cache, `processes` cases at a time, and open all of it, by name.

    Works in threads (see `cases.check`), about 1 GB each at 240×240×155. May be killed and started again, and
    run by several processes at once. `progress` is called with (done, all) in the calling thread.

    Raises:
        UserError: every case that cannot be used, with file and reason, once all others are prepared.
    """
    _make_folders(cache)
    entries: dict[str, Entry] = {}
    errors: dict[str, str] = {}
    pool = ThreadPoolExecutor(max(1, processes))
    try:
        pending = {pool.submit(_entry, case, data, cache): case.name for case in cases}
        for done, future in enumerate(as_completed(pending), start=1):
            name = pending[future]
            try:
                entries[name] = future.result()
            except UserError as error:
                errors[name] = str(error)
            if progress is not None:
                progress(done, len(cases))
    finally:  # on Ctrl-C too: what has not begun is dropped
        pool.shutdown(wait=False, cancel_futures=True)
    return _whole(cases, entries, errors)


def opened(cases: Sequence[Case], data: config.Data, cache: Path, processes: int) -> dict[str, Entry] | None:
    """As `prepare`, but nothing is made or written: none where any of the cases is not prepared.

    Raises:
        UserError: as `prepare`, for what can be told without making any.
    """
    made = {folder.name.rpartition("-")[0] for folder in cache.glob("[!.]*-*")}
    if not all(case.name in made for case in cases):  # told without reading their files
        return None
    with ThreadPoolExecutor(max(1, processes)) as pool:
        prepared = list(pool.map(lambda case: _open(case, _mark(case, data, cache), cache), cases))
    entries = {entry.name: entry for entry in prepared if entry is not None}
    return _whole(cases, entries, {}) if len(entries) == len(cases) else None


def _whole(cases: Sequence[Case], entries: Mapping[str, Entry], errors: dict[str, str]) -> dict[str, Entry]:
    """The entries with their patients, in the order of the cases; no two may be copies."""
    folders = {case.name: case.folder for case in cases}
    for name, other in copies({name: entry.voxels for name, entry in entries.items()}).items():
        errors[name] = f"{folders[name]}: duplicate case: the same images as {other}"
    _refuse(errors, folders)
    return {
        case.name: replace(
            entries[case.name],
            patient=case.patient or case.name,
            source=case,
            modalities=case.modalities,
        )
        for case in cases
    }


def _refuse(errors: Mapping[str, str], names: Collection[str]) -> None:
    if errors:
        lines = "".join(f"\n  {line}" for line in gathered_lines(sorted(errors.items()), names))
        raise UserError(f"{len(errors)} of {len(names)} cases cannot be used:{lines}")


def _make_folders(cache: Path) -> None:
    """Create the cache and remove what killed processes left in it more than a day ago."""
    try:
        for name in (".hashes", ".locks"):
            (cache / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{cache}: cannot be created ({files.reason(error)}); choose another folder for the cache"
        ) from None
    files.sweep(cache / ".hashes")
    for left in cache.glob(".tmp-*"):
        with suppress(OSError):  # another process may be quicker
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _entry(case: Case, data: config.Data, cache: Path) -> Entry:
    """Open a prepared case, made now if it is not there whole."""
    before = stamps(case)
    mark = _mark(case, data, cache)
    entry = _open(case, mark, cache)
    if entry is None:
        folder = _folder(case, mark, cache)
        with _made_once(cache, folder.name):
            entry = _open(case, mark, cache) or _make(case, data, cache, folder, mark, before)
    return entry


def _mark(case: Case, data: config.Data, cache: Path) -> str:
    try:
        return fingerprint(case, data, cache)
    except OSError as error:
        read(case)  # says all that is wrong with the case, not only with this file
        raise UserError(f"{error.filename}: cannot be read ({files.reason(error)})") from None


def _folder(case: Case, mark: str, cache: Path) -> Path:
    return cache / f"{case.name}-{mark[:12]}"


def _open(case: Case, mark: str, cache: Path) -> Entry | None:
    return open_entry(_folder(case, mark, cache), case.name, mark)


def _make(case: Case, data: config.Data, cache: Path, folder: Path, mark: str, before: Any) -> Entry:
    """Preprocess a case and open what came of it; `before`: stamps of its files when they were hashed."""
    temporary = cache / f".tmp-{uuid.uuid4().hex}"
    try:
        _write(temporary, case, data, mark)
        if stamps(case) != before:
            raise UserError(f"{case.segmentation.parent}: {case.name} changed while it was read; run again")
        _publish(temporary, folder, case.name, mark)
    except OSError as error:
        raise UserError(
            f"{cache}: cannot be written ({files.reason(error)}); free space or choose another folder"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    made = open_entry(folder, case.name, mark)
    if made is None:
        raise UserError(f"{folder}: was damaged right after it was written; check the disk")
    return made


@contextmanager
def _made_once(cache: Path, name: str) -> Iterator[None]:
    """Of the processes of all hosts one at a time makes an entry. A killed one's lock is free at once."""
    with ExitStack() as held:
        with suppress(files.UnwritableError):  # a full disk or the like: what follows says it better
            held.enter_context(files.locked(cache / ".locks" / name, remove=True))
        yield


def _write(folder: Path, case: Case, data: config.Data, mark: str) -> None:
    """Preprocess a case into a new folder."""
    volume = read(case)
    try:
        prepared = preprocess(volume, data)
    except UserError as error:
        raise UserError(f"{case.segmentation.parent}: {error}") from None
    folder.mkdir()
    lesion = _lesion_sample(prepared.labels, seed=int(mark[:16], 16))
    arrays = (prepared.images, prepared.labels, volume.labels, lesion)
    for file, array in zip(ARRAYS, arrays, strict=True):
        np.save(folder / file, np.ascontiguousarray(array), allow_pickle=False)
    record = {
        "name": case.name,
        "fingerprint": mark,
        "voxels": image_digest(volume),
        "notes": volume.notes,
        "sizes": {file: (folder / file).stat().st_size for file in ARRAYS},
        "meta": prepared.meta.as_dict(),
    }
    files.write_json(folder / "case.json", record)


def _publish(temporary: Path, folder: Path, name: str, mark: str) -> None:
    """Rename into place. Another process's whole entry stands; a damaged one makes room."""
    while True:
        try:
            files.publish(temporary, folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if open_entry(folder, name, mark) is not None:
            return
        aside = temporary.with_name(f".tmp-{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _lesion_sample(labels: np.ndarray, seed: int) -> np.ndarray:
    """int32 [N, 3]: at most 10,000 of the voxels with a label, in order."""
    voxels = np.flatnonzero(labels)
    if len(voxels) > MAX_LESION_VOXELS:
        voxels = np.sort(np.random.default_rng(seed).choice(voxels, MAX_LESION_VOXELS, replace=False))
    return np.stack(np.unravel_index(voxels, labels.shape), axis=1).astype(np.int32)
