"""Specs, search files, split files and bundles."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

from acdis import config
from acdis.ablation import search, spec
from acdis.ablation.expansion import resolve
from acdis.ablation.search_file import Settings
from acdis.ablation.trials import Trials
from acdis.data import splits
from acdis.data.inputs import Inputs
from acdis.evaluation.records import Record, write_parquet
from acdis.report import bundle, spec_outline, subsets_forms
from acdis.report.facts import AbsentFacts, CellFacts, RowFacts, SpecFacts, with_scores
from acdis.report.formats import compared
from acdis.report.paperwork import cell_papers, checklist
from acdis.report.paperwork.study import study
from acdis.report.subsets_table import table_of
from acdis.verbs.report import RENDERERS, render
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

BASE = """\
data: {phantoms: {cases: 4}, min_size: 32, crop: [16, 16, 16], split: {counts: [2, 1, 1]}}
evaluation: {window: [16, 16, 16], stride: [16, 16, 16]}
training: {epochs: 20}
"""
OTHER = """\
base: base.yaml
baseline: a
rows:
  a: {paper: {WT: 1.0, TC: 2.0, ET: 3.0}, set: {training.learning_rate: 1.0e-4}}
"""
ROWS = {
    "title": "Rows",
    "table": "t",
    "base": "base.yaml",
    "extends": "other.yaml",
    "seeds": [0, 1],
    "baseline": "a",
    "paper": "X",
    "set": {"training.epochs": 9, "data.split.counts": [2, 1, 1]},
    "rows": {
        "a": {"use": "other.yaml#a"},
        "later": {
            "absent": "why",
            "paper_row": "M3AE",
            "published": {"S": {"WT": 1.0, "TC": 2.0, "ET": 3.0}},
        },
        "b": {
            "label": "B",
            "note": "n",
            "set": {"training.learning_rate": 1e-3, "method.options.afeb": "conv"},
            "paper": {"WT": 1.0, "TC": 2.0, "ET": 3.0},
        },
        "c": {"use": "#b", "set": {"training.weight_decay": 0.0}},
    },
}
GRID = {
    "base": "base.yaml",
    "seeds": [0],
    "baseline": {"training.learning_rate": 1e-3, "training.epochs": 9},
    "grid": {
        "factors": {"training.learning_rate": [1e-4, 1e-3], "training.epochs": [9, 11, 13]},
        "exclude": [
            {"reason": "r", "when": {"training.epochs": 13, "training.learning_rate": {"not": 1e-4}}}
        ],
    },
}
SEARCH = {
    "title": "S",
    "base": "base.yaml",
    "set": {"training.epochs": 30},
    "search": {
        "trials": 3,
        "seed": 0,
        "sampler": "tpe",
        "objective": "dice/mean",
        "pruner": {"name": "median", "startup_trials": 2},
        "space": {
            "training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
            "training.amsgrad": {"choices": [True, False]},
        },
    },
}
NOWHERE = ["/dev/zero", "/proc/self/mem", "own.yaml", "other.yaml", "base.yaml", "nowhere", "give the path"]


@pytest.fixture
def own(room):
    (room.data / "base.yaml").write_text(BASE)
    (room.data / "other.yaml").write_text(OTHER)
    return room.data / "own.yaml"


def _members(path):
    """As `plan` and `status` read it, up to the names of the cells."""
    found = spec.load(path)
    inputs = Inputs((), (), ())
    members = resolve([found], lambda _: inputs)
    assert len(members) == len(found.rows) * len(found.seeds)
    for member in members:
        assert Path(member.cell).name == member.cell
        assert Path(found.name).name == found.name


@pytest.mark.parametrize(("kind", "tree"), [("rows", ROWS), ("grid", GRID)])
def test_values_of_a_spec(room, own, fuzz, mutations, kind, tree):
    def attempt(changed):
        own.write_text(yaml.safe_dump(changed, sort_keys=False))
        room.tries(f"spec, {kind}", lambda: _members(own), [*NOWHERE, "rows"])

    fuzz(mutations.changed(tree), 70, attempt)


def test_bytes_of_a_spec(room, own, fuzz, mutations):
    whole = yaml.safe_dump(ROWS, sort_keys=False).encode()

    def attempt(content):
        own.write_bytes(content)
        room.tries("spec, bytes", lambda: _members(own), [*NOWHERE, "rows"])

    fuzz(mutations.damaged(whole), 30, attempt)


def test_values_of_a_search(room, own, fuzz, mutations):
    def attempt(changed):
        own.write_text(yaml.safe_dump(changed, sort_keys=False))
        room.tries("search", lambda: search.load(own).meaning("x"), NOWHERE)

    fuzz(mutations.changed(SEARCH), 70, attempt)


def test_the_study_of_a_search(room, fuzz, mutations):
    """Optuna's journal: one line an operation."""
    settings = Settings.model_validate(SEARCH["search"])
    trials = Trials(room.home, settings, "m")
    for value in (0.5, 0.7):
        trial = trials.ask()
        trials.note_cell(trial.number, "acdis-0")
        trials.report(trial.number, {1: value})
        trials.tell(trial.number, "done", value)
    path = room.home / "study-m.jsonl"
    whole = path.read_bytes()

    def attempt(content):
        path.write_bytes(content)
        room.tries("search, study", lambda: Trials(room.home, settings, "m").best(), [path.name])

    fuzz(mutations.damaged(whole), 60, attempt)


