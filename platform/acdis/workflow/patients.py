"""Many patients: one after the other or side by side, each kept as soon as it is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from acdis import files, machine
from acdis.cells import Cell
from acdis.data.scan import read
from acdis.errors import UserError
from acdis.prediction import output, pool
from acdis.prediction.model import Model, name_of, open_model, spacing_of
from acdis.prediction.predict import NOT_CLINICAL, Options, Prediction, predict, stamps
from acdis.terminal.progress import Display
from acdis.vocabulary import REGIONS

#: Bytes that a worker may take. ACDIS of base width 16 took 2.8 GB on a case of BraTS
#: (benchmarks/predict.py); other methods' windows may take a gigabyte more.
_BYTES = 4 * 2**30
#: Processors for each worker, where their number is not given.
_PROCESSORS = 2


@dataclass(frozen=True)
class Manner:
    """How each patient is segmented and what is written of it.

    Attributes:
        probabilities, uncertainty, picture: what to write beside the segmentation.
        device: as torch names it; none: a GPU where there is one.
    """

    resample: bool = False
    flips: bool = False
    probabilities: bool = False
    uncertainty: bool = False
    picture: bool = False
    device: str | None = None

    @property
    def options(self) -> Options:
        return Options(self.flips, self.probabilities or self.uncertainty, self.uncertainty)

    @property
    def asked(self) -> dict[str, bool]:
        """The options that change what is written."""
        names = ("resample", "flips", "probabilities", "uncertainty", "picture")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Patient:
    """One of many: its images by modality, and where its segmentation goes."""

    name: str
    given: dict[str, Path]
    place: Path


def segment_all(
    manner: Manner,
    cells: Sequence[Cell],
    given: Mapping[str, dict[str, Path]],
    out: Path,
    workers: int | None,
    display: Display,
) -> None:
    """Segment every patient into a folder; what the same files and cells have given already is kept.

    Args:
        given: modality → file, by the patient's name.
        workers: processes; none: as many as processors, GPUs and memory carry.

    Raises:
        UserError: the folder cannot be written; or patients that were not segmented, once all others are.
    """
    if out.name.endswith((".nii", ".nii.gz")):
        raise UserError(f"{out}: with --root give -o a folder")
    output.try_folder(out)
    files.sweep_beside(out / "any")
    every = [Patient(name, images, out / f"{name}.nii.gz") for name, images in given.items()]
    due = [patient for patient in every if not _is_done(manner, cells, patient)]
    if len(due) < len(every):
        kept = len(every) - len(due)
        display.say(f"{kept} of {len(every)} were done already, from the same files by the same cells")
    failures: list[tuple[str, Exception]] = []
    display.count("cases", 0, len(due))
    for number, (patient, told) in enumerate(_each(manner, cells, due, workers, display), 1):
        display.say(f"{patient.name}: {_last_line(told)}")
        if isinstance(told, Exception):
            failures.append((patient.name, told))
        display.count("cases", number, len(due))
    if bugs := [error for _, error in failures if not isinstance(error, UserError)]:
        raise bugs[0]
    if failures:
        lines = "".join(f"\n  {name}: {error}" for name, error in failures)
        raise UserError(f"{len(failures)} of {len(every)} cases were not segmented, all others were:{lines}")


def _last_line(told: str | Exception) -> str:
    """A traceback is shown once, at the end; beside the patient's name its last line."""
    return str(told).strip().rpartition("\n")[2]


def _each(
    manner: Manner, cells: Sequence[Cell], due: Sequence[Patient], workers: int | None, display: Display
) -> Iterator[tuple[Patient, str | Exception]]:
    """Every patient with a line about it, or why there is none."""
    if not due:
        return
    devices = _devices(manner.device)
    number = min(len(due), workers or _carried(devices))
    if number > 1:
        threads = max(1, machine.processors() // number)
        display.say(f"{len(due)} cases on {number} workers with {threads} threads each")
        yield from pool.each(due, partial(_opened, manner, cells, devices), number, threads)
        return
    work = _opened(manner, cells, devices, 0)
    for patient in due:
        try:
            yield patient, work(patient)
        except Exception as error:
            yield patient, error


def _devices(given: str | None) -> list[str]:
    """Where to compute: as given, else every GPU, else the CPU."""
    import torch

    if given:
        return [given]
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def _carried(devices: Sequence[str]) -> int:
    """Workers: one for each GPU; on a CPU one for every two processors, as far as there is memory."""
    if devices[0].startswith("cuda"):
        return len(devices)
    return max(1, min(machine.processors() // _PROCESSORS, machine.free() // _BYTES))


def _opened(
    manner: Manner, cells: Sequence[Cell], devices: Sequence[str], number: int
) -> Callable[[Patient], str]:
    """What segments a patient, on this worker's device; the networks are made with the first."""
    models: list[Model] = []

    def work(patient: Patient) -> str:
        output.check(patient.place, patient.given.values())
        scan = read(patient.given, manner.resample, spacing_of(cells[0]))
        if not models:
            models.extend([open_model(cell, devices[number % len(devices)]) for cell in cells])
        done = predict(models, scan, manner.options)
        write(manner, done, patient.place)
        return f"{volumes(done)}, from {', '.join(scan.modalities)}"

    return work


def _is_done(manner: Manner, cells: Sequence[Cell], patient: Patient) -> bool:
    """Whether the report beside a segmentation says that this very request has written it."""
    try:
        report: dict[str, Any] = json.loads(output.beside(patient.place, ".json").read_text())
        same = report["asked"] == manner.asked and report["cells"] == [name_of(cell) for cell in cells]
        return same and report["given"] == stamps(patient.given) and patient.place.exists()
    except (OSError, ValueError, LookupError, TypeError):
        return False


def write(manner: Manner, done: Prediction, place: Path) -> dict[str, Path]:
    """The report is last: who finds it finds the rest. Returns what was written, as `Prediction.save`."""
    if manner.picture:
        from acdis.report.overview import draw

        images = dict(zip(done.scan.modalities, done.scan.images, strict=True))
        title = f"{output.stem(place)}: {volumes(done)} · {', '.join(done.report['cells'])} · {NOT_CLINICAL}"
        draw(output.beside(place, ".png"), images, done.classes, done.scan.spacing, title)
    done.report["asked"] = manner.asked
    return done.save(place, manner.probabilities, manner.uncertainty)


def volumes(done: Prediction) -> str:
    """`WT 61.2 ml, TC 20.1 ml, ET 8.0 ml`."""
    return ", ".join(f"{region} {done.volumes_ml[region]:.1f} ml" for region in REGIONS)
