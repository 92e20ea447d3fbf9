"""What a file on the command line is, and which verb takes it: told before it is read as something else."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from acdis.ablation.search_file import SearchFile
from acdis.ablation.spec_file import SpecFile
from acdis.config import Experiment
from acdis.config.extends import chain
from acdis.errors import UserError

Kind = Literal["experiment", "spec", "search", "bundle"]

_IS: dict[Kind, str] = {
    "experiment": "an experiment (one training)",
    "spec": "a spec (a table of trainings)",
    "search": "a search file",
    "bundle": "a bundle",
}
_VERBS: dict[Kind, str] = {
    "experiment": "`train {0}` trains it; to run a spec on it: `ablate SPEC --experiment {0}`",
    "spec": "`plan {0}` says what it takes, `ablate {0}` trains it, `report {0}` shows its tables",
    "search": "`search {0}` runs it",
    "bundle": "`report {0}` shows what it holds",
}
#: Keys that no file of another kind has; `title`, `base` and `set` are those of specs and of searches.
_ONLY: dict[Kind, frozenset[str]] = {
    "experiment": frozenset(Experiment.model_fields),
    "spec": frozenset(SpecFile.model_fields) - frozenset(SearchFile.model_fields),
    "search": frozenset({"search"}),
}


def kind_of(path: Path) -> Kind | None:
    """By the keys of a file and of those that it extends; none where they leave it open or cannot be read."""
    if path.suffix.lower() == ".zip":
        return "bundle"
    try:
        keys = {str(key) for document in chain(path) for key in document.tree}
    except UserError:  # whoever reads it in earnest says so
        return None
    fitting = [kind for kind, own in _ONLY.items() if keys & own]
    return fitting[0] if len(fitting) == 1 else None


def expect(path: Path, wanted: Kind) -> None:
    """Let files of this kind pass, and those of which nothing is known.

    Raises:
        UserError: it is of another kind; with the verb that takes it.
    """
    kind = kind_of(path)
    if kind not in (None, wanted):
        raise UserError(f"{path}: is {_IS[kind]}, not {_IS[wanted]}; {_VERBS[kind].format(path)}")