@pytest.mark.parametrize(
    "text",
    [
        "base: base.yaml\nbaseline: a\nrows: {a: {use: '#a'}}",
        "base: base.yaml\nbaseline: a\nrows: {a: {use: 'own.yaml#a'}}",
        "base: base.yaml\nbaseline: a\nrows: {a: {use: '../../../etc/passwd#a'}}",
        "base: base.yaml\nbaseline: a\nrows: {'../../x': {}}",
        "base: base.yaml\nbaseline: a\nrows: {'a\\0b': {}}",
        "base: base.yaml\nbaseline: a\ntable: '../../x'\nrows: {a: {}}",
        "base: /dev/zero\nbaseline: a\nrows: {a: {}}",
        "extends: own.yaml",
        "extends: /proc/self/mem",
        "base: base.yaml\nbaseline: {}\ngrid: {factors: {seed: {subsets_of: ["
        + ",".join(map(str, range(40)))
        + "]}}}",
        "base: base.yaml\nbaseline: a\nseeds: [" + "1," * 50_000 + "]\nrows: {a: {}}",
        "base: base.yaml\nbaseline: a\nrows: {a: {set: {method.name: ../../x}}}",
        "base: base.yaml\nbaseline: a\nrows: {a: {set: {method.name: os}}}",
        "base: base.yaml\nbaseline: a\nrows: {a: {set: {training.epochs: 2026-01-01}}}",
        "base: base.yaml\nbaseline: 2026-01-01\nrows: {a: {}}",
        "base: base.yaml\nbaseline: r0\nrows:\n"
        + "".join(
            f"  r{n}: {{use: 'other.yaml#a', set: {{training.epochs: {n + 1}}}}}\n" for n in range(700)
        ),
    ],
)
def test_crafted_specs(room, own, text):
    own.write_text(text)
    room.tries("spec, crafted", lambda: _members(own), [*NOWHERE, "rows"])


CASES = [f"BraTS20_Training_{number:03d}" for number in range(1, 7)]
LISTS = {
    "train": "\n".join(CASES[:3]) + "\n",
    "validation": f"HG_{CASES[3]}  # a comment\n",
    "test": f"{CASES[4]}\r\n{CASES[5]}",
}


def _split(paths):
    lists = splits.resolve(config.Split(**{part: str(path) for part, path in paths.items()}), CASES, None)
    names = [*lists.train, *lists.validation, *lists.test]
    assert len(set(names)) == len(names)
    assert set(names) <= set(CASES)
    assert lists.train


@pytest.fixture
def lists(room):
    paths = {part: room.data / f"{part}.txt" for part in LISTS}
    for part, path in paths.items():
        path.write_text(LISTS[part])
    return paths


