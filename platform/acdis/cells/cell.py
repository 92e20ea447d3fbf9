"""A cell is one training. Its name is a hash of all that changes its weights; its folder is the truth."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis import config, files, home
from acdis.cells import attempts, damage, schemas
from acdis.cells.hours import hours_of, summed
from acdis.cells.naming import EXTERNAL
from acdis.config import Experiment
from acdis.errors import UserError

#: Seconds that a training waits for a cell which is held: who asks `busy` has it for a moment.
PATIENCE = 1.0
STATE_LOCK = ".state.lock"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """The folder of one cell. Files are replaced atomically, so that a reader never sees half of one."""

    folder: Path

    @property
    def name(self) -> str:
        """`<method>-<12 hex>`."""
        return self.folder.name

    @property
    def weights(self) -> Path:
        """Final weights, for inference."""
        return self.folder / "weights.pt"

    @property
    def evaluations(self) -> Path:
        """One folder per evaluation."""
        return self.folder / "evaluations"

    def records(self, evaluation: str) -> Path:
        """Where the scores of every case lie, of the evaluation of that name."""
        return self.evaluations / evaluation / "records.parquet"

    def state(self) -> dict[str, Any]:
        """What the cell is doing: its driver's word, and over it its workers'; empty before it started."""
        attempt = attempts.told(self.folder)
        return attempts.over(schemas.read(self.folder / "state.json", schemas.State), attempt)

    def update(self, **changes: Any) -> None:
        """Change some keys of the state; those that become None are dropped. Of whoever drives the cell.

        What its workers have said is taken over; who of them is still at it ends, see `attempts`.
        """
        self._write_state(lambda state: state | changes)

    def begin(self, **state: Any) -> None:
        """A new attempt: what an earlier one said about itself is forgotten."""
        kept = ("evaluation", "done")
        self._write_state(lambda before: {key: before[key] for key in kept if key in before} | state)

    def _write_state(self, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Put what `changed` makes of the state in its place. `beat` counts the changes, since clocks differ.

        The lock is among the drivers of one host; workers, which may be elsewhere, have files of their own.
        A damaged state gives way: what it said is lost already, and the cell's weights do not depend on it.
        """
        with files.locked(self.folder / STATE_LOCK, remove=True):
            try:
                before = self.state()
            except schemas.DamagedError as error:
                log.warning("%s", error)
                before = {}
            after = changed(before) | {"beat": before.get("beat", 0) + 1, "updated": time.time()}
            taken = max(before.get("taken", 0), attempts.highest(self.folder))
            if taken:
                after["taken"] = taken
            known = {key: value for key, value in after.items() if value is not None}
            schemas.write(self.folder / "state.json", schemas.State, known)
            attempts.remove(self.folder, taken)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second process from training the same cell.

        Raises:
            UserError: another process does.
        """
        path = self.folder / "lock"
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(files.locked(path, PATIENCE))
            except files.HeldError:
                raise UserError(
                    f"{self.name}: {files.holder(path)} is training this cell; wait for it, or change seed"
                ) from None
            files.sweep(self.folder)
            yield

    def check_writable(self) -> None:
        """Before anything is started: a training in a process of its own has nowhere to say it.

        Raises:
            UnwritableError: its folder cannot be written to.
        """
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise files.UnwritableError(self.folder, OSError(errno.EACCES, os.strerror(errno.EACCES)))

    def busy(self) -> bool:
        """Whether a process is training this cell."""
        return files.is_held(self.folder / "lock")

    def roles(self) -> list[dict[str, Any]]:
        """Rows of specs that this cell serves, the first one first: `spec`, `table`, `row`, `seed`."""
        return schemas.read(self.folder / "roles.json", schemas.Roles).get("roles", [])

    def known_roles(self) -> list[dict[str, Any]]:
        """As `roles`, and none where the file is damaged: who only lists the cell goes on without."""
        try:
            return self.roles()
        except schemas.DamagedError as error:
            log.warning("%s", error)
            return []

    def add_role(self, **role: Any) -> None:
        """Note that a spec's row is trained here; a role that is noted already is not noted twice.

        A damaged file gives way, which the log says.
        """
        path = self.folder / "roles.json"
        with contextlib.suppress(schemas.DamagedError):
            if role in self.roles():
                return
        with files.locked(self.folder / ".roles.lock", remove=True):
            roles = [noted for noted in self.known_roles() if noted != role]
            schemas.write(path, schemas.Roles, {"roles": [*roles, role]})

    def experiment(self, overrides: Sequence[str] = ()) -> Experiment:
        """The resolved experiment that it was trained with.

        Raises:
            UserError: the file is damaged, or an override is wrong.
        """
        damage.check_configuration(self.folder / "config.yaml")
        return config.load(self.folder / "config.yaml", overrides)

    def family(self) -> tuple[list[Cell], list[str]]:
        """This cell and those that its weights come from: its parents, theirs and so on; and who is not here.

        Raises:
            UserError: a configuration is damaged.
        """
        here, absent, left = [self], [], [self]
        while left:
            child = left.pop()
            if child.lineage().get("names") == "sha256":  # imported: what its parents saw stands there too
                continue
            for name in child.experiment().method.parents.values():
                parent = Cell(self.folder.parent / name)
                if not parent.folder.is_dir():
                    absent.append(name)
                elif parent not in here:
                    here.append(parent)
                    left.append(parent)
        return here, absent

    def damage(self) -> list[str]:
        """What is wrong with its small files, a line each: what is lost and what to do."""
        return list(damage.find(self.folder).values())

    def history(self) -> list[dict[str, Any]]:
        """One entry an epoch."""
        return schemas.read(self.folder / "history.json", schemas.History).get("epochs", [])

    def validations(self) -> dict[int, dict[str, float]]:
        """Scores on the validation cases by epoch (from 1), of those that were validated."""
        epochs = schemas.read(self.folder / "history.json", schemas.Validations).get("epochs", [])
        return {entry["epoch"]: entry["validation"] for entry in epochs if entry["validation"]}

    def hours(self) -> dict[str, float]:
        """What its training took so far, its parts' included; see `hours_of`."""
        told = schemas.read(self.folder / "history.json", schemas.Times)
        parts = [Cell(self.folder.parent / Path(part).name) for part in told.get("parts", [])]
        return summed(
            [hours_of(told.get("epochs", []), self.state()), *(part._own_hours() for part in parts)]
        )

    def _own_hours(self) -> dict[str, float]:
        return hours_of(
            schemas.read(self.folder / "history.json", schemas.Times).get("epochs", []), self.state()
        )

    def capacity(self) -> dict[str, float]:
        """How large its method is and what a step takes, where known.

        `parameters`, `parameters_inference`, `window_voxels`; per voxel of such a window `multiply_adds` and
        `multiply_adds_subsets`, see `training.capacity`; of a training step `peak_bytes` and `step_seconds`.
        """
        return schemas.read(self.folder / "history.json", schemas.Capacity).get("capacity", {})

    def lineage(self) -> dict[str, Any]:
        """`tags`, where it comes from, and `splits`, which cases did what."""
        return schemas.read(self.folder / "lineage.json", schemas.Lineage)

    def test_cases(self) -> list[str]:
        """Names of the cases that it was to be scored on; it has learned from none of them."""
        return self.lineage().get("splits", {}).get("test", [])


