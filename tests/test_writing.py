"""The one way to write and to lock: whole or not at all, and nobody waits without knowing for whom."""

from __future__ import annotations

import ast
import contextlib
import errno
import logging
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from acdis import files
from acdis.errors import UserError

PACKAGE = Path(files.__file__).parent
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _checkpoint(path: Path) -> None:
    import torch

    from acdis.training import checkpoint

    checkpoint.save(path, {"weights": torch.zeros(300_000)})


def _records(path: Path) -> None:
    from acdis.evaluation.records import Record, write_parquet

    write_parquet(path, [Record("a", "FLAIR", "WT", 0.5, None, None, 1, 1, 1.0)])


WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: files.write_text(path, "new"),
    "json": lambda path: files.write_json(path, {"a": "ü"}),
    "checkpoint": _checkpoint,
    "records": _records,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_the_old_file_stays_until_the_new_one_is_whole(
    write: Callable[[Path], None], stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_: Any) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(os, stage, full)
        with pytest.raises(UserError, match=r"/file: cannot be written \(No space left on device\); free"):
            write(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
    write(path)
    assert path.read_bytes() != b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_two_that_write_a_file_at_once_have_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers on one volume share ids of processes."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with files.replacing(tmp_path / "file") as first, files.replacing(tmp_path / "file") as second:
        first.write(b"first")
        second.write(b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_content_then_name_then_folder_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def fsync(descriptor: int) -> None:
        where = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        done.append("folder" if where.is_dir() else f"{os.fstat(descriptor).st_size} bytes")

    replace, rename = os.replace, os.rename
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("name"), replace(*names)))
    monkeypatch.setattr(os, "rename", lambda *names: (done.append("name"), rename(*names)))
    files.write_text(tmp_path / "a", "four")
    assert done == ["4 bytes", "name", "folder"]
    done.clear()
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "inside").write_text("123")
    files.publish(tmp_path / "fresh", tmp_path / "entry")
    assert done == ["3 bytes", "folder", "name", "folder"]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when what stands in the buffer fails once more as the file is closed."""
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr(files, "_beside", lambda path, mode: (full, tmp_path / "x"))
        with pytest.raises(files.UnwritableError, match=r"file: cannot be written \(No space left"):
            files.write_text(tmp_path / "file", "abc")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["/dev/null", "folder", "file/below", "x" * 300])
def test_what_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    """Root could put a file in the place of /dev/null."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(
        files.UnwritableError, match=r"cannot be written \([A-Z][^)]+\); give a folder"
    ) as caught:
        files.write_text(tmp_path / name, "text")
    assert isinstance(caught.value, OSError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError("a\nb"), "a b"), (OSError(), "OSError"), (FULL, "No space left on device")],
)
def test_a_reason_is_never_none(error: OSError, said: str) -> None:
    assert files.reason(error) == said


def test_rights_are_those_asked_for(tmp_path: Path) -> None:
    files.write_text(tmp_path / "secret", "x", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def forked() -> Iterator[Callable[[Any], int]]:
    """Processes that enter a context and stay in it, by their ids; killed with the test."""
    children: list[int] = []

    def fork(context: Any) -> int:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                with context:
                    os.write(writing, b".")
                    signal.pause()
            finally:
                os._exit(1)
        children.append(child)
        os.close(writing)
        assert os.read(reading, 1) == b"."
        os.close(reading)
        return child

    yield fork
    for child in children:
        _kill(child)


def _kill(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_names_its_holder_and_dies_with_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    forked: Callable[[Any], int],
) -> None:
    path = tmp_path / "lock"
    monkeypatch.setattr(files.sys, "argv", ["/usr/bin/acdis", "ablate", "tracking.uri=http://me:secret@host"])
    child = forked(files.locked(path))
    assert files.is_held(path)
    monkeypatch.setattr(files, "NAMED_AFTER", 0.01)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(files.HeldError, match=rf"process {child} on \S+ \(acdis ablate\), since 20"),
        files.locked(path, patience=0.1),
    ):
        raise AssertionError("it is held")
    assert caplog.text.count(f"held by process {child} on ") == 1
    assert "secret" not in caplog.text
    _kill(child)
    assert not files.is_held(path)
    with files.locked(path, patience=0.0):
        assert files.holder(path).startswith(f"process {os.getpid()} ")
    assert files.holder(path) == "another process"


