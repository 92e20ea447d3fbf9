"""Does data ever hold a step up? A set of full-size cases, a step of 100 ms.

    python benchmarks/feeding.py [ROOT] [--cases 369] [--step-ms 100] [--threads 2] [--json FILE]

The set is one prepared case under many names: a real one, the first of ROOT, or a phantom of BraTS' size.
Its arrays are hard links, so all crops come from the page cache. Shown: how long the whole cache takes to
open, how long until an epoch's first batch is there, the share of time that a training with steps of
`--step-ms` (nothing is computed, as on an accelerator) waits for its batches of two augmented 80³ crops, and
how fast bare crops come beside reading the file from one end to the other. The process has the memory
allocator of this platform's workers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
import volume

from acdis import config
from acdis.data import cache, loader
from acdis.data.cases import Case
from acdis.data.fingerprints import fingerprint
from acdis.data.prepared_case import Entry
from acdis.errors import UserError

TARGETS = {"open_seconds": 1.0, "first_batch_seconds": 1.0, "waiting": 0.03, "rate": 0.5}
CROPS = 100


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        try:
            result = measure(options, Path(folder))
        except UserError as error:
            print(error, file=sys.stderr)
            sys.exit(2)
    where = machine.facts(options.threads, ("numpy", "torch"))
    print(report(options, result))
    print(machine.line(where))
    machine.save(options.json, result | {"machine": where})


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All figures; seconds and shares."""
    data = config.Data(crop=(options.crop,) * 3)
    cases = many(volume.first_case(options.root, scratch), data, scratch, options.cases)
    start = time.perf_counter()
    entries = list(cache.prepare(cases, data, scratch / "cache", options.threads).values())
    opened = time.perf_counter() - start
    return {
        "cases": len(entries),
        "open_seconds": opened,
        **feed(entries, data, options),
        **rates(entries[0], entries, data),
    }


def many(case: Case, data: config.Data, scratch: Path, count: int) -> list[Case]:
    """`count` cases of different content, prepared: each is the first one's arrays under another name.

    Their files only have to differ: what is prepared already is recognised by a hash and not read again.
    """
    folder = scratch / "cache"
    (first,) = cache.prepare([case], data, folder, processes=1).values()
    made = []
    for number in range(count):
        name = f"Case_{number:05}"
        files = [scratch / "files" / name / file.name for file in case.files]
        files[0].parent.mkdir(parents=True)
        for file in files:
            file.write_text(f"{file}")
        twin = replace(case, name=name, images=tuple(files[:-1]), segmentation=files[-1])
        _link(first, twin, fingerprint(twin, data, folder), folder)
        made.append(twin)
    return made


def _link(entry: Entry, twin: Case, mark: str, folder: Path) -> None:
    """The entry's arrays by hard links, and a record for the twin."""
    target = folder / f"{twin.name}-{mark[:12]}"
    shutil.copytree(entry.path, target, copy_function=os.link)
    record = json.loads((target / "case.json").read_text())
    (target / "case.json").unlink()  # a link: written through, it would change the entry's own
    record |= {"name": twin.name, "fingerprint": mark, "voxels": mark}
    (target / "case.json").write_text(json.dumps(record))


def feed(entries: Sequence[Entry], data: config.Data, options: argparse.Namespace) -> dict[str, float]:
    """Seconds to the first batch; the share of time that steps then wait for theirs."""
    start = time.perf_counter()
    batches = loader.epoch_batches(
        entries,
        data,
        seed=0,
        epoch=0,
        batch_size=2,
        iterations=options.steps + 1,
        threads=options.threads,
        sample_subsets=lambda generator, n, epoch: torch.ones(n, 4, dtype=torch.bool),
    )
    next(batches)
    first = time.perf_counter() - start
    waited, began = 0.0, time.perf_counter()
    for _ in range(options.steps):
        time.sleep(options.step_ms / 1000)
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
    whole = time.perf_counter() - began
    batches.close()  # type: ignore[attr-defined]
    return {"first_batch_seconds": first, "waiting": waited / whole, "step_seconds": whole / options.steps}


def rates(first: Entry, entries: Sequence[Entry], data: config.Data) -> dict[str, float]:
    """Bytes a second: bare crops of cases at random, the same boxes copied out of one open map,
    which no reader of this layout can beat, and one file from one end to the other, three times."""
    generator = np.random.default_rng(0)
    chosen = generator.integers(len(entries), size=CROPS)
    start = time.perf_counter()
    size = 0
    for index in chosen:
        images, labels, _ = loader.cut(entries[index], data, generator)
        size += images.nbytes + labels.nbytes
    crops = size / (time.perf_counter() - start)
    copies = _copies(first.images(), data, generator)
    file = first.path / "image.npy"
    buffer = bytearray(file.stat().st_size)
    start = time.perf_counter()
    for _ in range(3):
        with file.open("rb", buffering=0) as stream:
            stream.readinto(buffer)
    whole = 3 * len(buffer) / (time.perf_counter() - start)
    return {
        "crop_bytes_per_second": crops,
        "copy_bytes_per_second": copies,
        "file_bytes_per_second": whole,
        "rate": crops / whole,
    }


def _copies(images: np.ndarray, data: config.Data, generator: np.random.Generator) -> float:
    """Bytes a second, the second time, when no page of the map is new."""
    buffer = np.empty((4, *data.crop), dtype=np.float32)
    room = np.subtract(images.shape[1:], data.crop) + 1
    for starts in (generator.integers(room, size=(CROPS, 3)),) * 2:
        began = time.perf_counter()
        for start in starts:
            place = tuple(slice(first, first + side) for first, side in zip(start, data.crop, strict=True))
            np.copyto(buffer, images[(slice(None), *place)])
        seconds = time.perf_counter() - began
    return CROPS * buffer.nbytes / seconds


def report(options: argparse.Namespace, result: dict[str, Any]) -> str:
    """The lines for the terminal."""
    target = TARGETS
    return "\n".join(
        [
            f"{result['cases']} cases opened in {result['open_seconds']:.2f} s "
            f"(target: under {target['open_seconds']:g} s)",
            f"first batch of an epoch after {result['first_batch_seconds']:.2f} s "
            f"(target: under {target['first_batch_seconds']:g} s)",
            f"steps of {options.step_ms:g} ms wait {100 * result['waiting']:.1f} % of the time for batches "
            f"of two augmented {options.crop}³ crops, {options.threads} threads "
            f"(target: under {100 * target['waiting']:g} %)",
            f"{CROPS} random crops at {result['crop_bytes_per_second'] / machine.GB:.2f} GB/s, a file read "
            f"through at {result['file_bytes_per_second'] / machine.GB:.2f} GB/s: "
            f"{100 * result['rate']:.0f} % (target: at least {100 * target['rate']:g} %); "
            f"copies of boxes alone come at {result['copy_bytes_per_second'] / machine.GB:.2f} GB/s",
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("root", nargs="?", type=Path, help="folder of BraTS cases; none: a phantom is drawn")
    parser.add_argument(
        "--cases", type=int, default=369, help="how many names the case gets (BraTS 2020: 369)"
    )
    parser.add_argument("--crop", type=int, default=80, help="voxels a side")
    parser.add_argument("--step-ms", type=float, default=100.0, help="milliseconds that a step takes")
    parser.add_argument("--steps", type=int, default=60, help="steps that are fed")
    parser.add_argument("--threads", type=int, default=2, help="that prepare crops")
    parser.add_argument(
        "--scratch", type=Path, help="folder for the cache; none: the system's for temporary files"
    )
    return parser


if __name__ == "__main__":
    machine.as_worker()
    main()
