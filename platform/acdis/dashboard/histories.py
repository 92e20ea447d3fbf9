"""How trainings went, epoch by epoch, from the cells' folders or from MLflow; and a row's seeds together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from acdis.cells import read_json
from acdis.dashboard.state import SeenCell, Site
from acdis.dashboard.store import StoreAwayError
from acdis.evaluation.statistics import ALPHA
from acdis.tracking.epochs import epoch_values
from acdis.tracking.journal import EPOCHS, JOURNAL, epochs_of

#: Points of a curve: more than a chart has pixels for.
POINTS = 300
#: Characters of a name: MLflow takes no more.
LONGEST = 250
#: Values under these names are curves; `learning_rate` is one by itself.
LOSS, VALIDATION = "train/", "validation/"
_METRICS = (
    "SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = :run "
    "AND (key LIKE 'train/%' OR key LIKE 'validation/%') ORDER BY timestamp"
)
#: Values by epoch (from 1), under MLflow's names: `train/loss`, `validation/dice/WT/mean`.
Epochs = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class History:
    """Of one training.

    Attributes:
        epochs: [E], ascending.
        values: by name, [E]; NaN where an epoch has it not.
    """

    epochs: np.ndarray
    values: Mapping[str, np.ndarray]


def of(site: Site, look: SeenCell) -> History | None:
    """What is known of a cell's training; none before its first epoch."""
    try:
        folder = site.folders.cell(look.cell.cell).folder
    except LookupError:
        folder = None
    read = site.files.read
    if folder is not None:
        done = read(folder / "history.json", _written, None) or _newest(read, folder)
        if done is not None:
            history: History = done
            return history
    if look.run is None:
        return None
    try:
        return _arrays(_stored(site, look.run.id))
    except StoreAwayError:
        return None


def _newest(read: Callable[..., History | None], folder: Path) -> History | None:
    """While it is trained: the worker's file, or the journal of what an older version has begun."""
    return read(folder / EPOCHS, _told, None) or read(folder / JOURNAL, _told, None)


def _written(path: Path) -> History | None:
    """From `history.json`, which stands there at the end of a training."""
    by_epoch = {}
    entries = read_json(path).get("epochs")
    for entry in entries if isinstance(entries, list) else ():
        try:
            by_epoch[int(entry["epoch"])] = {
                name: float(value) for name, value in epoch_values(entry).items()
            }
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return _arrays(by_epoch)


def _told(path: Path) -> History | None:
    """From the journal, which grows with the training."""
    try:
        return _arrays(epochs_of(path.parent))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None


def _stored(site: Site, run: str) -> Epochs:
    by_epoch: dict[int, dict[str, float]] = {}
    for key, step, value, is_nan in site.store.rows(_METRICS, run=run):
        by_epoch.setdefault(int(step), {})[str(key)] = float("nan") if is_nan else float(value)
    return by_epoch


def _arrays(by_epoch: Epochs) -> History | None:
    if not by_epoch:
        return None
    epochs = sorted(by_epoch)
    every = {name for values in by_epoch.values() for name in values}
    names = sorted(name for name in every if name.startswith((LOSS, VALIDATION)) and len(name) <= LONGEST)
    values = {
        name: np.array([by_epoch[epoch].get(name, np.nan) for epoch in epochs], dtype=np.float64)
        for name in names
    }
    for curve in values.values():
        curve[~np.isfinite(curve)] = np.nan
    return History(np.array(epochs), values)


@dataclass(frozen=True)
class Curve:
    """One value over epochs, seeds together.

    Attributes:
        epochs: [E], those with a value in at least one seed.
        mean, low, high: [E]; low and high are NaN where one seed alone gives no interval.
        counts: [E], how many seeds have it.
    """

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray


def together(histories: Sequence[History], name: str, band: str) -> Curve | None:
    """Mean over seeds, epoch by epoch, with a band; none where no seed has the value.

    Args:
        band: `range`, the smallest and largest seed, or `ci`, the 95 % interval of the mean (Student's t).
    """
    having = [history for history in histories if name in history.values]
    if not having:
        return None
    epochs = np.unique(np.concatenate([history.epochs for history in having]))
    values = np.full((len(having), len(epochs)), np.nan)
    for line, history in zip(values, having, strict=True):
        line[np.searchsorted(epochs, history.epochs)] = history.values[name]
    known = ~np.isnan(values).all(axis=0)
    if not known.any():
        return None
    epochs, values = epochs[known], values[:, known]
    if len(epochs) > POINTS:
        kept = np.unique(np.linspace(0, len(epochs) - 1, POINTS).round().astype(int))
        epochs, values = epochs[kept], values[:, kept]
    low, high = (
        (np.nanmin(values, axis=0), np.nanmax(values, axis=0)) if band == "range" else _interval(values)
    )
    return Curve(epochs, np.nanmean(values, axis=0), low, high, (~np.isnan(values)).sum(axis=0))


def _interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of the mean over the first axis; NaN below two values."""
    count = (~np.isnan(values)).sum(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one value has no spread: NaN, as it should be
        spread = np.nanstd(values, axis=0, ddof=1)
    half = stdtrit(np.maximum(count - 1, 1), 1 - ALPHA / 2) * spread / np.sqrt(count)
    mean = np.nanmean(values, axis=0)
    return mean - half, mean + half
