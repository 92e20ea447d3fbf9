"""The one way to write files, to lock, and to read what others have written.

What is written is there whole or not at all, after a power cut too. What is read has a limit and an end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import logging
import math
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from acdis.errors import UserError, shown

#: Most bytes of a text that people write (specs, experiments, splits): PyYAML takes 10 s for a megabyte.
TEXT = 2**17
#: Most values of a JSON file: what 10,000 epochs write down are some 400,000; each takes up to a kilobyte
#: while its type is looked at.
VALUES = 500_000
#: Most bytes of the list of a ZIP file's entries, each of which takes 46 and its name.
MOST_LISTED = 2**22
#: The end of a name while its file is being written.
HALF = ".part"
#: Seconds after which somebody who waits for a lock is told who holds it.
NAMED_AFTER = 3.0
#: Who looks whether a lock is held has it for a moment.
_MOMENT = 0.05
_OURS = re.compile(rf"\.[0-9a-f]{{16}}{re.escape(HALF)}")
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
log = logging.getLogger(__name__)


class TooLargeError(ValueError):
    """A file holds more than any file of its kind does; the message says how much."""


def read(path: Path, most: int) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: it cannot be read, or is a pipe, a device or a folder: reading those may never end.
        TooLargeError: it holds more than `most` bytes; no more than those are ever read.
    """
    with opened(path) as stream:
        status = os.fstat(stream.fileno())
        if status.st_size > most:
            raise TooLargeError(f"holds {status.st_size:,} bytes, {most:,} at most")
        content = stream.read(most + 1)
    if content is None:  # some files of /proc are pipes in truth
        raise OSError(errno.EAGAIN, "Nothing to read yet", str(path))
    if len(content) > most:  # it has grown, or is a file of /proc, which all have size 0
        raise TooLargeError(f"holds more than {most:,} bytes")
    return content


def given(path: Path, most: int, todo: str) -> bytes:
    """As `read`, of a file that a user has named.

    Raises:
        UserError: it cannot be read, or holds too much; the message ends with what to do.
    """
    try:
        return read(path, most)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); {todo}") from None
    except TooLargeError as error:
        raise UserError(f"{path}: {error}; {todo}") from None


def opened(path: Path) -> io.BufferedReader:
    """A file to be read by somebody who reads no more of it than he has looked at.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device or a folder: reading those may never end.
    """
    try:
        # NONBLOCK: a pipe would wait for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError:  # a NUL in the name
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return open(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "Not a regular file", str(path))


def json_of(content: bytes, most: int = VALUES) -> Any:
    """The value in a JSON text.

    Raises:
        TooLargeError: it holds more than `most` values. They are counted before any is made: fifteen
            kilobytes of a ZIP file may hold five million empty mappings.
        ValueError: it is no JSON, or nested too deep.
    """
    check_values(content, most)
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("is nested too deep") from None


def read_json(path: Path, most: int = TEXT) -> Any:
    """The value in a JSON file of at most so many bytes.

    Raises:
        OSError, TooLargeError, ValueError: as `read` and `json_of`.
    """
    return json_of(read(path, most))


def check_values(content: bytes, most: int = VALUES) -> None:
    """Raise TooLargeError for a JSON text of more than `most` values, before anything is made of it."""
    count = content.count(b",") + content.count(b"[") + content.count(b"{")
    if count > most:
        raise TooLargeError(f"holds about {count:,} values, {most:,} at most")


def archive(source: BinaryIO) -> zipfile.ZipFile:
    """A ZIP file, opened to be read; `source` stays open for as long as it is used.

    Raises:
        TooLargeError: its list of entries is longer than `MOST_LISTED`.
        zipfile.BadZipFile: it is none.
    """
    stream = _Listed(source)
    opened = zipfile.ZipFile(stream)
    stream.is_known = True
    return opened