def create(base: Path, name: str, experiment: Experiment, details: dict[str, Any]) -> Cell:
    """The cell's folder with its resolved configuration; an existing one is left as it is.

    Damaged files are moved aside, which the log says, and written again where that can be done. What is lost
    of an older training's `details` is not made up from today's.

    Raises:
        UserError: the folder is a symbolic link to somewhere else.
    """
    cell = _inside(base, name)
    try:
        cell.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.UnwritableError(cell.folder, error) from None
    if not cell.busy():  # a finished cell that another row takes may be killed at, and nobody trains it again
        files.sweep(cell.folder)
    if damage.find(cell.folder, whole=True) or not (cell.folder / "config.yaml").exists():
        with files.locked(cell.folder / STATE_LOCK, remove=True):  # another may be at it, or has just been
            for problem in damage.move_aside(cell.folder):
                log.warning("%s", problem)
            if not (cell.folder / "lineage.json").exists():
                begun = any((cell.folder / weights).exists() for weights in ("weights.pt", "last.pt"))
                files.write_json(cell.folder / "lineage.json", details | ({"tags": {}} if begun else {}))
            if not (cell.folder / "config.yaml").exists():
                files.write_text(cell.folder / "config.yaml", config.dump(experiment))
    return cell


def borrowed(base: Path, cell: Cell) -> Cell:
    """The cell, where its folder can be written to; else a copy in the home, to be scored there.

    Raises:
        UserError: it cannot be copied.
    """
    if os.access(cell.folder, os.W_OK | os.X_OK):
        return cell
    own = _inside(base, cell.name)
    if own.weights.exists():
        return own
    for name in (
        "lineage.json",
        "history.json",
        "config.yaml",
        cell.weights.name,
    ):  # the weights are the last
        try:
            content = (cell.folder / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"{cell.folder / name}: cannot be read ({files.reason(error)})") from None
        files.write_bytes(own.folder / name, content)
    return own


def _inside(base: Path, name: str) -> Cell:
    cell = Cell(home.cells(base) / name)
    if not cell.folder.resolve().is_relative_to(home.cells(base).resolve()):
        raise UserError(f"{cell.folder}: leads out of {home.cells(base)}; remove the symbolic link")
    return cell


def find(base: Path, run: str) -> Cell:
    """A cell by its name, the beginning of its name, or its folder.

    Raises:
        UserError: none or several match.
    """
    folder = Path(run)
    if os.path.isfile(folder / "config.yaml"):  # unlike pathlib's it is false for names that cannot be
        return Cell(folder.resolve())
    every = sorted(path.parent for path in home.cells(base).glob("*/config.yaml"))
    matches = [path for path in every if path.name.startswith(run)]
    if len(matches) == 1:
        return Cell(matches[0])
    known = ", ".join(path.name for path in every[:8]) or "none yet"
    reason = (
        ("names several cells: ") + ", ".join(path.name for path in matches) if matches else "names no cell"
    )
    raise UserError(f"{run}: {reason}; cells in {home.cells(base)}: {known}")


def find_trained(base: Path, run: str) -> Cell:
    """As `find`, and it has its final weights.

    Raises:
        UserError: none or several match, or the training has not ended.
    """
    cell = find(base, run)
    if cell.name.startswith(f"{EXTERNAL}-"):
        raise UserError(f"{cell.name}: holds scores of another tool's predictions, and no weights")
    if not cell.weights.exists():
        raise UserError(
            f"{cell.name}: has no final weights yet (state: "
            f"{cell.state().get('status', 'missing')}); train it first"
        )
    return cell


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's mapping; empty where there is no file.

    Raises:
        UserError: it is damaged.
    """
    return schemas.read_mapping(path)
