"""BibTeX, read again by a small parser of its own: what was used is there, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from acdis import methods
from acdis.data import data_sets
from acdis.report.paperwork import about_data, checklist, lists, references
from acdis.report.paperwork.study import Study

REQUIRED = {
    "article": {"author", "title", "journal", "year"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "misc": {"author", "title"},
}


def parse(text: str) -> dict[str, tuple[str, dict[str, str]]]:
    """{key: (type, fields)}; whatever is not an entry, a repeated key or an open brace is an error."""
    entries: dict[str, tuple[str, dict[str, str]]] = {}
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        head = re.compile(r"@(\w+)\{([\w:.-]+),").match(text, place)
        assert head, text[place : place + 60]
        kind, key = head.groups()
        assert key not in entries
        place, fields = head.end(), dict[str, str]()
        while not (end := re.compile(r"\s*\}").match(text, place)):
            name = re.compile(r"\s*(\w+) = \{").match(text, place)
            assert name, text[place : place + 60]
            start = place = name.end()
            depth = 1
            while depth:
                depth += {"{": 1, "}": -1}.get(text[place], 0)
                place += 1
            fields[name[1]] = text[start : place - 1]
            comma = re.compile(r",").match(text, place)
            assert comma
            place = comma.end()
        entries[key] = (kind, fields)
        place = end.end()
    return entries


@pytest.mark.parametrize("key", references.known())
def test_every_reference_is_bibtex(key: str) -> None:
    entry = references._entry(key, references.known()[key])
    assert entry.isascii()
    ((found, (kind, fields)),) = parse(entry).items()
    assert found == key
    assert fields.keys() >= REQUIRED[kind]
    assert all(value.strip() for value in fields.values())
    assert not re.search(r"(?<!\\)[&%#_$]", " ".join(fields.values()))
    assert key == references.PLATFORM or fields["year"] in key


def test_methods_and_data_sets_have_their_papers() -> None:
    """A method without an entry here is named as one to be cited by hand."""
    assert set(references.METHODS) <= set(methods.names())
    names = {row.name for row in data_sets._DATA_SETS if row.name != "unknown task"} | {"brats2021", "msd"}
    assert set(about_data.known_sets()) == names
    cited = {key for keys in references.METHODS.values() for key in keys}
    cited |= {key for each in about_data.known_sets().values() for key in each["cite"]}
    assert cited <= set(references.known())


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("BraTS20_Training_002", "brats2020"),
        ("BraTS2021_00006", "brats2021"),
        ("BraTS-GLI-00001-000", "brats2023"),
        ("BraTS-GLI-00001-100", "brats2024"),
        ("BRATS_001", "msd"),
        ("Phantom_00003", None),
        ("BraTS-XYZ-00001-000", None),
        ("patient 7", None),
    ],
)
def test_names_tell_the_data_set_or_nothing(name: str, known: str | None) -> None:
    assert data_sets.of_name(name) == known


def test_what_was_used_is_cited_and_nothing_else(kept: Study) -> None:
    entries = parse(checklist.page_of(kept, "claim").bibtex)
    assert set(entries) == {
        "acdis_platform",
        "ding2021rfnet",
        "wei2023mmanet",
        *("baid2021rsna", "menze2015brats", "bakas2017advancing"),
        *("dice1945measures", "huttenlocher1993hausdorff", "nikolov2018nsd"),
        *("paszke2019pytorch", "cardoso2022monai"),
        "tejani2024claim",
    }
    note = entries["acdis_platform"][1]["note"]
    assert note == "ACDIS platform 0.1.0, commit 0123456789abcdef0123456789abcdef01234567"


def test_tests_are_cited_where_there_were_any(tmp_path: Path, paper: SimpleNamespace) -> None:
    study = paper.of_home(paper.made(tmp_path, failed=False))
    assert {"obuchowski1995hypothesis", "hillis2007comparison", "holm1979simple"} <= set(
        references.keys(study, ())
    )


def test_a_method_without_an_entry_is_named(kept: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(references.METHODS, "mmanet")
    assert "the method mmanet" in checklist.page_of(kept, "claim").uncited
    assert "wei2023mmanet" not in checklist.page_of(kept, "claim").bibtex


@pytest.mark.parametrize("name", lists.names())
def test_the_paragraph_cites_what_the_bibliography_has(kept: Study, name: str) -> None:
    page = checklist.page_of(kept, name)
    cited = set(re.findall(r"@([\w]+)", page.methods))
    assert cited
    assert cited <= set(parse(page.bibtex))
    assert "PyTorch 2.11.0" in page.methods
    assert "10.50 GPU hours in all" in page.methods


def test_tags_of_a_strange_file_break_no_entry(home: SimpleNamespace, paper: SimpleNamespace) -> None:
    for lineage in home.base.glob("cells/*/lineage.json"):
        lineage.write_text(lineage.read_text().replace("0123456789abcdef0123", "}} \\\\input{x} ``` "))
    page = checklist.page_of(paper.of_home(home), "claim")
    assert "input" in parse(page.bibtex)["acdis_platform"][1]["note"]
    assert "`" not in page.bibtex
