"""Whether what specs ask for can ever be placed on a cluster; reckoned from files alone, without data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acdis import config
from acdis.ablation import search
from acdis.ablation.spec import Spec, experiment_of
from acdis.cluster.growth import of_file
from acdis.cluster.resources import Resources
from acdis.cluster.session import share
from acdis.config import Scaling
from acdis.errors import UserError
from acdis.verbs.specs import load_specs


def fit_specs(specs: Sequence[Spec], found: Resources) -> None:
    """Check every row of specs.

    Raises:
        UserError: a row's workers can never be placed; the sum is shown.
    """
    for spec in specs:
        draft = config.draft(spec.base, spec.overrides)
        for row in spec.rows:
            fit(f"{spec.path}, row {row.id!r}", experiment_of(draft, row).scaling, found)


def fit_file(path: Path, experiment: Path | None, cluster: Path) -> None:
    """Check a spec or a search file, on another experiment than its own if one is given.

    Raises:
        UserError: as `fit_specs`; or one of the files is wrong.
    """
    found = of_file(cluster)
    if "search" in config.read_yaml(path):
        wanted = search.load(path, experiment, ())
        fit(str(path), wanted.experiment(wanted.first).scaling, found)
    else:
        fit_specs(load_specs([path], experiment), found)


def fit(who: str, scaling: Scaling, found: Resources) -> None:
    """Check one cell's workers.

    Raises:
        UserError: they can never be placed; the sum is shown.
    """
    try:
        share(found.nodes, scaling)
    except UserError as error:
        raise UserError(f"{who}: can never be scheduled on {found.source}: {error}") from None
