"""Floors of one evaluation: measured on prepared cases, kept beside the per-case records as `floors.json`.

Measuring takes seconds and is done once for a data set: the cache keeps it for the other cells of a table.
Reading takes neither torch nor monai.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from acdis import files
from acdis.config import find_problems
from acdis.data.fingerprints import data_fingerprint
from acdis.data.prepared_case import Entry
from acdis.errors import UserError
from acdis.evaluation import floors
from acdis.evaluation.floors import Given, Rule, Scan, Thresholds, given
from acdis.evaluation.metrics import DICE_EPSILON, Mask, region_mask
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

FILE = "floors.json"
#: Voxels of the training and the test cases together, beyond which nothing is measured: 40 cases at 2 mm.
MOST_VOXELS = 20_000_000
#: Bytes and cases of a file that is read.
LARGEST, MOST_CASES = 2**23, 1000
#: To be raised whenever the same cases give other floors.
VERSION = 1
log = logging.getLogger(__name__)

Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[list[Share], FailFast(), Field(min_length=1, max_length=MOST_CASES)]


@dataclass(frozen=True)
class Floors:
    """Dice of what has learned nothing, on the test cases of one evaluation.

    Attributes:
        trained: cases that the rule was fitted on.
        rule: its thresholds; none where the training cases were not at hand.
        cases: N names, in the order of the arrays.
        brain: [N, 3], the whole brain as tumour: the same for every subset.
        fitted: [N, 15, 3], the threshold rule; none as `rule`.
    """

    trained: int
    rule: Rule | None
    cases: tuple[str, ...]
    brain: np.ndarray
    fitted: np.ndarray | None


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    t: float | None
    u: float | None
    w: float | None


class _Dice(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    WT: Shares
    TC: Shares
    ET: Shares


class _File(BaseModel):
    """What `write` writes; keyed by `vocabulary.subset_name`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    version: Literal[1]
    trained: Annotated[int, Field(ge=0, le=1_000_000)]
    cases: Annotated[list[str], FailFast(), Field(min_length=1, max_length=MOST_CASES)]
    brain: _Dice
    thresholds: dict[str, _Limits] | None
    rule: dict[str, _Dice] | None


def measure(
    train: Sequence[Entry], test: Sequence[Entry], background: str, rule: Rule | None = None
) -> Floors | None:
    """Floors on the test cases, at their own spacing; none for more than `MOST_VOXELS` or `MOST_CASES`.

    Args:
        train: cases to fit the rule on; none: `rule` is used, and without it the brain stands alone.
        background: of `data.background`, by which the brain is known.
    """
    voxels = sum(math.prod(entry.meta.box.shape) for entry in (*train, *test))
    if not test or voxels > MOST_VOXELS or len(test) > MOST_CASES:
        return None
    if train:
        rule = floors.fit([scan(entry, background) for entry in train])
    brain = np.empty((len(test), 3))
    fitted = None if rule is None else np.empty((len(test), len(SUBSETS), 3))
    for place, entry in enumerate(test):
        case = scan(entry, background)
        brain[place] = _scored(entry, floors.whole_brain(case))
        if rule is not None and fitted is not None:
            known: dict[Given, list[float]] = {}
            for number, subset in enumerate(SUBSETS):
                if given(subset) not in known:
                    known[given(subset)] = _scored(entry, floors.regions(case, rule, subset))
                fitted[place, number] = known[given(subset)]
    return Floors(len(train), rule, tuple(entry.name for entry in test), brain, fitted)


def scan(entry: Entry, background: str) -> Scan:
    """A prepared case, its brain where an image differs from the background."""
    images = np.array(entry.images())
    outside = images[:, :1, :1, :1] if background == "normalised" else np.float32(0)
    brain = (images != outside).any(axis=0)
    return Scan(images, brain, np.array(entry.labels()), entry.meta.spacing, entry.modalities)


def _scored(entry: Entry, masks: Sequence[Mask]) -> list[float]:
    """Dice of WT, TC and ET against the case's own labels; masks come back to its grid as predictions do."""
    import torch

    from acdis.data.preprocess import to_native_region

    region, where = to_native_region(torch.from_numpy(np.stack(masks)).float(), entry.meta)
    truth = entry.native_labels()
    scores: list[float] = []
    for mask, name in zip((region > 0.5).numpy(), REGIONS, strict=True):
        overlap = np.count_nonzero(mask & region_mask(truth[where], name))
        voxels = np.count_nonzero(mask) + np.count_nonzero(region_mask(truth, name))
        scores.append(float((2 * overlap + DICE_EPSILON) / (voxels + DICE_EPSILON)))
    return scores


