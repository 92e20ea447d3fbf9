"""A cell's copy on an object store: what a machine without the cell's folder needs to go on with it.

Each file is one object, and an object is there whole or not at all. pyarrow is imported inside the functions.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import Any

from acdis.cells import attempts, schemas
from acdis.cells.cell import Cell
from acdis.errors import UserError
from acdis.files import HALF, write_bytes

#: Files that are about this machine only, or that the copy does not need.
_LEFT_OUT = ("lock", "stop.json", "error.txt", "before.pt")
#: Sent after all others, in this order: who finds a checkpoint finds the journal and the history that belong
#: to it, and who finds the state finds all of it.
_LAST = ("best.pt", "last.pt", "weights.pt", "state.json")
#: Written by whoever drives the training; what a worker was given of them is older.
_OURS = ("tracking.jsonl", "tracking.sent")
#: What a worker has written no word of: the driver's.
_DRIVERS = (*_OURS, "state.json")
#: Of no use when the training is over.
_PASSING = ("best.pt", "last.pt")
log = logging.getLogger(__name__)


class CellStore:
    """Where a cell is kept beside its folder: `<address>/cells/<name>/`.

    Args:
        address: what pyarrow's `FileSystem.from_uri` takes, such as s3://bucket/prefix. Credentials and
            AWS_ENDPOINT_URL come from the environment.
        driver: whether the caller drives the training; a worker sends its attempt's files and not the
            driver's, a driver the other way round.

    Raises:
        UserError: pyarrow knows no such address.
    """

    def __init__(self, address: str, cell: Cell, driver: bool = True) -> None:
        self.address, self.cell, self.driver = address, cell, driver
        self._files, root = _open(address)
        self._root = f"{root}/cells/{cell.name}"
        self._sent: dict[str, tuple[int, int]] = {}

    def push(self) -> bool:
        """Send what has changed; False where the store does not take it, which the log says.

        A training outlives a store that is away: what was not sent is sent with the next epoch.
        """
        try:
            self._push()
        except OSError as error:
            log.warning("%s: cannot be written now (%s)", self.address, _reason(error))
            return False
        return True

    def begin(self) -> None:
        """Before a training: `pull`, and see whether the store can be written to.

        Raises:
            UserError: it cannot be read or written.
        """
        self.pull()
        try:
            self._push()
        except OSError as error:
            raise self._refused("written", error) from None

    def pull(self) -> None:
        """Fetch what the folder lacks, everything if the copy has more epochs, and the state if it is newer.

        Raises:
            UserError: the store does not answer.
        """
        try:
            there = self._there()
            here, told = self.cell.state(), self._state(there)
            behind = int(told.get("done", 0)) > int(here.get("done", 0))
            if "weights.pt" in there or self.cell.weights.exists():
                there = [name for name in there if name not in _PASSING]
            for name in _in_order(there):
                missing = not (self.cell.folder / name).exists()
                if missing or (behind and name not in _OURS) or self._is_newer(name):
                    self._fetch(name)
        except OSError as error:
            raise self._refused("read", error) from None

    def refresh(self) -> None:
        """Take over what others on other machines say of the training; nothing where the store is away."""
        try:
            there = self._there(attempts.FOLDER)
            for name in (*there, *(() if self.driver else ("state.json",))):
                if self._is_newer(name):
                    self._fetch(name)
        except OSError:
            return

    def push_attempts(self) -> None:
        """Send what this worker says of its attempt; nothing where the store is away."""
        try:
            for name in self._changed():
                if name.startswith(f"{attempts.FOLDER}/"):
                    self._send(name)
        except OSError as error:
            log.warning("%s: cannot be written now (%s)", self.address, _reason(error))

    def _refused(self, what: str, error: OSError) -> UserError:
        return UserError(
            f"scaling.storage: {self.address} cannot be {what} ({_reason(error)}); check the address, "
            "AWS_ENDPOINT_URL and the credentials"
        )

    def _push(self) -> None:
        for name in self._changed():
            self._send(name)
        if self.cell.weights.exists():
            over = (*_PASSING, *(self._there(attempts.FOLDER) if self.driver else ()))
            self._remove([name for name in over if not (self.cell.folder / name).exists()])

    def _is_own(self, name: str) -> bool:
        """Whether this side may write the file; what is no driver's and no attempt's is whoever's trains."""
        of_attempt = name.startswith(f"{attempts.FOLDER}/")
        return not of_attempt if self.driver else name not in _DRIVERS

    def _is_newer(self, name: str) -> bool:
        """Whether the store's copy of a file that counts its changes has more of them."""
        if name != "state.json" and not name.startswith(f"{attempts.FOLDER}/"):
            return False
        try:
            here = schemas.read(self.cell.folder / name, schemas.State)
        except schemas.DamagedError:
            here = {}
        return bool(self._said(name).get("beat", 0) > here.get("beat", 0))

    def _changed(self) -> list[str]:
        files = {
            path.relative_to(self.cell.folder).as_posix(): path
            for path in self.cell.folder.rglob("*")
            if path.is_file() and not path.name.startswith(".") and path.name not in _LEFT_OUT
        }
        files = {name: path for name, path in files.items() if self._is_own(name)}
        return [name for name in _in_order(files) if self._sent.get(name) != _stamp(files[name])]

    def _send(self, name: str) -> None:
        path = self.cell.folder / name
        try:
            content, stamp = path.read_bytes(), _stamp(path)
        except FileNotFoundError:
            return  # removed since it was listed
        target = f"{self._root}/{name}"
        # An object store needs no folders. Elsewhere a file is moved into place, lest half of one be read.
        if self._plain:
            self._files.create_dir(target.rpartition("/")[0], recursive=True)
        aside = f"{target.rpartition('/')[0]}/.{secrets.token_hex(8)}{HALF}" if self._plain else target
        with self._files.open_output_stream(aside) as stream:
            stream.write(content)
        if self._plain:
            self._files.move(aside, target)
        self._sent[name] = stamp

    def _fetch(self, name: str) -> None:
        write_bytes(self.cell.folder / name, self._read(name))

    def _read(self, name: str) -> bytes:
        with self._files.open_input_stream(f"{self._root}/{name}") as stream:
            return bytes(stream.read())

    def _there(self, below: str = "") -> list[str]:
        from pyarrow import fs

        root = f"{self._root}/{below}" if below else self._root
        selector = fs.FileSelector(root, recursive=True, allow_not_found=True)
        listed = self._files.get_file_info(selector)
        names = [info.path.removeprefix(f"{self._root}/") for info in listed if info.type == fs.FileType.File]
        return [name for name in names if leads_inside(name) and not name.endswith(HALF)]

    def _state(self, there: list[str]) -> dict[str, Any]:
        said = {name: self._said(name) for name in there if name.startswith(f"{attempts.FOLDER}/")}
        state = self._said("state.json") if "state.json" in there else {}
        return attempts.over(state, attempts.latest(said))

    def _said(self, name: str) -> dict[str, Any]:
        """What such a file on the store says; nothing where it is damaged or gone."""
        try:
            return schemas.parse(self._read(name), f"{self.address}: {name}", schemas.State)
        except (schemas.DamagedError, FileNotFoundError):
            return {}

    def _remove(self, names: list[str]) -> None:
        there = set(self._there())
        for name in there.intersection(names):
            self._files.delete_file(f"{self._root}/{name}")

    @property
    def _plain(self) -> bool:
        return bool(self._files.type_name == "local")


