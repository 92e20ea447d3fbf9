"""The cache: what it holds, when it is made anew, and that nothing half-made is ever opened."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest

from acdis import files
from acdis.config import Augmentation, Data
from acdis.data import cache, cases, fingerprints, strata
from acdis.data.fingerprints import data_fingerprint
from acdis.data.preprocess import preprocess
from acdis.errors import UserError

SHAPE = (20, 18, 16)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])  # BraTS's axes
DATA = Data(min_size=12, crop=(8, 8, 8))


def write_case(root, name, seed, lesion=True):
    generator = np.random.default_rng(seed)
    folder = root / name
    folder.mkdir(parents=True)
    for suffix in ("flair", "t1ce", "t1", "t2"):
        array = np.zeros(SHAPE, np.int16)
        array[3:-3, 3:-3, 3:-3] = generator.integers(1, 900, [side - 6 for side in SHAPE])
        nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / f"{name}_{suffix}.nii.gz")
    labels = np.zeros(SHAPE, np.uint8)
    if lesion:
        labels[6:10, 6:10, 6:10] = generator.choice([1, 2, 4], (4, 4, 4))
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), folder / f"{name}_seg.nii.gz")


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate("ABC"):
        write_case(tmp_path / "cases", name, seed)
    return tmp_path / "cases"


@pytest.fixture
def store(tmp_path):
    return tmp_path / "cache"


def prepare(root, store, data=DATA, processes=2, progress=None):
    return cache.prepare(cases.find(root).cases, data, store, processes, progress)


def folders(store):
    return sorted(path.name for path in store.iterdir() if not path.name.startswith("."))


def times(store):
    return {path: path.stat().st_mtime_ns for path in store.glob("[!.]*/*")}


def test_entries_hold_what_preprocessing_gives(root, store):
    calls = []
    entries = prepare(root, store, progress=lambda done, of: calls.append((done, of)))
    assert list(entries) == ["A", "B", "C"]
    assert calls == [(1, 3), (2, 3), (3, 3)]
    for case in cases.find(root).cases:
        volume = cases.read(case)
        expected = preprocess(volume, DATA)
        entry = entries[case.name]
        assert entry.path == store / f"{case.name}-{entry.fingerprint[:12]}"
        assert isinstance(entry.images(), np.memmap)
        assert not entry.images().flags.writeable
        np.testing.assert_array_equal(entry.images(), expected.images)
        np.testing.assert_array_equal(entry.labels(), expected.labels)
        np.testing.assert_array_equal(entry.native_labels(), volume.labels)
        np.testing.assert_array_equal(entry.lesion_voxels(), np.argwhere(expected.labels))
        assert entry.meta == expected.meta


def test_no_lesion_gives_no_rows(tmp_path, store):
    write_case(tmp_path / "cases", "A", 0, lesion=False)
    assert prepare(tmp_path / "cases", store)["A"].lesion_voxels().shape == (0, 3)


def test_many_lesion_voxels_are_sampled():
    labels = np.random.default_rng(0).integers(0, 4, (30, 30, 30), dtype=np.uint8)
    sample = cache._lesion_sample(labels, seed=1)
    assert sample.shape == (10_000, 3)
    assert len(np.unique(sample, axis=0)) == 10_000
    assert (labels[tuple(sample.T)] > 0).all()
    np.testing.assert_array_equal(sample, cache._lesion_sample(labels, seed=1))
    assert (sample != cache._lesion_sample(labels, seed=2)).any()


def test_opening_again_writes_and_reads_nothing(root, store, monkeypatch):
    first = prepare(root, store)
    before = times(store)
    monkeypatch.setattr(cache, "read", None)
    monkeypatch.setattr(fingerprints.hashlib, "file_digest", None)
    assert prepare(root, store) == first
    assert times(store) == before


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"spacing": 2.0}, True),
        ({"min_size": 14}, True),
        ({"background": "normalised"}, True),
        ({"crop": (9, 9, 9)}, False),
        ({"lesion_crops": 0.5}, False),
        ({"augmentation": Augmentation(flip=0)}, False),
    ],
)
def test_options_that_change_arrays_name_other_folders(root, store, change, again):
    first = prepare(root, store)
    second = prepare(root, store, DATA.model_copy(update=change))
    assert len(folders(store)) == (6 if again else 3)
    assert (first != second) == again


def test_another_version_of_preprocessing_is_another_fingerprint(root, store, monkeypatch):
    first = prepare(root, store)
    monkeypatch.setattr(fingerprints, "PREPROCESS_VERSION", 10**6)
    second = prepare(root, store)
    assert all(first[name].fingerprint != second[name].fingerprint for name in "ABC")


def test_a_changed_file_is_noticed_even_with_its_old_size_and_mtime(root, store):
    first = prepare(root, store)
    file = root / "A" / "A_seg.nii.gz"
    raw = bytearray(gzip.decompress(file.read_bytes()))
    old = file.stat()
    index = raw.index(4, 352)
    for value in (
        1,
        2,
    ):  # one voxel with another label; of the two one compresses to the same size, or padding helps
        raw[index] = value
        changed = gzip.compress(bytes(raw), mtime=0)
        file.write_bytes(changed + b"\0" * max(0, old.st_size - len(changed)))
        os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
        second = prepare(root, store)
        assert second["A"].fingerprint != first["A"].fingerprint
        assert second["B"] == first["B"]
        assert second["A"].native_labels().ravel(order="F")[index - 352] == value


def test_fingerprint_is_of_content_not_of_place(root, store, tmp_path):
    first = prepare(root, store)
    shutil.copytree(root, tmp_path / "copy")
    second = prepare(tmp_path / "copy", tmp_path / "other")
    assert {name: entry.fingerprint for name, entry in first.items()} == {
        name: entry.fingerprint for name, entry in second.items()
    }
    assert data_fingerprint(first.values()) == data_fingerprint(list(second.values())[::-1])
    assert data_fingerprint(first.values()) != data_fingerprint(list(first.values())[:2])


@pytest.mark.parametrize("file", ["image.npy", "label.npy", "native_label.npy", "lesion.npy", "case.json"])
@pytest.mark.parametrize("damage", ["truncate", "remove", "other"])
def test_damaged_entries_are_made_anew(root, store, file, damage):
    first = prepare(root, store)
    path = first["B"].path / file
    good = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(good[:-7])
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(good + b"[]")
    assert prepare(root, store) == first
    assert path.read_bytes() == good
    assert not list(store.glob(".tmp-*"))


def test_a_file_in_the_way_is_replaced(root, store):
    first = prepare(root, store)
    shutil.rmtree(first["A"].path)
    first["A"].path.write_text("not a folder")
    assert prepare(root, store) == first
    assert first["A"].images().shape[0] == 4


def test_all_bad_cases_are_named_and_the_good_ones_kept(root, store):
    write_case(root, "D", seed=1)  # the images of B
    (root / "A" / "A_t1.nii.gz").write_bytes(b"no gzip")
    (root / "A" / "A_t2.nii.gz").write_bytes(b"")
    found = cases.find(root).cases
    (root / "C" / "C_seg.nii.gz").unlink()
    with pytest.raises(UserError) as caught:
        cache.prepare(found, DATA, store, 2)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 of 4 cases cannot be used:"
    assert "A_t1.nii.gz: is not a gzip file" in lines[1]
    assert "A_t2.nii.gz: is empty (0 bytes)" in lines[1]
    assert "C_seg.nii.gz: does not exist" in lines[2]
    assert lines[3] == f"  {root / 'D'}: duplicate case: the same images as B"
    assert [name[0] for name in folders(store)] == ["B", "D"]


def test_many_bad_cases_of_one_kind_are_one_line(tmp_path, store):
    """Names without numbers, so that nothing but the names differs."""
    names = ("Anna", "Bert", "Cleo", "Dora", "Emil")
    for seed, name in enumerate(names):
        write_case(tmp_path / "cases", name, seed)
        write_case(tmp_path / "cases", f"{name} again", seed)
    for name in names[:4]:
        path = tmp_path / "cases" / f"{name} again" / f"{name} again_seg.nii.gz"
        array = np.asarray(nibabel.load(path).dataobj).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(np.where(array == 4, 7, array), AFFINE), path)
    with pytest.raises(UserError) as caught:
        prepare(tmp_path / "cases", store)
    first, labels, copied = str(caught.value).splitlines()
    assert first == "5 of 10 cases cannot be used:"
    assert labels.startswith("  4 cases, such as ")
    assert labels.count("unknown label 7") == 3
    assert copied.endswith("Emil again: duplicate case: the same images as Emil")


def test_a_cache_that_cannot_be_made_is_the_users_error(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be created"):
        prepare(root, tmp_path / "file" / "cache")


def test_a_full_disk_is_the_users_error(root, store, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", full)
    with pytest.raises(UserError, match=r"cannot be written.*No space left"):
        prepare(root, store)
    assert not list(store.glob(".tmp-*"))


def test_only_old_leftovers_are_removed(root, store):
    for name, age in ((".tmp-old", 25 * 3600), (".tmp-new", 3600)):
        (store / name).mkdir(parents=True)
        (store / name / "image.npy").write_bytes(b"half")
        os.utime(store / name, (time.time() - age,) * 2)
    prepare(root, store)
    assert [path.name for path in store.glob(".tmp-*")] == [".tmp-new"]


@pytest.fixture
def half(store):
    """Makes what a process leaves that is killed as it writes into a folder of the cache, and names it."""

    def leave(folder):
        child = os.fork()
        if not child:
            with files.replacing(store / folder / "note"):
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        (left,) = (store / folder).glob(f".*{files.HALF}")
        return left

    return leave


def test_half_a_note_is_swept_by_whoever_writes_notes(root, store, half):
    """`opened` and `of_cases` make no case, and write down hashes and strata all the same."""
    found = cases.find(root).cases
    prepare(root, store)
    for path in (store / ".hashes").iterdir():
        path.unlink()  # as for copies of these files, which have other times
    left = half(".hashes")
    fingerprints._sweep_once.cache_clear()  # as in another process
    assert cache.opened(found, DATA, store, 1)
    assert not left.exists()
    left = half(".strata")
    strata.of_cases(found, store, 1, lambda *_: None)
    assert not left.exists()


def test_ctrl_c_gets_through_and_the_rest_is_dropped(root, store):
    for seed, name in enumerate("DEFGHIJKLM", start=10):
        write_case(root, name, seed)

    def interrupt(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(root, store, processes=1, progress=interrupt)
    time.sleep(0.3)
    assert 1 <= len(folders(store)) < 13
    assert len(prepare(root, store)) == 13


PROGRAM = """
import sys
from pathlib import Path
from acdis.config import Data
from acdis.data import cache, cases
if sys.argv[3] == "slow":
    import time
    save = cache.np.save
    def slow(path, *rest, **more):
        save(path, *rest, **more)
        print(path, flush=True)
        time.sleep(0.05 if path.name != "label.npy" or "C" not in sys.argv[4:] else 60)
    cache.np.save = slow