def test_bytes_of_split_files(room, lists, fuzz, mutations):
    damaged = st.sampled_from(sorted(LISTS)).flatmap(
        lambda part: st.tuples(st.just(part), mutations.damaged(LISTS[part].encode()))
    )

    def attempt(drawn):
        part, content = drawn
        lists[part].write_bytes(content)
        room.tries("split files", lambda: _split(lists), [f"{part}.txt"])
        lists[part].write_text(LISTS[part])

    fuzz(damaged, 70, attempt)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#\n",
        b"../../../etc/passwd\n",
        b"/etc/passwd\n",
        b"a\0b\n",
        b"\x1b[2J\n",
        b"\xff\xfe",
        "\u202e\u2028x".encode(),
        b"x" * 100_000,
        b"BraTS20_Training_001\n" * 10_000,
        b"y\n" * 100_000,
        b"z" * 2**20,
        b"\r" * 10_000,
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_crafted_split_files(room, lists, content):
    lists["train"].write_bytes(content)
    assert room.tries("split files, crafted", lambda: _split(lists), ["train.txt"]) == "refused"


@pytest.mark.parametrize(
    "file", ["/dev/zero", "/proc/self/mem", "~nobody_there/x", "x" * 5000, ".", "", "a\0b", "\ud800"]
)
def test_split_files_that_are_none(room, file):
    action = lambda: splits.resolve(config.Split(train=file), CASES, None)  # noqa: E731
    assert room.tries("split files, crafted", action) == "refused"


@pytest.mark.parametrize(
    "content",
    [
        b"[" + b"{}," * 5_000_000 + b"{}]",
        b'[{"name": [' + b"{}," * 20_000_000 + b"{}]}]",
        b"[" * 100_000,
        b"[]",
        b'[{"name": 3}]',
    ],
    ids=["five million", "60 MB", "nested", "no spec", "another type"],
)
def test_crafted_facts_of_a_home(room, content):
    """What `dashboard` reads of a spec that somebody else has trained."""
    path = room.home / "ablations" / "own" / spec_outline.FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert room.tries("facts of a home", lambda: spec_outline.read(path), ["facts.json"]) == "refused"


def _facts():
    cell = CellFacts(0, "acdis-0123456789ab", "abcdef", True, "scored", {"cpu": 1.5}, "0123456+")
    rows = tuple(
        RowFacts(name, name, "n", {"WT": 80.0, "TC": 70.0, "ET": 60.0}, {"training.epochs": 3}, (cell,))
        for name in ("a", "b")
    )
    figures = {"WT": 80.0, "TC": 70.0, "ET": 60.0}
    absent = (AbsentFacts("later", "Later", "why", None, figures, "M3AE", {"S": figures}),)
    whole = SpecFacts("own", "Own", "t", "a", "X", ("seed=1",), {"r": 2}, True, 500.0, rows)
    return replace(whole, absent=absent)


@pytest.fixture
def packed(room):
    """A bundle's files by name."""
    records = [
        Record(
            f"case{case}", subset_name(subset), region, 0.5, 0.5 if region == "ET" else None, 3.0, 1, 1, 1.0
        )
        for case in range(2)
        for subset in SUBSETS
        for region in REGIONS
    ]
    write_parquet(room.data / "records.parquet", records)
    t2 = [replace(record, case="case2") for record in records[:45] if record.subset == "T2"]
    write_parquet(room.data / "incomplete.parquet", t2)
    facts = json.loads(bundle.dump([_facts()]))
    return {
        bundle.FACTS: {"format": bundle.FORMAT, "specs": facts},
        "cells/acdis-0123456789ab/evaluations/abcdef/records.parquet": (
            room.data / "records.parquet"
        ).read_bytes(),
        "cells/acdis-0123456789ab/evaluations/abcdef/incomplete.parquet": (
            room.data / "incomplete.parquet"
        ).read_bytes(),
    }


def _zip(parts):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part if isinstance(part, bytes) else json.dumps(part))
    return stream.getvalue()


def _reported(path):
    for form in RENDERERS:
        render(*bundle.read(path), form).encode()
    specs, read = bundle.read(path)
    tables = [table_of(spec, [with_scores(row, read) for row in spec.rows]) for spec in specs]
    for write in subsets_forms.FORMS.values():
        write(tables, True).encode()
    _filled(path)


