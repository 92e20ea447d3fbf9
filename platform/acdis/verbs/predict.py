"""`predict`: a trained cell and a patient's images in, a segmentation in the images' own grid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import home
from acdis.data.layouts import given_by_case
from acdis.data.scan import read
from acdis.errors import UserError
from acdis.prediction import output
from acdis.prediction.hand_on import find
from acdis.prediction.model import open_model, spacing_of
from acdis.prediction.predict import Prediction, predict
from acdis.terminal.progress import Display
from acdis.vocabulary import REGIONS
from acdis.workflow.patients import Manner, segment_all, volumes, write


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        cells: names (their beginnings will do) or folders; several are averaged.
        given: modality → file.
        case: folder of one patient, instead of `given`.
        root: folder of many, instead of both.
        out: file of the segmentation; with `root` a folder.
        workers: processes for `root`; none: as many as the machine carries.
    """

    cells: Sequence[str]
    given: Mapping[str, Path]
    case: Path | None
    root: Path | None
    out: Path
    manner: Manner
    workers: int | None


def run(request: Request) -> None:
    """Segment, and say what was found and what Dice to expect.

    Raises:
        UserError: the cells, the images or the place for the output are wrong. With `root` the others are
            done first.
    """
    ways = [way for way in (request.given, request.case, request.root) if way]
    if len(ways) != 1:
        problem = "no image given" if not ways else "several ways to give images"
        raise UserError(
            f"{problem}: give any of --flair, --t1ce, --t1 and --t2, or --case DIR, or --root DIR for many"
        )
    base = home.to_read()
    chosen = [find(base, name) for name in request.cells]
    if request.workers is not None and request.root is None:
        raise UserError("--workers: one patient is segmented in one process; give it with --root")
    manner = request.manner
    with Display() as display:
        if request.root is not None:
            by_case = given_by_case(request.root)
            segment_all(manner, chosen, by_case, request.out, request.workers, display)
            return
        given = dict(request.given) or _only_case(request.case)
        output.check(request.out, given.values())
        scan = read(given, manner.resample, spacing_of(chosen[0]))
        models = [open_model(cell, manner.device) for cell in chosen]
        done = predict(models, scan, manner.options, lambda n, of: display.count("windows", n, of))
        written = write(manner, done, request.out)
        display.say(f"segmentation: {written['segmentation']}, report: {written['report'].name}")
        _tell(done, display)


def _only_case(folder: Path | None) -> dict[str, Path]:
    assert folder is not None
    by_case = given_by_case(folder)
    if len(by_case) > 1:
        few = ", ".join(list(by_case)[:3])
        raise UserError(f"--case: {folder} holds {len(by_case)} cases ({few} …); --root segments all of them")
    return next(iter(by_case.values()))


def _tell(done: Prediction, display: Display) -> None:
    report = done.report
    lacking = f"; missing: {', '.join(report['missing'])}" if report["missing"] else ""
    display.say(f"{volumes(done)}, from {', '.join(report['used'])}{lacking}")
    for cell, dice in report["expected_dice_percent"].items():
        scores = ", ".join(
            f"{region} {dice[region]['mean']:.1f} (5th percentile {dice[region]['p5']:.1f})"
            for region in REGIONS
        )
        display.say(
            f"Dice to expect from these images, by the {dice['cases']} test cases of {cell}: {scores}"
        )
    for cell, lines in report["better"].items():
        for line in lines:
            display.say(f"{cell} would do better {line}")
    for note in report["notes"]:
        display.say(f"warning: {note}")
    display.say(report["use"])
