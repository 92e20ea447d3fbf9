"""Epochs of crops: order, shares of ranks, determinism, threads."""

import hashlib
import threading
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from acdis import config
from acdis.data import cache, loader, phantom
from acdis.data.augment import augment
from acdis.data.cases import find
from acdis.data.loader import cut, epoch_batches, epoch_order, iterations_per_epoch
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

SIDE = 24


@dataclass(frozen=True)
class Case:
    """A cached case in memory, quacking like `acdis.data.prepared_case.Entry`."""

    name: str
    arrays: dict = field(default_factory=dict, compare=False)
    delay: float = 0.0
    modalities: tuple = MODALITIES

    def images(self):
        time.sleep(self.delay)
        return self.arrays["images"]

    def labels(self):
        return self.arrays["labels"]

    def lesion_voxels(self):
        return np.argwhere(self.labels() > 0)

    @property
    def corner(self):
        return (3, -2, 7)


class Broken(Case):
    error: Exception = OSError("the disk is gone")

    def images(self):
        raise self.error


class Unreadable(Broken):
    error = UserError("cache is damaged")


def case(name: str, delay: float = 0.0) -> Case:
    seed = sum(name.encode())
    images = np.random.default_rng(seed).standard_normal((4, SIDE, SIDE, SIDE), dtype=np.float32)
    labels = np.zeros((SIDE, SIDE, SIDE), dtype=np.uint8)
    labels[20, 21, 3] = 3
    return Case(name, {"images": images, "labels": labels}, delay)


def cases(n: int, delay: float = 0.0) -> list[Case]:
    return [case(f"case{i:02d}", delay) for i in range(n)]


def subsets(generator: torch.Generator, n: int, epoch: int) -> torch.Tensor:
    table = torch.tensor([[bool(code >> bit & 1) for bit in range(4)] for code in range(1, 16)])
    return table[torch.randint(15, (n,), generator=generator)]


DATA = config.Data(crop=(8, 8, 8), min_size=8)


def batches(entries, **options):
    given = {"seed": 0, "epoch": 0, "batch_size": 2, "sample_subsets": subsets, "data": DATA}
    return epoch_batches(entries, **{**given, **options})


def equal(left, right) -> bool:
    return (
        left.names == right.names
        and torch.equal(left.origin, right.origin)
        and torch.equal(left.images, right.images)
        and torch.equal(left.labels, right.labels)
        and torch.equal(left.available, right.available)
    )


def flat(steps) -> list:
    """One sample each."""
    return [sample for step in steps for sample in step]


def crop_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("crops")]


# --- order


@pytest.mark.parametrize(
    ("n_cases", "batch", "iterations", "steps"),
    [(219, 2, None, 110), (4, 2, None, 2), (1, 4, None, 1), (5, 2, 150, 150), (7, 1, None, 7)],
)
def test_iterations_per_epoch(n_cases, batch, iterations, steps):
    assert iterations_per_epoch(n_cases, batch, iterations) == steps


def test_one_pass_holds_each_case_once_and_fills_up_from_the_next():
    steps = list(batches(cases(7), batch_size=2))
    names = [sample.names[0] for sample in flat(steps)]
    assert [len(step) for step in steps] == [2, 2, 2, 2]
    assert sorted(names[:7]) == [f"case{i:02d}" for i in range(7)]
    assert names[7] in names[:7]


def test_order_counts_occurrences_pass_by_pass():
    order = epoch_order(["b", "a", "c"], seed=4, epoch=2, length=8)
    for start, occurrence in ((0, 0), (3, 1)):
        assert sorted(order[start : start + 3]) == [(name, occurrence) for name in "abc"]
    assert [occurrence for _, occurrence in order[6:]] == [2, 2]
    assert order[:4] == epoch_order(["c", "b", "a"], seed=4, epoch=2, length=4)


def test_order_is_the_permutation_of_a_sha256_key():
    """Not of Python's `hash`, which differs from process to process."""
    key = int(hashlib.sha256(b"order\x007\x0011").hexdigest(), 16)
    expected = np.random.default_rng(key).permutation(9)
    names = [f"n{i}" for i in range(9)]
    assert epoch_order(names, seed=7, epoch=11, length=9) == [(f"n{i}", 0) for i in expected]


def test_epochs_and_seeds_differ_in_order_and_crops():
    entries = cases(6)
    base = flat(batches(entries))
    for change in ({"epoch": 1}, {"seed": 1}):
        other = flat(batches(entries, **change))
        assert [s.names for s in base] != [s.names for s in other]
        images = {sample.names: sample.images for sample in other}
        assert not any(torch.equal(sample.images, images[sample.names]) for sample in base)


def test_a_case_that_comes_again_is_cut_anew():
    samples = flat(batches(cases(1), iterations=4))
    assert len(samples) == 8
    assert len({sample.images.numpy().tobytes() for sample in samples}) == 8


