"""The cache of prepared cases: what is damaged is made again, or refused when its values are read."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from acdis import config
from acdis.data import cache, cases
from acdis.data.loader import cut

DATA = config.Data(root="x", min_size=16, crop=(16, 16, 16), lesion_crops=1.0)


@pytest.fixture
def entry(room):
    """A prepared case."""
    folder = room.data / "Case_1"
    folder.mkdir()
    for number, part in enumerate(("flair", "t1ce", "t1", "t2", "seg")):
        voxels = np.zeros((12, 10, 8), dtype=np.int16)
        if part == "seg":
            voxels[4, 4, 2:6] = (0, 1, 2, 4)
        else:
            voxels[2:-2, 2:-2, 2:-2] = np.random.default_rng(number).integers(1, 900, (8, 6, 4))
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"Case_1_{part}.nii")
    return _prepared(room)


def _prepared(room):
    return cache.prepare(cases.find(room.data).cases, DATA, room.home / "cache", 1)["Case_1"]


def _used(room):
    """Opened as every command does, then read as training and scoring do."""
    entry = _prepared(room)
    assert entry.meta.box.shape == (16, 16, 16)
    images, labels, _ = cut(entry, DATA, np.random.default_rng(0))
    assert np.isfinite(images).all()
    assert labels.max() <= 3
    whole, truth = entry.whole()
    assert whole.shape == (4, 16, 16, 16)
    assert truth.shape == (12, 10, 8)


FILES = ("image.npy", "label.npy", "native_label.npy", "lesion.npy", "case.json")


@pytest.mark.parametrize("name", FILES)
def test_bytes_of_an_entry(room, entry, fuzz, mutations, name):
    path = entry.path / name
    whole = path.read_bytes()

    def attempt(content):
        path.write_bytes(content)
        room.tries("cache, bytes", lambda: _used(room), ["Case_1"])
        path.write_bytes(whole)

    fuzz(mutations.damaged(whole, head=160), 20, attempt)


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "native_label.npy", "lesion.npy"])
def test_arrays_of_an_entry_at_their_old_size(room, entry, fuzz, mutations, name):
    """Sizes that are right: only what is in the file can tell."""
    path = entry.path / name
    whole = path.read_bytes()

    def attempt(content):
        path.write_bytes((content + bytes(len(whole)))[: len(whole)])
        room.tries("cache, arrays", lambda: _used(room), ["Case_1"])
        path.write_bytes(whole)

    fuzz(mutations.damaged(whole, head=128), 20, attempt)


def test_values_of_the_record(room, entry, fuzz, mutations):
    path = entry.path / "case.json"
    whole = path.read_bytes()

    def attempt(tree):
        path.write_text(json.dumps(tree))
        room.tries("cache, record", lambda: _used(room), ["Case_1"])
        path.write_bytes(whole)

    fuzz(mutations.changed(json.loads(whole)), 50, attempt)


def test_notes_of_hashes(room, entry, fuzz, mutations):
    path = next((room.home / "cache" / ".hashes").iterdir())
    whole = path.read_bytes()

    def attempt(content):
        path.write_bytes(content)
        room.tries("cache, hashes", lambda: _used(room), ["Case_1"])
        path.write_bytes(whole)

    fuzz(mutations.damaged(whole), 15, attempt)
