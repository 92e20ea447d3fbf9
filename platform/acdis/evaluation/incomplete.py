"""Test cases that lack modalities: scored on the subsets that they have, apart from the mean of the 15.

Imports neither torch nor monai: reports read this.
"""

from __future__ import annotations

import io
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import files
from acdis.errors import UserError
from acdis.evaluation.records import Record, read_table, records_in, summarise
from acdis.vocabulary import SUBSETS, Subset, subset_name

#: Beside the records of the whole cases; not there where no case lacks anything.
FILE = "incomplete.parquet"
#: Bytes of it that are read.
LARGEST = 2**28
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pattern:
    """Test cases that have these modalities and no others.

    Attributes:
        modalities: what they have, a subset of the vocabulary's.
        cases: their names, sorted.
        summary: as `records.summarise`, over the subsets of these modalities.
    """

    modalities: Subset
    cases: tuple[str, ...]
    summary: Mapping[str, float]

    @property
    def subsets(self) -> int:
        """How many subsets they can be segmented from."""
        return len(subsets_of(self.modalities))


def subsets_of(modalities: Sequence[str], subsets: Sequence[Subset] = SUBSETS) -> list[Subset]:
    """Those of the subsets that a case with these modalities has, in their order."""
    return [subset for subset in subsets if set(subset) <= set(modalities)]


def patterns(records: Sequence[Record]) -> tuple[Pattern, ...]:
    """The records by what their cases have, in the vocabulary's order of subsets.

    Raises:
        UserError: a case lacks a subset of what it has, or a score is missing or out of range.
    """
    names = {subset_name(subset): subset for subset in SUBSETS}
    by_case: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_case[record.case].append(record)
    by_pattern: dict[frozenset[str], list[Record]] = defaultdict(list)
    for rows in by_case.values():
        by_pattern[frozenset().union(*(names.get(row.subset, ()) for row in rows))].extend(rows)
    return tuple(
        Pattern(
            modalities,
            tuple(sorted({row.case for row in by_pattern[frozenset(modalities)]})),
            summarise(by_pattern[frozenset(modalities)], subsets_of(modalities)),
        )
        for modalities in SUBSETS
        if frozenset(modalities) in by_pattern
    )


def parse(content: bytes, name: str) -> tuple[Pattern, ...]:
    """What a file holds; `name` stands in errors.

    Raises:
        UserError: it cannot be read, or as `patterns`.
    """
    try:
        return patterns(records_in(read_table(io.BytesIO(content), name)))
    except UserError as error:
        raise UserError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from None


def usable(path: Path) -> tuple[Pattern, ...]:
    """Of the file beside an evaluation's records; none where it is not there, or damaged: the log says so."""
    if not path.exists():
        return ()
    try:
        return parse(files.read(path, LARGEST), str(path))
    except (OSError, files.TooLargeError) as error:
        log.warning("%s: cannot be read (%s); evaluate the run again", path, files.reason(error))
    except UserError as error:
        log.warning("%s", error)
    return ()
