"""Which cases of another folder a model has seen: they are left out unless asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from acdis.data.entry import Entry
from acdis.data.preprocess import Box, Meta
from acdis.errors import UserError
from acdis.verbs.evaluate import unseen

META = Meta(Box((0, 0, 0), (1, 1, 1)), (1, 1, 1), (1.0, 1.0, 1.0), (1, 1, 1), (1.0, 1.0, 1.0), ((1.0,),))


class Cell:
    name = "acdis-0123"

    def lineage(self) -> dict[str, Any]:
        return {
            "splits": {"train": ["A", "BraTS-GLI-00001-000"], "validation": ["V"], "test": ["T"]},
            "voxels": {"A": "aa", "BraTS-GLI-00001-000": "bb"},
            "patients": {"A": "Anna"},
        }


def entry(name: str, patient: str = "", voxels: str = "other") -> Entry:
    return Entry(name, Path(name), "f", META, patient or name, voxels)


def test_names_patients_and_voxels_are_known_again() -> None:
    entries = [
        entry("A"),
        entry("V"),
        entry("BraTS-GLI-00001-001", "BraTS-GLI-00001"),
        entry("scan 2", "Anna"),
        entry("renamed", voxels="bb"),
        entry("T"),
        entry("new"),
    ]
    said: list[str] = []
    assert [each.name for each in unseen(Cell(), entries, said.append)] == ["T", "new"]  # type: ignore[arg-type]
    (line,) = said
    assert line.startswith(
        "5 of 7 cases have trained or chosen these weights (2 by name, 2 by patient, 1 by voxels)"
    )
    assert "--with-trained scores them too" in line


def test_nothing_is_said_where_nothing_was_seen() -> None:
    said: list[str] = []
    assert len(unseen(Cell(), [entry("new")], said.append)) == 1  # type: ignore[arg-type]
    assert said == []


def test_none_left_is_an_error() -> None:
    with pytest.raises(
        UserError, match=r"1 of 1 cases have trained .* none is left to score; --with-trained"
    ):
        unseen(Cell(), [entry("A")], print)  # type: ignore[arg-type]