def kept(cache: Path, train: Sequence[Entry], test: Sequence[Entry], background: str) -> Floors | None:
    """`measure`, once for these cases: whoever comes second waits and reads.

    Args:
        cache: of prepared cases, which keeps this too.
    """
    mark = f"{data_fingerprint(train)[:16]}-{data_fingerprint(test)[:16]}-{background}-v{VERSION}"
    path = cache / ".floors" / f"{mark}.json"
    with files.locked(path.with_suffix(".lock")):
        files.sweep(path.parent)
        known = usable(path)
        if known is None and (known := measure(train, test, background)):
            write(path, known)
    return known


def usable(path: Path) -> Floors | None:
    """As `read`, and none for a damaged file, which the log names: a score means something without floors."""
    try:
        return read(path)
    except UserError as error:
        log.warning("%s", error)
        return None


def place(folder: Path, cache: Path, train: Sequence[Entry], test: Sequence[Entry], background: str) -> None:
    """Have `floors.json` in an evaluation's folder, before its records are there."""
    if usable(folder / FILE) is None and (measured := kept(cache, train, test, background)):
        write(folder / FILE, measured)


def place_again(folder: Path, before: Iterable[Path], test: Sequence[Entry], background: str) -> None:
    """The same on other cases, with the rule that was fitted when the cell was trained.

    Args:
        before: folders of the cell's evaluations.
    """
    if usable(folder / FILE) is not None:
        return
    known = [earlier for earlier in map(usable, (path / FILE for path in before)) if earlier and earlier.rule]
    measured = measure((), test, background, known[0].rule if known else None)
    if measured:
        write(folder / FILE, replace(measured, trained=known[0].trained if known else 0))


def write(path: Path, measured: Floors) -> None:
    """Replace a file with what `read` gives back."""
    files.write_bytes(path, dump(measured))


def dump(measured: Floors) -> bytes:
    """What `parse` gives back."""
    return json.dumps(_tree(measured), indent=1).encode()


def _tree(measured: Floors) -> dict[str, Any]:
    def dice(scores: np.ndarray) -> dict[str, list[float]]:
        return {region: scores[:, place].tolist() for place, region in enumerate(REGIONS)}

    names = [subset_name(subset) for subset in SUBSETS]
    return {
        "version": VERSION,
        "trained": measured.trained,
        "cases": list(measured.cases),
        "brain": dice(measured.brain),
        "thresholds": None
        if measured.rule is None
        else {
            subset_name(subset): {key: getattr(measured.rule[given(subset)], key) for key in ("t", "u", "w")}
            for subset in SUBSETS
        },
        "rule": None
        if measured.fitted is None
        else {name: dice(measured.fitted[:, place]) for place, name in enumerate(names)},
    }


def read(path: Path) -> Floors | None:
    """What `write` wrote; none where there is no file: floors are for small experiments.

    Raises:
        UserError: it is damaged.
    """
    try:
        content = files.read(path, LARGEST)
    except FileNotFoundError:
        return None
    except (OSError, files.TooLargeError) as error:
        raise _damaged(str(path), files.reason(error)) from None
    return parse(content, str(path))


def parse(content: bytes, source: str) -> Floors:
    """The same from bytes; `source` stands in errors.

    Raises:
        UserError: it is not what `write` wrote.
    """
    try:
        tree = files.json_of(content)
        checked = _File.model_validate(tree)
    except ValidationError as error:
        raise _damaged(source, find_problems(error, _File)[0][1]) from None
    except ValueError as error:
        raise _damaged(source, str(error)[:200]) from None
    names = {subset_name(subset) for subset in SUBSETS}
    tables = [checked.brain, *(checked.rule or {}).values()]
    if any(len(getattr(table, region)) != len(checked.cases) for table in tables for region in REGIONS):
        raise _damaged(source, "not one score for each case")
    if (checked.rule is None) != (checked.thresholds is None) or any(
        set(by_subset) != names for by_subset in (checked.rule, checked.thresholds) if by_subset is not None
    ):
        raise _damaged(source, "not one rule for each of the 15 subsets")
    return _floors(checked)


def _floors(checked: _File) -> Floors:
    def array(dice: _Dice) -> np.ndarray:
        return np.stack([getattr(dice, region) for region in REGIONS], axis=-1)

    rule = fitted = None
    if checked.thresholds is not None and checked.rule is not None:
        limits = {name: thresholds.model_dump() for name, thresholds in checked.thresholds.items()}
        rule = {given(subset): Thresholds(**limits[subset_name(subset)]) for subset in SUBSETS}
        fitted = np.stack([array(checked.rule[subset_name(subset)]) for subset in SUBSETS], axis=1)
    return Floors(checked.trained, rule, tuple(checked.cases), array(checked.brain), fitted)


def _damaged(source: str, why: str) -> UserError:
    return UserError(
        f"{source}: is damaged ({why}); remove it, `train` or `ablate` of the cell makes it again"
    )
