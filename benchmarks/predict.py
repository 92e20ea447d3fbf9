"""Segmenting one patient: the whole against the network's own time, the start, and the peak of memory.

    python benchmarks/predict.py CASE [--given FLAIR,T1ce] [--width 16] [--window 80] [--stride 40]

CASE is a folder of a BraTS case. An untrained ACDIS of that width segments it from the modalities that are
given, as `acdis predict` does, in a process of its own. The network's own time is what its encoder and
decoder take for the same windows, in the same run; the rest is reading, preparing, adding up windows and
finding pieces. The start is from the process's first line to the first window, less what importing torch and
reading the files take, each timed apart (the files lie in the system's cache both times). The peak is the
process's largest resident memory, libraries included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
from step import peak_bytes

#: What sliding windows call of a method.
ENTRANCES = ("encode", "decode", "decode_subsets")
SIZE = ("width", "window", "stride")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    given = images_of(options.case, options.given.split(","))
    if options.cell is not None:
        print(json.dumps(measure(options.cell, given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        cell = untrained(Path(folder), options)
        size = [f"--{name}={getattr(options, name)}" for name in SIZE]
        words = [__file__, str(options.case), f"--given={options.given}", *size]
        result = machine.apart("predict", [*words, f"--cell={cell}"])
    where = machine.facts(result["threads"], ("torch", "numpy", "nibabel"))
    print(report(result))
    print(machine.line(where))
    machine.save(options.json, {"given": options.given, **result, "machine": where})


def images_of(case: Path, modalities: Sequence[str]) -> dict[str, str]:
    """Modality → file, of the names that BraTS 2021 gives them."""
    return {name: str(case / f"{case.name}_{name.lower()}.nii.gz") for name in modalities}


def untrained(base: Path, options: argparse.Namespace) -> Path:
    """The folder of a cell with first weights, in the home `base`."""
    from acdis import cells, config, methods
    from acdis.training import checkpoint
    from acdis.training.run import new_method

    side = [options.window] * 3
    tree = {
        "data": {"crop": side, "min_size": options.window},
        "method": {"options": {"base_width": options.width}},
        "evaluation": {"window": side, "stride": [options.stride] * 3},
    }
    experiment = methods.resolve(config.parse(tree, "benchmark"))
    name = cells.cell_name(experiment, "none", methods.version(experiment.method.name))
    splits = {"train": ["BraTS2021_00000"], "validation": [], "test": []}
    cell = cells.create(base, name, experiment, {"tags": {}, "splits": splits})
    checkpoint.save(cell.weights, new_method(experiment).inference_state())
    cell.update(status="done")
    return cell.folder


def measure(cell: Path, given: dict[str, str]) -> dict[str, Any]:
    """In the fresh process."""
    read_all(given)  # into the system's cache
    began = time.perf_counter()
    import torch

    imported = time.perf_counter()
    read_all(given)
    read = time.perf_counter()
    import acdis
    from acdis.prediction.model import open_model

    model = open_model(acdis.open_cell(cell), "cpu")
    spent = Spent(model.method)
    acdis.predict(model, given)
    ended = time.perf_counter()
    return {
        "seconds": ended - read,
        "network_seconds": spent.seconds,
        "windows": spent.calls,
        "import_torch_seconds": imported - began,
        "read_seconds": read - imported,
        "start_seconds": spent.first - read - (read - imported),
        "peak_bytes": peak_bytes(),
        "threads": torch.get_num_threads(),
    }


class Spent:
    """What a method's encoder and decoders take, the inner of nested calls counted once.

    Attributes:
        first: when the first call began, by `time.perf_counter`.
        calls: of the encoder.
    """

    def __init__(self, method: Any) -> None:
        self.seconds, self.first, self.calls, self._inside = 0.0, 0.0, 0, False
        for name in ENTRANCES:
            setattr(method, name, self._timed(name, getattr(method, name)))

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*values: Any, **named: Any) -> Any:
            self.calls += name == "encode"
            if self._inside:
                return call(*values, **named)
            began, self._inside = time.perf_counter(), True
            self.first = self.first or began
            try:
                return call(*values, **named)
            finally:
                self.seconds += time.perf_counter() - began
                self._inside = False

        return timed


def read_all(given: dict[str, str]) -> None:
    import nibabel
    import numpy

    for file in given.values():
        numpy.asanyarray(nibabel.load(file).dataobj)  # type: ignore[attr-defined]


def report(result: dict[str, Any]) -> str:
    ratio = result["seconds"] / result["network_seconds"]
    return (
        f"one case, {result['windows']} calls of the encoder: {result['seconds']:.1f} s, {ratio:.2f} times "
        f"the network's own {result['network_seconds']:.1f} s\n"
        f"start to first window: {result['start_seconds']:.2f} s beside importing torch "
        f"({result['import_torch_seconds']:.2f} s) and reading the files ({result['read_seconds']:.2f} s)\n"
        f"peak of memory: {result['peak_bytes'] / machine.GB:.2f} GB"
    )


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("case", type=Path)
    parser.add_argument("--given", default="FLAIR,T1ce", help="modalities, between commas")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--window", type=int, default=80)
    parser.add_argument("--stride", type=int, default=40)
    parser.add_argument("--cell", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
