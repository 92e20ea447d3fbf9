"""Random crops a second: from the prepared cache, and by MONAI from the NIfTI files.

    python benchmarks/crops.py [ROOT] [--seconds 5] [--json FILE]

Both give 80³ of four modalities and the labels, at random places of one case, in one thread, not augmented,
with the files in the page cache. ROOT is a folder of BraTS cases, of which the first is taken; without it a
phantom of 240×240×155 voxels is drawn (some seconds). Preparing the cache is not counted: it happens once
per case, not per crop.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import machine
import numpy as np
import torch
import volume
from monai.transforms import Compose, LoadImaged, RandSpatialCropd

from acdis import config
from acdis.data import cache, cases, loader
from acdis.data.augment import augment
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

TARGET = 20.0
SEGMENTATION = "segmentation"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("root", nargs="?", type=Path, help="folder of BraTS cases; none: a phantom is drawn")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring each way")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure(options, Path(folder))
        except UserError as error:
            print(error, file=sys.stderr)
            sys.exit(2)


def measure(options: argparse.Namespace, scratch: Path) -> None:
    """Print both rates, their ratio, and the machine."""
    data = config.Data()
    case = volume.first_case(options.root, scratch)
    (entry,) = cache.prepare([case], data, scratch / "cache", processes=1).values()
    generator = np.random.default_rng(0)

    def cached() -> object:
        return loader.cut(entry, data, generator)

    def augmented() -> object:
        images, labels, _ = loader.cut(entry, data, generator)
        return augment(images, labels, data.augmentation, generator)

    ways = {"cache": cached, "cache_augmented": augmented, "monai": monai_crop(case, data)}
    rates = {name: rate(crop, options.seconds) for name, crop in ways.items()}
    ratio = rates["cache"] / rates["monai"]
    where = machine.facts(torch.get_num_threads(), ("numpy", "torch", "monai"))
    print(f"{case.name}, prepared volume {entry.labels().shape}, crops of {data.crop} voxels")
    print(f"cache                                {rates['cache']:9.1f} crops/s")
    print(f"cache, augmented                     {rates['cache_augmented']:9.1f} crops/s")
    print(f"MONAI LoadImage + RandSpatialCrop    {rates['monai']:9.1f} crops/s")
    print(f"cache / MONAI                        {ratio:9.1f} ×  (target: at least {TARGET:g} ×)")
    print(machine.line(where))
    machine.save(
        options.json, {"case": case.name, "crops_per_second": rates, "ratio": ratio, "machine": where}
    )


def monai_crop(case: cases.Case, data: config.Data) -> Callable[[], object]:
    """MONAI's way: read the five files, cut the same random place out of each."""
    files = {**dict(zip(MODALITIES, case.images, strict=True)), SEGMENTATION: case.segmentation}
    keys = list(files)
    transform = Compose(
        [
            LoadImaged(keys=keys, ensure_channel_first=True),
            RandSpatialCropd(keys=keys, roi_size=data.crop, random_size=False),
        ]
    ).set_random_state(seed=0)
    return lambda: transform(files)


def rate(crop: Callable[[], object], seconds: float) -> float:
    """Calls a second, over at least three calls and `seconds`, after one that warms up."""
    crop()
    calls, start = 0, time.perf_counter()
    while calls < 3 or time.perf_counter() - start < seconds:
        crop()
        calls += 1
    return calls / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
