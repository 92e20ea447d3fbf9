"""Crops for one epoch of training: which case when, cut, augmented and prepared ahead by threads.

Each sample's random state is keyed by (seed, epoch, case name, occurrence), so it does not depend on the
number of threads, on the rank that draws it, or on what was drawn before.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from acdis import config
from acdis.data.augment import Start, augment, random_crop_start
from acdis.data.prepared_case import check_values
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

#: Draws which modalities the next n samples of an epoch have: bool [n, 4].
SubsetSampler = Callable[[torch.Generator, int, int], Tensor]

#: Subsets that are drawn for a sample until its case has what one names: of 15 one may be right, so that a
#: thousand draws without it come once in 10^30.
MOST_DRAWS = 1000

#: Batches that are prepared while the training computes on one.
LOOK_AHEAD = 2


class Volumes(Protocol):
    """What the loader asks of a cached case (`prepared_case.Entry`); arrays may be memory-mapped."""

    @property
    def name(self) -> str: ...

    def images(self) -> npt.NDArray[np.float32]:
        """float32 [4, D, H, W]."""

    def labels(self) -> npt.NDArray[np.uint8]:
        """uint8 [D, H, W], 0..3."""

    def lesion_voxels(self) -> npt.NDArray[Any]:
        """Integer [N, 3], possibly without rows."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the case has, in the order of MODALITIES; the images of others mean nothing."""

    @property
    def corner(self) -> Start:
        """Where the first voxel of these arrays lies in the case's whole volume, voxels; may be negative."""


@dataclass(frozen=True)
class Samples:
    """Crops as a method is trained on them; a slice of them is a view.

    Attributes:
        images: float32 [n, 4, D, H, W], all that the cases have: the method hides what is not available.
        labels: uint8 [n, D, H, W], 0..3.
        available: bool [n, 4], in the order of MODALITIES; of what the sample's case has.
        origin: int64 [n, 3], each crop's first voxel in the case's whole volume, before augmentation.
        flips: bool [n, 3], the axes along which augmentation turned it round.
        names: of the cases.
        keys: a number per sample, of (seed, epoch, case, occurrence): where its randomness comes from.
        present: bool [n, 4], what each sample's case has; images of the rest are 0. None: no case of the
            training lacks any, in this batch or another.
    """

    images: Tensor
    labels: Tensor
    available: Tensor
    origin: Tensor
    flips: Tensor
    names: tuple[str, ...]
    keys: tuple[int, ...]
    present: Tensor | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Samples]:
        """One at a time."""
        return (self[at : at + 1] for at in range(len(self)))

    def __getitem__(self, part: slice) -> Samples:
        return Samples(
            self.images[part],
            self.labels[part],
            self.available[part],
            self.origin[part],
            self.flips[part],
            self.names[part],
            self.keys[part],
            None if self.present is None else self.present[part],
        )


def iterations_per_epoch(n_cases: int, batch_size: int, iterations: int | None = None) -> int:
    """Optimiser steps of an epoch: `iterations`, or one pass over the cases, the last batch filled up.

    110 for 219 cases at batch 2, as in the paper.
    """
    return -(-n_cases // batch_size) if iterations is None else iterations


def epoch_batches(
    entries: Sequence[Volumes],
    data: config.Data,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    sample_subsets: SubsetSampler,
    iterations: int | None = None,
    rank: int = 0,
    world: int = 1,
    threads: int = 1,
    pinned: bool = False,
) -> Iterator[Samples]:
    """This rank's share of every batch of an epoch, in order.

    The batches run through seeded permutations of the cases, one after the other: every case once before any
    comes again. Which samples of a global batch are this rank's, `share_of` says. At most `LOOK_AHEAD`
    batches are cut ahead. Subsets are drawn in the caller's thread, when their batch is handed out.

    Args:
        entries: the training cases; their order does not matter.
        batch_size: samples per step over all ranks.
        iterations: steps of the epoch; none: one pass, filled up to whole batches from the next permutation.
        sample_subsets: called per sample with that sample's own generator, 1, and the epoch.
        threads: that prepare crops.
        pinned: put crops into page-locked memory, from which a GPU fetches them while others are computed.

    A sample has a subset of what its case has: what is drawn beyond that is drawn again, so that among the
    subsets it can have the shares are those of `sample_subsets`.

    Raises:
        ValueError: no cases, two of one name, or fewer samples in a batch than ranks.
        UserError, RuntimeError: a crop could not be made; the message begins with the case's name. None of
            the subsets that are drawn is of what the case has.
    """
    cases = {entry.name: entry for entry in entries}
    if not cases or len(cases) != len(entries):
        raise ValueError(f"{len(entries)} entries with {len(cases)} different names")
    steps = iterations_per_epoch(len(cases), batch_size, iterations)
    share = share_of(batch_size, rank, world)
    order = epoch_order(list(cases), seed, epoch, steps * batch_size)
    mine = [item for i, item in enumerate(order) if i % batch_size in share]
    requests = [_Request(cases[name], data, seed, epoch, occurrence) for name, occurrence in mine]
    shares = [requests[at : at + len(share)] for at in range(0, len(requests), len(share))]
    lacking = any(entry.modalities != MODALITIES for entry in entries)
    return _prepared_ahead(shares, threads, sample_subsets, pinned, lacking)


def share_of(batch_size: int, rank: int, world: int) -> range:
    """Which samples of a global batch belong to a rank: as equal shares as can be, larger ones first.

    Raises:
        ValueError: a rank would have none, or is not among so many.
    """
    if not 0 <= rank < world <= batch_size:
        raise ValueError(f"a batch of {batch_size} has no share for rank {rank} of {world}")
    share, more = divmod(batch_size, world)
    first = rank * share + min(rank, more)
    return range(first, first + share + (rank < more))


def epoch_order(names: Sequence[str], seed: int, epoch: int, length: int) -> list[tuple[str, int]]:
    """(case, occurrence) of the epoch's samples: permutation after permutation, keyed by (seed, epoch).

    The occurrence counts how often the case came before in this epoch.
    """
    generator = np.random.default_rng(_key("order", seed, epoch))
    ordered = sorted(names)
    order: list[tuple[str, int]] = []
    seen: Counter[str] = Counter()
    while len(order) < length:
        for index in generator.permutation(len(ordered))[: length - len(order)]:
            name = ordered[index]
            order.append((name, seen[name]))
            seen[name] += 1
    return order


def cut(
    entry: Volumes, data: config.Data, generator: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], Start]:
    """A random crop, not augmented, copied out of the cached case.

    Returns:
        images float32 [4, *data.crop], labels uint8 [*data.crop], the crop's first voxel.

    Raises:
        UserError: as `check_values`.
    """
    images, labels = entry.images(), entry.labels()
    lesion = entry.lesion_voxels() if data.lesion_crops else None
    start = random_crop_start(labels.shape, data.crop, generator, lesion, data.lesion_crops)
    place = tuple(slice(first, first + side) for first, side in zip(start, data.crop, strict=True))
    crop, classes = np.array(images[(slice(None), *place)]), np.array(labels[place])
    check_values(entry.name, crop, classes)
    return crop, classes, start


