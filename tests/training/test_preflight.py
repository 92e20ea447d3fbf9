"""Before the first epoch: the memory that a step takes is foretold, and refused where it is not there."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from acdis import machine
from acdis.data import cache, cases
from acdis.errors import UserError
from acdis.training import loop, preflight
from acdis.training.batches import batches
from acdis.training.group import Group

GIB = 2**30


@pytest.mark.parametrize(
    ("crop", "small", "larger"),
    [
        ((80, 80, 80), (40, 40, 40), (80, 40, 40)),
        ((32, 48, 64), (16, 24, 32), (32, 24, 32)),
        ((16, 48, 48), (16, 24, 24), (16, 48, 24)),
        ((16, 24, 31), (16, 24, 31), (16, 24, 31)),  # too small to be cut
    ],
)
def test_pieces_of_a_crop(crop, small, larger):
    assert preflight.pieces_of(crop) == (small, larger)


@pytest.mark.parametrize(
    ("rule", "small", "larger"),
    [
        ((16, 16), (32, 32, 32), (80, 32, 32)),
        ((8, 16), (40, 40, 40), (80, 40, 40)),
        ((32, 64), (80, 80, 80), (80, 80, 80)),  # a half of 32 voxels is below what the method takes
    ],
)
def test_pieces_of_a_crop_that_the_method_can_halve(rule, small, larger):
    assert preflight.pieces_of((80, 80, 80), *rule) == (small, larger)


@pytest.fixture(scope="module")
def large(small, phantoms, tmp_path_factory):
    """A function from the side of a crop to an experiment, and three cases in boxes of 48³."""
    found = cases.find(phantoms).cases[:3]

    def settings(side):
        return small({"data.min_size": 48, "data.crop": [side] * 3, "training.batch_size": 1})

    prepared = cache.prepare(found, settings(48).data, tmp_path_factory.mktemp("cache"), 1)
    return settings, loop.Cases(list(prepared.values()))


def test_memory_is_foretold(large, finish, tmp_path):
    """Over what the process held before, in a fresh process.

    Loose, since resident memory at sizes this small depends on what the allocator keeps (below 0.67 and
    1.9 were seen); at 80³ and base width 16 it was 1.13.
    """
    settings, three = large
    tasks = [("peaks", {"experiment": settings(side), "cases": three}) for side in (32, 48)]
    for predicted, measured in finish(tmp_path, tasks)[0]:
        assert measured > 30e6
        assert 1 / 4 < predicted / measured < 4


@pytest.fixture
def run_of_32(large, tmp_path):
    """A run, and its first batch."""
    settings, three = large
    run = loop.begin(settings(32), tmp_path, Group())
    return run, next(batches(run, three, 0))


def test_a_step_that_does_not_fit_is_refused(run_of_32, monkeypatch):
    """A machine without memory cannot be had for a test: what is free is made up. The step is not tried."""
    run, samples = run_of_32
    need = preflight.predicted_peak(run, samples) - machine.resident()
    tried = []
    accumulate = preflight.accumulate

    def watch(run, samples, *args, **options):
        tried.append(samples.labels[0].numel())
        return accumulate(run, samples, *args, **options)

    monkeypatch.setattr(preflight, "accumulate", watch)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=max(need, 10**7) * 5))
    preflight.check_memory(run, samples)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6))
    with pytest.raises(UserError) as caught:
        preflight.check_memory(run, samples)
    message = str(caught.value)
    assert "0.0 GiB are free" in message
    assert "data.crop (now [32, 32, 32])" in message
    assert "training.batch_size (now 1)" in message
    assert "scaling.accumulation (now 1)" in message
    assert "scaling.activation_checkpointing=true (now false)" in message
    assert "\n" not in message
    assert max(tried) == 32**3 / 4


def test_the_whole_training_is_refused_before_its_first_epoch(small, three, tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    events = []
    with pytest.raises(UserError, match="does not fit the memory"):
        loop.train(small({"training.weight_decay": 0}), three, tmp_path, Group(), events.append)
    assert events == []
    assert not (tmp_path / loop.LAST).exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    ],
)
def test_running_out_of_memory_names_the_ways_out(run_of_32, monkeypatch, error):
    run, samples = run_of_32

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(preflight, "accumulate", fail)
    with pytest.raises(UserError, match=r"memory.*data\.crop.*batch_size.*accumulation.*checkpointing"):
        preflight.measure(run, samples)


def test_other_errors_keep_their_traceback(run_of_32, monkeypatch):
    run, samples = run_of_32

    def fail(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(preflight, "accumulate", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        preflight.measure(run, samples)


def test_peak_of_resident_memory():
    """200 MB that were held for a moment are seen, until the peak is started anew."""
    machine.reset_peak()
    before = machine.peak()
    block = torch.ones(50_000_000)
    held = machine.resident()
    del block
    assert 190e6 < machine.peak() - before < 260e6
    assert held - before > 190e6
    machine.reset_peak()
    assert machine.peak() - before < 60e6


def test_a_cgroups_limit_counts(tmp_path, monkeypatch):
    """Files as Linux has them: 10 GiB, 4 used of which 1 is cache that can go; the outer group has more."""
    group = tmp_path / "groups" / "batch" / "job"
    group.mkdir(parents=True)
    write_group(group, str(10 * GIB), 4 * GIB, 1 * GIB)
    write_group(group.parent, str(100 * GIB), 50 * GIB, 0)
    (tmp_path / "cgroup").write_text("1:name=systemd:/other\n0::/batch/job\n")
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=200 * GIB))
    assert machine.free() == 7 * GIB
    write_group(group, "max", 4 * GIB, 0)
    assert machine.free() == 50 * GIB
    write_group(group.parent, "max", 50 * GIB, 0)
    assert machine.free() == 200 * GIB


def write_group(folder, limit, used, cached):
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")