def leads_inside(name: str) -> bool:
    """Whether an object's name is a file's below the cell's folder: keys of object stores may be anything."""
    return not {"", ".", ".."} & set(name.split("/")) and name.isprintable()


def store_of(cell: Cell, address: str | None, driver: bool = True) -> CellStore | None:
    """The cell's store; none where `scaling.storage` names none."""
    return CellStore(address, cell, driver) if address else None


def ray_storage(address: str | None, base: Path) -> str:
    """Where Ray keeps its own state of a run: a place that all nodes reach."""
    if address is None:
        return str(base / "ray")
    head, mark, query = address.partition("?")
    return f"{head.rstrip('/')}/ray{mark}{query}"


def remove_runs(address: str | None, base: Path, cell: Cell) -> None:
    """Remove what Ray has kept of a cell's trainings: nothing in it is read again. Hold the cell's lock."""
    from pyarrow import fs

    files, root = (fs.LocalFileSystem(), str(base)) if address is None else _open(address)
    try:
        listed = files.get_file_info(fs.FileSelector(f"{root}/ray", allow_not_found=True))
        for info in listed:
            if info.base_name.startswith(f"{cell.name}-"):
                files.delete_dir(info.path)
    except OSError as error:
        log.warning("%s: Ray's state cannot be removed (%s)", address or base, _reason(error))


def _open(address: str) -> tuple[Any, str]:
    from pyarrow import fs

    try:
        files, root = fs.FileSystem.from_uri(address)
    except (OSError, ValueError) as error:
        raise UserError(
            f"scaling.storage: {address!r} is no address of a store ({_reason(error)}); "
            "give one such as s3://bucket/prefix"
        ) from None
    return files, root.rstrip("/")


def _in_order(names: Any) -> list[str]:
    def place(name: str) -> int:
        if name.startswith(f"{attempts.FOLDER}/"):  # a worker's word of its state
            return len(_LAST)
        return _LAST.index(name) if name in _LAST else -1

    return sorted(names, key=lambda name: (place(name), name))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