found = cases.find(Path(sys.argv[1])).cases
entries = cache.prepare(found, Data(min_size=12, crop=(8, 8, 8)), Path(sys.argv[2]), 2)
print(sorted((name, entry.fingerprint, float(entry.images().sum())) for name, entry in entries.items()))
"""


def start(root, store, *arguments):
    command = [sys.executable, "-c", PROGRAM, str(root), str(store), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_half_way_it_goes_on(root, store):
    program = start(root, store, "slow", "C")
    assert program.stdout is not None
    for line in program.stdout:
        if "label.npy" in line:
            break
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    program.stdout.close()
    assert list(store.glob(".tmp-*"))
    assert len(folders(store)) < 3
    for entry in prepare(root, store).values():
        assert json.loads((entry.path / "case.json").read_text())["fingerprint"] == entry.fingerprint
        assert entry.images().shape == (4, 14, 12, 12)


def test_two_processes_at_once(root, store):
    entries = prepare(root, store)
    (entries["B"].path / "image.npy").write_bytes(b"damaged")  # both must repair this one
    shutil.rmtree(entries["A"].path)
    programs = [start(root, store, "slow") for _ in range(2)]
    said = [program.communicate(timeout=600)[0].splitlines()[-1] for program in programs]
    assert [program.returncode for program in programs] == [0, 0]
    assert said[0] == said[1]
    assert len(folders(store)) == 3
    assert not list(store.glob(".tmp-*"))
    assert prepare(root, store) == entries


COUNTED = """
import os, sys
from pathlib import Path
from acdis.config import Data
from acdis.data import cache, cases
write = cache._write
def counted(folder, case, *rest):
    write(folder, case, *rest)
    with open(sys.argv[3], "a") as file:
        file.write(case.name + chr(10))