def test_every_subset_comes_about_equally_often():
    samples = flat(batches([case("one")], iterations=300))
    _, counts = torch.unique(torch.cat([s.available for s in samples]), dim=0, return_counts=True)
    assert len(counts) == 15
    assert ((counts - 40.0) ** 2 / 40).sum() < 36.1  # chi-square, 14 degrees, p = 0.001


def test_a_case_that_lacks_modalities_has_subsets_of_what_it_has():
    """FLAIR and T2 alone: three subsets, equally often; what stands in the others' place is not seen."""
    lacking = replace(case("one"), modalities=("FLAIR", "T2"))
    spoiled = lacking.arrays["images"].copy()
    spoiled[1:3] = 1e6
    samples = flat(batches([lacking], iterations=300))
    others = flat(batches([replace(lacking, arrays={**lacking.arrays, "images": spoiled})], iterations=300))
    subsets_, counts = torch.unique(torch.cat([s.available for s in samples]), dim=0, return_counts=True)
    assert subsets_.int().tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [1, 0, 0, 1]]
    assert ((counts - 200.0) ** 2 / 200).sum() < 13.8  # chi-square, 2 degrees, p = 0.001
    assert all(equal(one, other) for one, other in zip(samples, others, strict=True))
    assert all(not sample.images[:, 1:3].any() and sample.images[:, ::3].any() for sample in samples)
    assert all(sample.present.tolist() == [[True, False, False, True]] for sample in samples)


def test_cases_that_lack_nothing_are_beside_one_that_does_what_they_were():
    entries = cases(3)
    holed = [replace(entries[0], modalities=("T1",)), *entries[1:]]
    usual, beside = (flat(batches(given, iterations=6)) for given in (entries, holed))
    assert all(sample.present is None for sample in usual)
    for one, other in zip(usual, beside, strict=True):
        assert other.present.tolist() == [
            [other.names != ("case00",)] * 2 + [True, other.names != ("case00",)]
        ]
        assert other.names == ("case00",) or equal(one, other)


def test_a_method_that_never_draws_what_a_case_has_is_told():
    def everything(generator, n, epoch):
        return torch.ones(n, 4, dtype=torch.bool)

    with pytest.raises(RuntimeError, match=r"case00: has .*'T1'.*no subset of that is drawn"):
        list(batches([replace(cases(1)[0], modalities=("T1",))], sample_subsets=everything))


# --- determinism


def test_threads_do_not_change_the_batches():
    one = flat(batches(cases(5), threads=1, iterations=6))
    four = flat(batches(cases(5, delay=0.002), threads=4, iterations=6))
    assert len(one) == 12
    assert not crop_threads()
    assert all(equal(a, b) for a, b in zip(one, four, strict=True))


