"""Reading files that others have written: no more than they may hold, and nothing that never ends."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

#: Most bytes of a text that people write (specs, experiments, splits): PyYAML takes 10 s for a megabyte.
TEXT = 2**17


class TooLargeError(ValueError):
    """A file holds more than any file of its kind does; the message says how much."""


def read(path: Path, most: int) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: it cannot be read, or is a pipe, a device or a folder: reading those may never end.
        TooLargeError: it holds more than `most` bytes; no more than those are ever read.
    """
    try:
        descriptor = os.open(
            path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        )  # a pipe would wait for a writer
    except ValueError:  # a NUL in the name
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        if status.st_size > most:
            raise TooLargeError(f"holds {status.st_size:,} bytes, {most:,} at most")
        content = stream.read(most + 1)
    if content is None:  # some files of /proc are pipes in truth
        raise OSError(errno.EAGAIN, "Nothing to read yet", str(path))
    if len(content) > most:  # it has grown, or is a file of /proc, which all have size 0
        raise TooLargeError(f"holds more than {most:,} bytes")
    return content