cache._write = counted
print("ready", flush=True)
sys.stdin.readline()
cache.prepare(cases.find(Path(sys.argv[1])).cases, Data(min_size=12, crop=(8, 8, 8)), Path(sys.argv[2]), 2)
"""


def test_of_three_processes_one_makes_each_case(root, store, tmp_path):
    line = [sys.executable, "-c", COUNTED, str(root), str(store), str(tmp_path / "made")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    programs = [subprocess.Popen(line, **pipes) for _ in range(3)]
    for program in programs:
        assert program.stdout.readline() == "ready\n"
    for program in programs:
        program.communicate("go\n", timeout=600)
    assert [program.returncode for program in programs] == [0, 0, 0]
    assert sorted((tmp_path / "made").read_text().split()) == ["A", "B", "C"]
    assert not list((store / ".locks").iterdir())


def test_many_prepared_cases_open_in_no_time(root, store, tmp_path):
    """369 cases in less than a second of the processor; here the share of 60, with room."""
    for index in range(60):
        shutil.copytree(root / "A", tmp_path / "many" / str(index))
    found = [case for index in range(60) for case in cases.find(tmp_path / "many" / str(index)).cases]
    renamed = [
        cases.Case(str(index), *(getattr(case, key) for key in ("images", "segmentation", "layout")))
        for index, case in enumerate(found)
    ]
    with pytest.raises(UserError, match="59 of 60"):  # copies of one case, but prepared
        cache.prepare(renamed, DATA, store, 2)
    begin = time.process_time()
    with pytest.raises(UserError, match="59 of 60"):
        cache.prepare(renamed, DATA, store, 2)
    assert time.process_time() - begin < 1.0


@pytest.mark.real
def test_real_case(shared, store):
    found = cases.find(shared / "data" / "brats2021").cases[:1]
    entry = cache.prepare(found, Data(), store, 1)["BraTS2021_00006"]
    assert min(entry.images().shape[1:]) >= 128
    assert len(entry.lesion_voxels()) == 10_000
    brain = (entry.images() != 0).any(0)
    for image in entry.images():
        assert image[brain].mean(dtype=np.float64) == pytest.approx(0, abs=1e-4)
        assert image[brain].std(dtype=np.float64) == pytest.approx(1, abs=1e-4)