def test_the_order_of_the_entries_does_not_matter():
    one, other = flat(batches(cases(5))), flat(batches(cases(5)[::-1]))
    assert all(equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_partition_each_batch(world):
    entries = cases(6)
    whole = list(batches(entries, batch_size=4, iterations=3))
    shares = [list(batches(entries, batch_size=4, iterations=3, rank=r, world=world)) for r in range(world)]
    for step in range(3):
        joined = flat(share[step] for share in shares)
        assert all(len(share[step]) == 4 // world for share in shares)
        assert all(equal(a, b) for a, b in zip(whole[step], joined, strict=True))


def test_a_sample_depends_on_its_own_key_alone():
    """Another case in the list changes the order, but not what is drawn for the first crop of a case."""
    few = {sample.names: sample for sample in flat(batches(cases(3), batch_size=1))}
    many = {sample.names: sample for sample in flat(batches(cases(4), batch_size=1))}
    assert all(equal(sample, many[names]) for names, sample in few.items())


def test_numpys_and_torchs_global_state_do_not_matter():
    torch.manual_seed(1)
    first = flat(batches(cases(2)))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = flat(batches(cases(2)))
    assert all(equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


# --- samples


def test_crops_come_from_the_cache(tmp_path):
    phantom.write(tmp_path / "cases", cases=2, seed=0, shape=(32, 36, 32), spacing=5.0)
    plain = config.Augmentation(rotation=0, intensity_scale=0, intensity_shift=0, flip=0)
    data = config.Data(crop=(16, 16, 16), min_size=16, lesion_crops=1.0, augmentation=plain)
    entries = cache.prepare(find(tmp_path / "cases").cases, data, tmp_path / "cache", processes=1)
    for sample in flat(batches(list(entries.values()), data=data, iterations=3, threads=2)):
        entry = entries[sample.names[0]]
        corner = entry.meta.box.start
        assert any(corner)
        starts = [first - at for first, at in zip(sample.origin[0].tolist(), corner, strict=True)]
        place = tuple(slice(start, start + 16) for start in starts)
        np.testing.assert_array_equal(sample.images[0].numpy(), entry.images()[(slice(None), *place)])
        np.testing.assert_array_equal(sample.labels[0].numpy(), entry.labels()[place])
        assert sample.labels.any()  # centred on the lesion


def test_lesion_crops_hold_the_lesion_in_their_centre():
    entry, data = case("a"), DATA.model_copy(update={"lesion_crops": 1.0})
    _, labels, start = cut(entry, data, np.random.default_rng(0))
    assert start == (16, 16, 0)  # 20 - 4, 21 - 4 and 3 - 4, clamped to 0..16
    assert np.argwhere(labels).tolist() == [[4, 5, 3]]


def test_uniform_crops_do_not_read_the_lesion_voxels():
    class NoLesions(Case):
        def lesion_voxels(self):
            raise AssertionError

    cut(NoLesions("a", case("a").arrays), DATA, np.random.default_rng(0))


def test_crops_are_copies_of_a_memory_map(tmp_path):
    np.save(tmp_path / "images.npy", case("a").arrays["images"])
    mapped = {"images": np.load(tmp_path / "images.npy", mmap_mode="r"), "labels": case("a").arrays["labels"]}
    images, _, _ = cut(Case("a", mapped), DATA, np.random.default_rng(0))
    assert type(images) is np.ndarray
    assert images.flags.writeable
    assert images.shape == (4, 8, 8, 8)


def test_samples_and_slices_of_them():
    (samples,) = batches(cases(3), batch_size=3)
    assert len(samples) == 3
    assert (samples.images.shape, samples.images.dtype) == ((3, 4, 8, 8, 8), torch.float32)
    assert (samples.labels.shape, samples.labels.dtype) == ((3, 8, 8, 8), torch.uint8)
    assert (samples.available.shape, samples.available.dtype) == ((3, 4), torch.bool)
    assert (samples.origin.shape, samples.origin.dtype) == ((3, 3), torch.int64)
    part = samples[1:]
    assert (part.names, part.keys) == (samples.names[1:], samples.keys[1:])
    assert torch.equal(part.images, samples.images[1:])
    assert part.images.data_ptr() == samples.images[1].data_ptr()
    for sample in flat([samples]):
        (entry,) = (each for each in cases(3) if (each.name,) == sample.names)
        generator = np.random.default_rng(key("crop", 0, 0, entry.name, 0))
        crop, classes, origin = cut(entry, DATA, generator)
        images, labels, flips = augment(crop, classes, DATA.augmentation, generator)
        assert np.array_equal(sample.images[0].numpy(), images)
        assert np.array_equal(sample.labels[0].numpy(), labels)
        assert sample.origin[0].tolist() == [at + c for at, c in zip(origin, (3, -2, 7), strict=True)]
        assert sample.flips[0].tolist() == list(flips)
        assert sample.keys == (key("method", 0, 0, entry.name, 0) % 2**63,)


def key(*parts) -> int:
    return int(hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest(), 16)


# --- threads


def test_look_ahead_is_bounded():
    asked = []

    class Counted(Case):
        def images(self):
            asked.append(self.name)
            return super().images()

    entries = [Counted(entry.name, entry.arrays) for entry in cases(12)]
    steps = batches(entries, batch_size=2, threads=2)
    next(steps)
    most, deadline = 2 + 2 * loader.LOOK_AHEAD, time.monotonic() + 120
    while len(asked) < most and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # it might go on
    assert len(asked) == most
    steps.close()


def test_closing_early_ends_the_threads():
    steps = batches(cases(12, delay=0.01), threads=3)
    next(steps)
    assert crop_threads()
    steps.close()
    assert not crop_threads()


def test_an_epoch_starts_with_its_own_crops():
    """Not with all 2,000 of them."""
    asked = []

    class Counted(Case):
        def images(self):
            asked.append(self.name)
            return super().images()

    next(batches([Counted(entry.name, entry.arrays) for entry in cases(3)], iterations=1000))
    assert 2 <= len(asked) <= 2 + 2 * loader.LOOK_AHEAD


@pytest.mark.parametrize(("kind", "error"), [(Broken, RuntimeError), (Unreadable, UserError)])
def test_errors_name_the_case_and_end_the_threads(kind, error):
    with pytest.raises(error, match=r"^bad_case: .*(disk is gone|cache is damaged)"):
        list(batches([case("good"), kind("bad_case", case("bad_case").arrays)], threads=2))
    assert not crop_threads()


@pytest.mark.parametrize(
    ("entries", "options", "message"),
    [
        ([], {}, "0 entries"),
        ([case("a"), case("a")], {}, "2 entries with 1 different"),
        ([case("a")], {"batch_size": 1, "world": 2}, "has no share"),
        ([case("a")], {"rank": 2, "world": 2}, "has no share"),
    ],
)
def test_impossible_requests_are_refused_at_the_call(entries, options, message):
    with pytest.raises(ValueError, match=message):
        batches(entries, **options)
