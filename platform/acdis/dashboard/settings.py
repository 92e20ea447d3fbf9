"""What the server shows, from its environment: `mlflow server` passes no arguments on to its app."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from acdis import home
from acdis.errors import UserError
from acdis.report import strata

#: Spec files, with `:` between them; without it `ablations/*.yaml` of the checkout or the working directory.
SPECS_VARIABLE = "ACDIS_SPECS"
#: A CSV file with kinds of cases, as `report --strata` takes it.
STRATA_VARIABLE = "ACDIS_STRATA"
#: Where MLflow's command line leaves its options for the server's processes.
STORE_VARIABLE, PREFIX_VARIABLE = "_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_STATIC_PREFIX"


@dataclass(frozen=True)
class Settings:
    """Where things are.

    Attributes:
        base: ACDIS_HOME, which may not exist; none where the environment names none that can be used.
        uri: of the server's store; empty where it was started without one.
        specs: spec files that are shown although no cell of theirs has begun.
        prefix: `--static-prefix` of the server.
        groups: kinds of cases that tables tell apart, besides those that the truth shows.
    """

    base: Path | None
    uri: str
    specs: tuple[Path, ...]
    prefix: str = ""
    groups: strata.Groups = field(default_factory=dict)


def from_environment() -> Settings:
    """Of this server process.

    Raises:
        UserError: as `strata.read_groups`.
    """
    try:
        base = home.place()
    except UserError:
        base = None
    prefix = os.environ.get(PREFIX_VARIABLE, "").rstrip("/")
    named = os.environ.get(STRATA_VARIABLE)
    groups = strata.read_groups(Path(named)) if named else {}
    return Settings(base, os.environ.get(STORE_VARIABLE, ""), _specs(), prefix, groups)


def _specs() -> tuple[Path, ...]:
    given = os.environ.get(SPECS_VARIABLE)
    if given is not None:
        return tuple(Path(path) for path in given.split(os.pathsep) if path)
    return tuple(sorted(((home.checkout() or Path.cwd()) / "ablations").glob("*.yaml")))