class _Listed(io.BufferedReader):
    """Python reads the list of entries in one go, and makes an object of half a kilobyte of each."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__(source)  # type: ignore[arg-type]  # whatever reads into a buffer
        self.is_known = False

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_LISTED and not self.is_known:
            raise TooLargeError(f"lists entries in {size:,} bytes, {MOST_LISTED:,} at most")
        return super().read(size)


#: What the message of an UnwritableError has in it, by which it is known again where it was written down.
UNWRITABLE = "cannot be written ("


class UnwritableError(UserError, OSError):
    """A file or folder cannot be written."""

    def __init__(self, path: Path | str, error: OSError) -> None:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        todo = "free space" if full else "give a folder that you may write, ACDIS_HOME or --out"
        UserError.__init__(self, f"{path}: {UNWRITABLE}{reason(error)}); {todo}")
        self.errno, self.strerror, self.filename = error.errno, reason(error), str(path)

    def __reduce__(self) -> tuple[Any, ...]:  # the pickle of an OSError would call it with other arguments
        return UnwritableError, (self.filename, OSError(self.errno, self.strerror))

    def __str__(self) -> str:
        return UserError.__str__(self)


class HeldError(UserError):
    """Another process holds a lock; the message says who."""


def reason(error: Exception) -> str:
    """What an error says, in a few words and never as `None`."""
    said = getattr(error, "strerror", None) or " ".join(str(error).split())
    return str(said)[:160] or type(error).__name__


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o666, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends, and vanishes when it raises.

    Until it is whole and on the disk, readers see the old file. It has a name of its own meanwhile, which no
    other process can have come to: containers share pids. Missing folders are made.

    Args:
        mode: rights of the file, before the umask.
        keep: where the old file goes; none: nowhere.

    Raises:
        UnwritableError: it cannot be written, or `path` is a folder, a device or a pipe.
    """
    try:
        _refuse_other_kinds(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        stream, temporary = _beside(path, mode)
    except OSError as error:
        raise UnwritableError(path, error) from None
    try:
        with stream:
            yield stream
            stream.flush()
            sync(stream.fileno())
            if keep is not None and path.exists():
                os.replace(path, keep)
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, UserError) or error.filename not in (None, str(temporary), str(path)):
            raise  # of what the block reads or does elsewhere
        raise UnwritableError(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace a file; see `replacing`."""
    with replacing(path, mode) as stream:
        stream.write(content)


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Replace a text file (UTF-8); see `replacing`."""
    write_bytes(path, text.encode(), mode)


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Replace a JSON file; see `replacing`."""
    write_text(path, json.dumps(tree, indent=1))


def publish(fresh: Path, path: Path) -> None:
    """Move a file or folder that is complete to its place, once all of it is on the disk.

    Raises:
        OSError: as `os.rename`: a folder that is not empty stays.
    """
    for entry in [*fresh.rglob("*"), fresh]:
        descriptor = os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
    os.rename(fresh, path)
    _sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove what killed writers have left half written below `folder`; files of living ones stay."""
    _remove_free([*folder.rglob(f".*{HALF}"), *folder.glob(".state.json.*")])  # those of older versions


def sweep_beside(path: Path) -> None:
    """As `sweep`, in the folder of a file that the user has named: nothing there but what is ours."""
    _remove_free([left for left in path.parent.glob(f".*{HALF}") if _OURS.fullmatch(left.name)])


def sweep_folders(folders: Iterable[Path], lock: str) -> None:
    """Remove those temporary folders that no process holds any more, by the file `lock` in each."""
    for left in folders:
        if os.path.exists(left / lock) and not is_held(left / lock):  # of another user: not to be seen
            shutil.rmtree(left, ignore_errors=True)


def _remove_free(paths: list[Path]) -> None:
    for left in paths:
        with contextlib.suppress(OSError), left.open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


@contextlib.contextmanager
def locked(path: Path, patience: float = math.inf, *, remove: bool = False) -> Iterator[None]:
    """The lock in the file `path` for the time of the block. The holder's death frees it.

    It holds among the processes of one host; where the file system knows no locks, it holds nobody. Who
    waits longer than `NAMED_AFTER` seconds hears who has it.

    Args:
        patience: seconds to wait at most.
        remove: leave no file behind.

    Raises:
        HeldError: another process has held it for so long; the message says who.
        UnwritableError: the file cannot be made.
    """
    with _opened(path, patience) as descriptor:
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _myself().encode(), 0)
        except OSError:  # a full disk: the lock holds all the same
            pass
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink() if remove else os.ftruncate(descriptor, 0)


def is_held(path: Path, *, shared: bool = False) -> bool:
    """Whether some process has the lock in the file `path`, which need not be writable.

    Args:
        shared: several may have it together.
    """
    try:
        stream = opened(path)
    except OSError:  # nobody has ever had it, or it is not ours to see
        return False
    with stream:
        try:
            fcntl.flock(stream, (fcntl.LOCK_EX if shared else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _HELD
    return False


def holder(path: Path) -> str:
    """Who has the lock in the file `path`, as far as is known."""
    try:
        told = read(path, 500).decode("utf-8", "replace").strip()
    except (OSError, TooLargeError):
        told = ""
    return shown(told) or "another process"


def _myself() -> str:
    """Without arguments after the first: an address may have a password in it."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]] if sys.argv else [])
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    return f"{_this_process()} ({command[:80]}), since {now}"


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextlib.contextmanager
def _opened(path: Path, patience: float) -> Iterator[int]:
    """The descriptor that holds the lock in `path`."""
    deadline = time.monotonic() + patience
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UnwritableError(path, error) from None
        try:
            _wait(descriptor, path, deadline)
            if _is_still(descriptor, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _wait(descriptor: int, path: Path, deadline: float) -> None:
    """Until the lock is ours."""
    told_at = time.monotonic() + NAMED_AFTER
    told = False
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD:
                return None  # a file system without locks
        now = time.monotonic()
        if now >= deadline:
            raise HeldError(f"{path}: is held by {holder(path)}")
        if now >= told_at and not told:
            told = True
            who = holder(path)
            if not who.startswith(_this_process()):  # another thread of ours: nobody need look for it
                log.warning("waiting for %s, which is held by %s", path, who)
        time.sleep(_MOMENT)


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the file was not removed while we waited for it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _beside(path: Path, mode: int) -> tuple[BinaryIO, Path]:
    """A new file in the folder of `path`, locked for as long as it is open: `sweep` leaves it alone."""
    while True:
        temporary = path.with_name(f".{secrets.token_hex(8)}{HALF}")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        stream = open(descriptor, "w+b")  # noqa: SIM115  the caller closes it
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return stream, temporary
        stream.close()  # swept before it was locked


def _refuse_other_kinds(path: Path) -> None:
    """Root may put a file in the place of /dev/null."""
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def _sync_folder(folder: Path) -> None:
    """A name is on the disk when its folder is."""
    with contextlib.suppress(OSError):  # not every file system opens folders
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync(descriptor: int) -> None:
    """Wait until all of an open file is on the disk."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