def _filled(path):
    specs, read = bundle.read(path)
    contents = bundle.cell_files(path)
    whole = study(compared(specs, read), lambda cell: cell_papers.read(cell, contents), None)
    checklist.render(whole, "claim").encode()


@pytest.mark.parametrize("count", [5_000_000, 240_000])
def test_a_bundle_of_empty_mappings(room, packed, count):
    """A few kilobytes of a ZIP file. Of the smaller number each is looked at, and the first refused."""
    path = room.data / "bomb.zip"
    facts = f'{{"format": "{bundle.FORMAT}", "specs": [{"{}," * count}{{}}]}}'
    path.write_bytes(_zip({**packed, bundle.FACTS: facts.encode()}))
    room.tries("bundle, repeated", lambda: _reported(path), ["bomb.zip"])


def test_values_in_a_bundle(room, packed, fuzz, mutations):
    path = room.data / "own.zip"

    def attempt(tree):
        path.write_bytes(_zip({**packed, bundle.FACTS: tree}))
        room.tries("bundle, facts", lambda: _reported(path), ["own.zip"])

    fuzz(mutations.changed(packed[bundle.FACTS]), 60, attempt)


#: What a cell's own files in a bundle say, where it is trained on a known data set.
PAPERS = {
    "lineage.json": {
        "tags": {
            "acdis.git_commit": "0123",
            "acdis.git_dirty": "true",
            "acdis.version.torch": "2",
            "acdis.device": "d",
        },
        "splits": {"train": ["BraTS20_Training_001"], "validation": [], "test": ["BraTS20_Training_002"]},
        "fingerprints": {"learnt": "a", "scored": "b"},
        "patients": {"BraTS20_Training_001": "x"},
        "workers": "1",
    },
    "roles.json": {"roles": [{"spec": "s", "table": "t", "row": "trial-3", "seed": 0}]},
    "history.json": {"epochs": [{"seconds": 1.0}], "parts": ["acdis-0123456789ab"]},
    "config.yaml": config.Experiment(
        method=config.MethodChoice(
            name="unet", options={"drop_rates": [0.1, 0.2, 0.3, 0.4]}, parents={"start": "x"}
        )
    ).model_dump(mode="json"),
}


@pytest.mark.parametrize("name", PAPERS)
def test_a_cells_own_files_in_a_bundle(room, packed, fuzz, mutations, name):
    """What a checklist is filled from; what is damaged is not known."""
    path = room.data / "own.zip"
    folder = "cells/acdis-0123456789ab"

    def attempt(tree):
        files = {f"{folder}/{other}": tree if other == name else PAPERS[other] for other in PAPERS}
        path.write_bytes(_zip({**packed, **files}))
        assert room.tries("bundle, papers", lambda: _filled(path), ["own.zip"]) == "sound"

    fuzz(mutations.changed(PAPERS[name]), 30, attempt)


def test_bytes_of_a_bundle(room, packed, fuzz, mutations):
    path = room.data / "own.zip"

    def attempt(content):
        path.write_bytes(content)
        room.tries("bundle, bytes", lambda: _reported(path), ["own.zip"])

    fuzz(mutations.damaged(_zip(packed)), 40, attempt)


@pytest.mark.parametrize(
    "kind",
    [
        *("nested", "a bomb", "a long list", "a bomb of records", "device", "a folder"),
        *("four million entries", "long names"),
    ],
)
def test_crafted_bundles(room, packed, mutations, long_names, kind):
    path = room.data / "own.zip"
    records = next(name for name in packed if name.endswith("parquet"))
    parts = {
        "nested": {
            bundle.FACTS: b'{"format": "acdis-bundle-1", "specs": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
        },
        "a bomb": {bundle.FACTS: b" " * (3 * 2**28)},
        "a long list": {bundle.FACTS: b'{"format": "acdis-bundle-1", "specs": [' + b"[]," * 2**25 + b"[]]}"},
        "a bomb of records": {records: bytes(2**29)},
        "long names": {records: long_names},
    }
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "four million entries":
        path.write_bytes(mutations.of_many_entries(4_000_000))
    else:
        path.write_bytes(_zip({**packed, **parts[kind]}))
    assert room.tries("bundle, crafted", lambda: _reported(path), ["own.zip"]) == "refused"