def test_a_lock_of_another_thread_of_ours_is_waited_for_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "NAMED_AFTER", 0.01)
    path = tmp_path / "lock"
    with caplog.at_level(logging.WARNING), files.locked(path), pytest.raises(files.HeldError):
        files.locked(path, patience=0.1).__enter__()
    assert caplog.text == ""


def test_a_lock_that_leaves_no_file_is_one_lock(tmp_path: Path) -> None:
    """Who waited for a file that is removed meanwhile takes the lock anew."""
    path = tmp_path / "lock"
    with files.locked(path, remove=True):
        descriptor = os.open(path, os.O_RDWR)
    assert not files._is_still(descriptor, path)
    os.close(descriptor)
    with files.locked(path, 0.0, remove=True), pytest.raises(files.HeldError), files.locked(path, 0.0):
        raise AssertionError("it is held")
    assert os.listdir(tmp_path) == []


def test_what_a_killed_writer_left_is_swept_and_nothing_else(
    tmp_path: Path, forked: Callable[[Any], int]
) -> None:
    child = forked(files.replacing(tmp_path / "dead"))
    (left,) = tmp_path.iterdir()
    files.sweep(tmp_path)
    assert left.exists()  # its writer lives
    _kill(child)
    (tmp_path / ".other").touch()
    files.sweep(tmp_path)
    assert os.listdir(tmp_path) == [".other"]


def _prediction(path: Path) -> None:
    import nibabel
    import numpy as np

    from acdis.prediction import output

    image = nibabel.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4))
    nibabel.save(image, path.with_name("like.nii"))
    output.write(path.with_suffix(".nii"), np.zeros((3, 3, 3), np.uint8), path.with_name("like.nii"), "x")


def _floors(path: Path) -> None:
    from acdis.evaluation import floor_files

    floor_files.kept(path.parents[1], [], [], "zero")


@pytest.mark.parametrize(
    ("write", "folder"), [(_prediction, "out"), (_floors, ".floors")], ids=["prediction", "floors"]
)
def test_whoever_writes_next_sweeps(
    write: Callable[[Path], None], folder: str, tmp_path: Path, forked: Callable[[Any], int]
) -> None:
    """Folders that no lock of a cell guards."""
    path = tmp_path / folder / "file"
    _kill(forked(files.replacing(path)))
    (left,) = path.parent.iterdir()
    write(path)
    assert not left.exists()


#: Attributes that write, move or lock files past `files.py`, and where one must.
PAST = {
    "flock",
    "lockf",
    "rename",
    "replace",
    "write_text",
    "write_bytes",
    "copyfile",
    "copy",
    "move",
    "save",
}
ALLOWED = {
    "cluster/head.py": "the log of a process",
    "machine.py": "a file of /proc",
    "data/cache.py": "np.save into a folder that `publish` moves",
    "data/phantom.py": "nib.save into a folder that `publish` moves",
    "cells/damage.py": "sets a damaged file aside",
    "tracking/moved.py": "a copy in the folder for temporary files",
    "tracking/orphans.py": "a lock that several hold for the life of a process",
}


def test_nothing_is_written_in_another_way() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            if name not in {"files.py", *ALLOWED} and _writes(call):
                found.append(f"{name}:{call.lineno}")
    assert found == []


def _writes(call: ast.Call) -> bool:
    """`text.replace(a, b)` and `dataclasses.replace(x, …)` have other shapes than `path.replace(a)`."""
    if isinstance(call.func, ast.Name):
        return call.func.id == "open" and _mode(call.args[1:2])
    if not isinstance(call.func, ast.Attribute):
        return False
    of = call.func.value.id if isinstance(call.func.value, ast.Name) else ""
    name = call.func.attr
    if name == "open":
        return _mode(call.args[:1])
    if of in ("os", "fcntl", "shutil", "np", "nib", "torch"):
        return name in PAST and not (of == "torch" and _is_stream(call))
    moves = name == "replace" and len(call.args) == 1 and not call.keywords
    return moves or (name in ("write_text", "write_bytes", "rename") and of != "files")


def _mode(given: list[ast.expr]) -> bool:
    return any(isinstance(each, ast.Constant) and str(each.value)[:1] in "wax" for each in given)


def _is_stream(call: ast.Call) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "stream" for each in call.args)