@dataclass(frozen=True)
class _Request:
    """One sample that is to be made."""

    entry: Volumes
    data: config.Data
    seed: int
    epoch: int
    occurrence: int

    def key(self, purpose: str) -> int:
        return _key(purpose, self.seed, self.epoch, self.entry.name, self.occurrence)

    def fill(
        self, images: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8]
    ) -> tuple[Start, tuple[bool, ...]]:
        """Cut and augment into the place in the batch. Runs in a thread of the pool.

        Returns:
            The crop's first voxel in the whole volume, and which axes were turned round.
        """
        generator = np.random.default_rng(self.key("crop"))
        try:
            crop, classes, start = cut(self.entry, self.data, generator)
            images[:], labels[:], flips = augment(crop, classes, self.data.augmentation, generator)
            images[[not there for there in self.present]] = 0  # a shift of intensities moves nothing, too
        except UserError as error:
            said = str(error).removeprefix(f"{self.entry.name}: ")
            raise UserError(f"{self.entry.name}: {said}") from error
        except Exception as error:
            raise RuntimeError(f"{self.entry.name}: no crop could be made: {error}") from error
        d, h, w = (at + corner for at, corner in zip(start, self.entry.corner, strict=True))
        return (d, h, w), flips

    @property
    def present(self) -> tuple[bool, ...]:
        """Which of MODALITIES the case has."""
        return tuple(modality in self.entry.modalities for modality in MODALITIES)

    def available(self, sample_subsets: SubsetSampler) -> Tensor:
        """The modalities that this sample has; the training calls this in its own thread."""
        generator = torch.Generator().manual_seed(self.key("subset") % 2**63)
        lacking = ~torch.tensor(self.present)
        for _ in range(MOST_DRAWS):
            drawn = sample_subsets(generator, 1, self.epoch)[0]
            if not (drawn & lacking).any():
                return drawn
        raise RuntimeError(f"{self.entry.name}: has {self.entry.modalities}, and no subset of that is drawn")


class _BatchShare:
    """A rank's part of a batch that threads are filling in: its crops are never stacked, nor copied again."""

    def __init__(
        self, requests: Sequence[_Request], pool: ThreadPoolExecutor, pinned: bool, lacking: bool
    ) -> None:
        self.requests, self.pinned, self.lacking = requests, pinned, lacking
        size = (len(requests), *requests[0].data.crop)
        self.images = torch.empty(size[0], len(MODALITIES), *size[1:], pin_memory=pinned)
        self.labels = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        self.places = [
            pool.submit(request.fill, images, labels)
            for request, images, labels in zip(
                requests, self.images.numpy(), self.labels.numpy(), strict=True
            )
        ]

    def samples(self, sample_subsets: SubsetSampler) -> Samples:
        """When all are there."""
        origins, flips = zip(*(place.result() for place in self.places), strict=True)
        return Samples(
            self.images,
            self.labels,
            self._placed(torch.stack([request.available(sample_subsets) for request in self.requests])),
            self._placed(torch.tensor(origins, dtype=torch.int64)),
            self._placed(torch.tensor(flips)),
            tuple(request.entry.name for request in self.requests),
            tuple(request.key("method") % 2**63 for request in self.requests),
            self._placed(torch.tensor([request.present for request in self.requests]))
            if self.lacking
            else None,
        )

    def _placed(self, values: Tensor) -> Tensor:
        return values.pin_memory() if self.pinned else values


def _prepared_ahead(
    shares: Sequence[Sequence[_Request]],
    threads: int,
    sample_subsets: SubsetSampler,
    pinned: bool,
    lacking: bool,
) -> Iterator[Samples]:
    """Each share when it is ready, in order; closing the iterator ends the threads."""
    waiting: deque[_BatchShare] = deque()
    todo = iter(shares)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="crops")
    try:
        waiting.extend(_BatchShare(requests, pool, pinned, lacking) for requests in islice(todo, LOOK_AHEAD))
        while waiting:
            samples = waiting.popleft().samples(sample_subsets)
            waiting.extend(_BatchShare(requests, pool, pinned, lacking) for requests in islice(todo, 1))
            yield samples
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _key(*parts: str | int) -> int:
    """A number of 256 bits for these parts, the same in every process (unlike `hash`)."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest(), "big")
