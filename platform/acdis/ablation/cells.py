"""A cell is one training. Its name is a hash of all that changes its weights; its folder is the truth."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis import config, files, home
from acdis.ablation import damage, notes
from acdis.config import Experiment
from acdis.errors import UserError

#: The parts of `data` that decide what the network sees; paths and splits count through the data fingerprint.
_DATA_KEYS = ("spacing", "min_size", "background", "crop", "lesion_crops", "augmentation")
#: Seconds that a training waits for a cell which is held: who asks `busy` has it for a moment.
PATIENCE = 1.0
STATE_LOCK = ".state.lock"
log = logging.getLogger(__name__)


def identity(experiment: Experiment, data_fingerprint: str, method_version: int) -> dict[str, Any]:
    """Everything that changes the weights, as plain values.

    Args:
        experiment: with the method's options resolved and precision not `auto`.
        data_fingerprint: of the cases that train and validate (content, preprocessing, split).
        method_version: raised by hand when a method's mathematics changes.
    """
    tree = experiment.model_dump(mode="json")
    training = tree["training"]
    # Without parents as it was before there were any, so that names stay.
    parts = ("name", "options", *(("parents",) if tree["method"]["parents"] else ()))
    chosen = {key: tree["method"][key] for key in parts}
    choosing: dict[str, Any] = {}
    if training["selection"] == "best":
        choosing = {"window": tree["evaluation"]["window"], "stride": tree["evaluation"]["stride"]}
    else:
        del training["validate_every"]  # only looks, when the last epoch is kept
    return {
        "seed": tree["seed"],
        "method": {**chosen, "version": method_version},
        "data": {key: tree["data"][key] for key in _DATA_KEYS} | {"fingerprint": data_fingerprint},
        "training": training,
        "choosing": choosing,
    }


def cell_name(experiment: Experiment, data_fingerprint: str, method_version: int) -> str:
    """`<method>-<12 hex>` of a SHA-256 over the canonical `identity`."""
    return f"{experiment.method.name}-{digest(identity(experiment, data_fingerprint, method_version))}"


def evaluation_name(experiment: Experiment, test_fingerprint: str) -> str:
    """An evaluation has a name of its own: how it scores, and which cases."""
    return digest({"evaluation": experiment.evaluation.model_dump(mode="json"), "cases": test_fingerprint})


def digest(tree: Any) -> str:
    """12 hex of a SHA-256 over canonical JSON."""
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


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

    def state(self) -> dict[str, Any]:
        """What the cell is doing; empty before it started."""
        state = notes.read(self.folder / "state.json", notes.State)
        return {key: value for key, value in state.items() if value is not None}

    def update(self, **changes: Any) -> None:
        """Change some keys of the state; those that become None are dropped."""
        self._write_state(lambda state: state | changes)

    def begin(self, **state: Any) -> None:
        """A new attempt: what an earlier one said about itself is forgotten."""
        kept = ("evaluation", "done")
        self._write_state(lambda before: {key: before[key] for key in kept if key in before} | state)

    def _write_state(self, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Put what `changed` makes of the state in its place. `beat` counts the changes, since clocks differ.

        A damaged state gives way: what it said is lost already, and the cell's weights do not depend on it.
        """
        with files.locked(self.folder / STATE_LOCK, remove=True):
            try:
                before = self.state()
            except notes.DamagedError as error:
                log.warning("%s", error)
                before = {}
            after = changed(before) | {"beat": before.get("beat", 0) + 1, "updated": time.time()}
            known = {key: value for key, value in after.items() if value is not None}
            notes.write(self.folder / "state.json", notes.State, known)

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

    def busy(self) -> bool:
        """Whether a process is training this cell."""
        return files.is_held(self.folder / "lock")

    def roles(self) -> list[dict[str, Any]]:
        """Rows of specs that this cell serves, the first one first: `spec`, `table`, `row`, `seed`."""
        return notes.read(self.folder / "roles.json", notes.Roles).get("roles", [])

    def add_role(self, **role: Any) -> None:
        """Note that a spec's row is trained here; a role that is noted already is not noted twice."""
        if role in self.roles():
            return
        with files.locked(self.folder / ".roles.lock", remove=True):
            roles = [each for each in self.roles() if each != role]
            notes.write(self.folder / "roles.json", notes.Roles, {"roles": [*roles, role]})

    def experiment(self, overrides: Sequence[str] = ()) -> Experiment:
        """The resolved experiment that it was trained with.

        Raises:
            UserError: the file is damaged, or an override is wrong.
        """
        damage.check_configuration(self.folder / "config.yaml")
        return config.load(self.folder / "config.yaml", overrides)

    def damage(self) -> list[str]:
        """What is wrong with its small files, a line each: what is lost and what to do."""
        return list(damage.find(self.folder).values())

    def history(self) -> list[dict[str, Any]]:
        """One entry an epoch."""
        return notes.read(self.folder / "history.json", notes.History).get("epochs", [])

    def validations(self) -> dict[int, dict[str, float]]:
        """Scores on the validation cases by epoch (from 1), of those that were validated."""
        epochs = notes.read(self.folder / "history.json", notes.Validations).get("epochs", [])
        return {entry["epoch"]: entry["validation"] for entry in epochs if entry["validation"]}

    def hours(self) -> dict[str, float]:
        """What its training took so far; see `hours_of`."""
        return hours_of(notes.read(self.folder / "history.json", notes.Times).get("epochs", []), self.state())

    def lineage(self) -> dict[str, Any]:
        """`tags`, where it comes from, and `splits`, which cases did what."""
        return notes.read(self.folder / "lineage.json", notes.Lineage)

    def test_cases(self) -> list[str]:
        """Names of the cases that it was to be scored on; it has learned from none of them."""
        return self.lineage().get("splits", {}).get("test", [])


def hours_of(epochs: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> dict[str, float]:
    """What a training took: the one count for report, dashboard, status and MLflow.

    Each epoch's time with the workers that it had: an elastic training loses and regains some.

    Args:
        epochs: of `history.json`.
        state: of `state.json`: CPUs or GPUs of a worker, and workers where an epoch does not say.

    Returns:
        {"gpu" or "cpu": hours of all workers}; empty before the first epoch.
    """
    if not epochs:
        return {}
    seconds = sum(entry["seconds"] * (entry.get("workers") or state.get("workers", 1)) for entry in epochs)
    kind, count = ("gpu", state["gpus"]) if state.get("gpus") else ("cpu", state.get("cpus", 1))
    return {kind: seconds / 3600 * count}


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
    if damage.find(cell.folder) or not (cell.folder / "config.yaml").exists():
        with files.locked(cell.folder / STATE_LOCK, remove=True):  # another may be at it, or has just been
            _write_what_lacks(cell, experiment, details)
    return cell


def _write_what_lacks(cell: Cell, experiment: Experiment, details: dict[str, Any]) -> None:
    for problem in damage.move_aside(cell.folder):
        log.warning("%s", problem)
    if not (cell.folder / "lineage.json").exists():
        begun = any((cell.folder / name).exists() for name in ("weights.pt", "last.pt"))
        files.write_json(cell.folder / "lineage.json", details | ({"tags": {}} if begun else {}))
    if not (cell.folder / "config.yaml").exists():
        files.write_text(cell.folder / "config.yaml", config.dump(experiment))


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
    if not cell.weights.exists():
        raise UserError(
            f"{cell.name}: has no final weights yet (state: "
            f"{cell.state().get('status', 'not started')}); train it first"
        )
    return cell


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's mapping; empty where there is no file.

    Raises:
        UserError: it is damaged.
    """
    return notes.read_mapping(path)
