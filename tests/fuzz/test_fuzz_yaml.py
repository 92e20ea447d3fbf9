"""Experiment files and overrides: bytes, text, values, and what YAML itself can be made to do."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import strategies as st

from acdis import config, methods

EXPERIMENT = {
    "seed": 3,
    "data": {
        "root": "../data",
        "min_size": 32,
        "spacing": 2.0,
        "crop": [16, 16, 16],
        "split": {"train": "train.txt", "validation": "val.txt"},
        "augmentation": {"rotation": 5, "flip": 0.5},
    },
    "method": {"name": "acdis", "options": {"base_width": 8, "afeb_tokens": 4, "synthesis": ["mse"]}},
    "training": {"epochs": 5, "iterations": 2, "learning_rate": 1e-3, "precision": "fp32"},
    "evaluation": {"window": [16, 16, 16], "stride": [16, 16, 16]},
    "scaling": {"workers": 2},
    "tracking": {"uri": "sqlite:////tmp/none.db", "experiment": "fuzz"},
}
LINES = """\
extends: below.yaml
seed: 3
data: &data
  min_size: 32
  crop: &sides [16, 16, 16]
  split: {train: train.txt, validation: val.txt}
method: {name: acdis, options: {base_width: 8}}
training:
  <<: {epochs: 5}
  learning_rate: 1.0e-3
evaluation: {window: *sides, stride: *sides}
"""
#: Pieces of YAML that mean something to a parser.
PIECES = [
    "&a",
    "*a",
    "*sides",
    "<<: ",
    "!!python/object/apply:os.system [touch x]",
    "!!python/name:os.system",
    "!!binary x",
    "!!set {a}",
    "!!omap [a: 1]",
    "!!timestamp 2026-99-99",
    "2026-01-01",
    "!x y",
    "--- ",
    "...\n",
    "%YAML 9.9\n",
    "? ",
    "[",
    "]",
    "{",
    "}",
    "- ",
    ": ",
    "'",
    '"',
    "|\n",
    ">\n",
    "#",
    "\t",
    "\x00",
    "\x85",
    "\u2028",
    "\ufeff",
    "\ud800",
    "0x" + "f" * 6000,
    "1:59" * 2000,
    "9" * 5000,
    ".inf",
    "-.nan",
    "~",
    "1e999",
    "0b",
    "=",
    "extends: .\n",
    "@",
    "`",
    '"\\ud800"',
    '"\\0"',
    '"a\\x1b[2Jb"',
]


@pytest.fixture
def file(room):
    (room.data / "below.yaml").write_text("training: {epochs: 7}\n")
    return room.data / "experiment.yaml"


def _load(path, overrides=()):
    """As `train` and `plan` read it; written out and read again it must be the same."""
    found = methods.load(path, overrides)
    assert config.parse(yaml.safe_load(config.dump(found)), "again") == found


def test_values_of_an_experiment(room, file, fuzz, mutations):
    """Every key with values of every kind."""

    def attempt(tree):
        file.write_text(yaml.safe_dump(tree, sort_keys=False))
        room.tries("experiment, values", lambda: _load(file), [file.name])

    fuzz(mutations.changed(EXPERIMENT), 140, attempt)


def test_bytes_of_an_experiment(room, file, fuzz, mutations):
    def attempt(content):
        file.write_bytes(content)
        room.tries("experiment, bytes", lambda: _load(file), [file.name, "below.yaml", "give the path"])

    fuzz(mutations.damaged(LINES.encode()), 60, attempt)


@st.composite
def _texts(draw):
    """Lines with pieces of YAML in them."""
    text = LINES
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(PIECES)) + text[at:]
    return text


def test_text_of_an_experiment(room, file, fuzz):
    def attempt(text):
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        room.tries("experiment, text", lambda: _load(file), [file.name, "below.yaml", "."])

    fuzz(_texts(), 100, attempt)


def test_overrides(room, fuzz):
    keys = st.sampled_from(
        ["seed", "data.crop", "data.root", "method.options.base_width", "training", "a.b", "", "a..b", "\0"]
    )
    texts = st.sampled_from(PIECES) | st.text(max_size=20)

    def attempt(drawn):
        key, text = drawn
        room.tries("overrides", lambda: _load(None, [f"{key}={text}"]), ["override"])

    fuzz(st.tuples(keys, texts), 50, attempt)


def _bomb(levels, width=9):
    lines = ["a0: &a0 [1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"method: {{options: {{x: *a{levels - 1}}}}}"])


CRAFTED = {
    "lists, 20,000 deep": "a: " + "[" * 20_000,
    "mappings, 3,000 deep": "{a: " * 3_000,
    "closed lists, 200 deep": "method: {options: {x: " + "[" * 200 + "]" * 200 + "}}",
    "closed lists, 60 deep": "method: {options: {x: " + "[" * 60 + "]" * 60 + "}}",
    "lists by dashes": "- " * 5_000,
    "keys by question marks": "? " * 5_000,
    "blocks, 900 deep": "".join(" " * n + "a:\n" for n in range(900)),
    "a bomb of aliases": _bomb(9),
    "a longer bomb": _bomb(40, 2),
    "aliases of aliases, 300 deep": _bomb(300, 1),
    "an alias of itself": "method: &a {options: {x: *a}}",
    "a list of itself": "method: {options: {x: &a [1, *a]}}",
    "merges that double": "\n".join(
        ["m0: &m0 {k: 1}"] + [f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}" for n in range(1, 28)]
    ),
    "300,000 values": "a: [" + "1," * 300_000 + "]",
    "a key of a megabyte": "k" * 2**20 + ": 1",
    "12,000 keys": "\n".join(f"k{n}: 1" for n in range(12_000)),
    "a key given twice": "seed: 1\nseed: 2",
    "a key that is a list": "? [a, b]\n: 1",
    "a key that is a mapping": "? {a: b}\n: 1",
    "Latin-1": "tracking: {experiment: gr\u00fcn}".encode("latin-1"),
    "UTF-16": "seed: 1".encode("utf-16"),
    "NUL": b"\0" * 100,
    "code": "seed: !!python/object/apply:os.system ['touch ran']",
    "more code": "!!python/object/new:os.system ['touch ran']",
    "a name": "seed: !!python/name:os.system",
    "a module": "seed: !!python/module:antigravity",
    "sexagesimal": "seed: " + ":".join(["59"] * 40_000),
    "hexadecimal": "seed: 0x" + "f" * 100_000,
    "sizes of the universe": "data: {min_size: 100000, crop: [99999, 99999, 99999]}",
    "extends a device": "extends: /dev/zero",
    "extends what has no end": "extends: /proc/self/mem",
    "extends a folder": "extends: .",
    "extends a NUL": 'extends: "a\\0b"',
    "extends a long name": "extends: " + "x" * 5_000,
    "extends a stranger's home": "extends: ~nobody_there/x.yaml",
    "a split in a stranger's home": "data: {root: ~nobody_there/x, split: {train: ~nobody_there/y}}",
    "a root with a NUL": 'data: {root: "a\\0b"}',
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_experiments(room, file, name):
    content = CRAFTED[name]
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    room.tries(
        "experiment, crafted",
        lambda: _load(file),
        [file.name, "extends", "/dev/zero", "/proc/self/mem", "give the path"],
    )
