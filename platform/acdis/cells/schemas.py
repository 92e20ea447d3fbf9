"""What the small JSON files of a cell may say.

They are read after full disks, by other versions, and were perhaps edited by hand: their types are checked
before anything counts on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from acdis import files
from acdis.config import find_problems
from acdis.errors import UserError

#: Most bytes of such a file: a history of 10,000 epochs takes 10 MB.
LARGEST = 2**25


#: What is lost with a file, and what brings back the rest. Weights and scores are in files of their own.
_ADVICE = {
    "state.json": "weights and scores stay; `train` or `ablate` of the cell writes it again",
    "roles.json": "`ablate` of its specs notes again which rows it serves",
    "config.yaml": "weights and scores stay; `train` or `ablate` of the cell writes it again",
    "lineage.json": "commit and versions of its training are lost; `train` or `ablate` of the cell writes "
    "again which cases did what",
    "history.json": "`train` or `ablate` of the cell writes its epochs again, from its journal",
}
_OTHER = "remove it; the command that needs it makes it again"


class DamagedError(UserError, ValueError):
    """A file of a cell is not as the platform writes it."""


class Note(BaseModel):
    """Any mapping. Other keys are let through: another version may have written them."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)


class State(Note):
    """`state.json`: what the cell is doing, and what it has measured."""

    status: str | None = None
    reason: str | None = None
    user_error: bool = False
    epoch: PositiveInt | None = None
    epochs: PositiveInt | None = None
    step: NonNegativeInt | None = None
    steps: PositiveInt | None = None
    done: NonNegativeInt | None = None
    scored: NonNegativeInt | None = None
    cases: NonNegativeInt | None = None
    loss: float | None = None
    workers: PositiveInt | None = None
    cpus: float | None = Field(None, ge=0, allow_inf_nan=False)
    gpus: float | None = Field(None, ge=0, allow_inf_nan=False)
    device: str | None = Field(None, max_length=500)
    resumed_at: NonNegativeInt | None = None
    peak_bytes: NonNegativeInt | None = None
    updated: FiniteFloat | None = None
    beat: NonNegativeInt = 0
    taken: NonNegativeInt = 0
    step_seconds: float | None = Field(None, ge=0, lt=1e9)
    projected_seconds: float | None = Field(None, ge=0, lt=1e12)
    loop_seconds: float | None = Field(None, ge=0, lt=1e12)
    evaluation: str | None = None
    run_id: str | None = None
    validation: dict[str, float] = {}

    @model_validator(mode="after")
    def _together(self) -> State:
        """What is told in one go is read in one go."""
        groups = {"step": ("epoch", "epochs", "steps"), "steps": ("epochs",), "scored": ("cases",)}
        for key, others in groups.items():
            lacking = [other for other in others if getattr(self, other) is None]
            if getattr(self, key) is not None and lacking:
                raise ValueError(f"{key} without {lacking[0]}")
        if self.status == "scoring" and self.scored is None:
            raise ValueError("status 'scoring' without scored")
        return self


class Role(Note):
    spec: str
    table: str | None = None
    row: str
    seed: int


class Roles(Note):
    """`roles.json`: the rows of specs that the cell serves."""

    roles: Annotated[list[Role], FailFast()] = []


class Epoch(Note):
    epoch: PositiveInt
    terms: dict[str, float]
    learning_rate: float
    seconds: float = Field(ge=0, lt=1e9)
    validation: dict[str, float]


class History(Note):
    """`history.json`: one entry an epoch."""

    epochs: Annotated[list[Epoch], FailFast()] = []


class Scored(Note):
    epoch: PositiveInt
    validation: dict[str, float]


class Validations(Note):
    """`history.json`, for who asks for the scores of its epochs and nothing else."""

    epochs: Annotated[list[Scored], FailFast()] = []


class Time(Note):
    seconds: float = Field(ge=0, lt=1e9)
    workers: PositiveInt | None = None


class Times(Note):
    """`history.json`, for who asks what it took and nothing else."""

    epochs: Annotated[list[Time], FailFast()] = []
    parts: Annotated[list[str], FailFast()] = []


class Capacity(Note):
    """`history.json`, for who asks how large the method is."""

    capacity: dict[str, Annotated[float, Field(ge=0, lt=1e18)]] = {}


class Splits(Note):
    train: Annotated[list[str], FailFast()] = []
    validation: Annotated[list[str], FailFast()] = []
    test: Annotated[list[str], FailFast()] = []


class Lineage(Note):
    """`lineage.json`: where the cell comes from, and which cases did what."""

    tags: dict[str, str] = {}
    splits: Splits = Splits()
    voxels: dict[str, str] = {}  # SHA-256 of the images of each case that it learned from
    patients: dict[str, str] = {}  # of these cases
    fingerprints: dict[str, str] = {}  # of all cases that it has learnt from, and that it was scored on
    names: Literal["", "sha256"] = ""  # of an imported cell names of cases and patients are hashes
    labels: dict[
        str, Literal["background", "NCR", "ED", "ET"]
    ] = {}  # of the data set, by value, where names do not tell
    training_spacing_mm: float | None = Field(None, gt=0, le=100)


def read(path: Path, kind: type[BaseModel]) -> dict[str, Any]:
    """The plain values of a file that says what `kind` says; empty where there is no file.

    Raises:
        DamagedError: with file, key and what to do.
    """
    try:
        content = _content(path)
    except FileNotFoundError:
        return {}
    return parse(content, str(path), kind)


def parse(content: bytes, source: str, kind: type[BaseModel]) -> dict[str, Any]:
    """The plain values of what such a file holds; `source` names it in errors, as `read` does."""
    tree = _mapping(content, source)
    try:
        kind.model_validate(tree)
    except ValidationError as error:
        _, phrase = find_problems(error, kind)[0]
        raise damaged(source, phrase) from None
    return tree


def write(path: Path, kind: type[BaseModel], tree: dict[str, Any]) -> None:
    """Replace a file. What `read` would not take is not written: it raises pydantic's ValidationError."""
    kind.model_validate(tree)
    files.write_json(path, tree)


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON file's mapping, whatever is in it; empty where there is no file.

    Raises:
        DamagedError: it cannot be read, or is no JSON mapping.
    """
    try:
        return _mapping(_content(path), str(path))
    except FileNotFoundError:
        return {}


def _content(path: Path) -> bytes:
    """Raises FileNotFoundError as it is, for who takes that for an empty mapping."""
    try:
        return files.read(path, LARGEST)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({files.reason(error)})") from None
    except files.TooLargeError as error:
        raise damaged(str(path), str(error)) from None


def _mapping(content: bytes, source: str) -> dict[str, Any]:
    try:
        tree = files.json_of(content)
    except ValueError as error:
        raise damaged(source, str(error)[:200]) from None
    if not isinstance(tree, dict):
        raise damaged(source, f"holds a {type(tree).__name__} where a mapping is due")
    return tree


def damaged(source: str, why: str) -> DamagedError:
    """What is wrong with the file `source`, what is lost with it, and what to do."""
    return DamagedError(f"{source}: is damaged ({why}); {_ADVICE.get(source.rpartition('/')[2], _OTHER)}")
