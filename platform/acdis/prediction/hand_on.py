"""A trained cell as a folder that can be given away, and such a folder as a cell again. No pickle.

    cell.json                 name, versions, SHA-256 of every other file
    config.yaml               the configuration, without paths of the machine it was trained on
    lineage.json              which cases did what, by hashes; what the labels mean
    models/model.safetensors  weights for inference
    models/model.pt2          the network as a torch.export program (`program`), where torch can make one
    evaluations/exported/     scores of its test cases
    docs/README.md            the model card
    configs/                  MONAI bundle: metadata.json, inference.json

Cases are known by SHA-256 of their names and of their voxels, so that an importer is kept from scoring on
what the weights have seen without hearing who was scanned.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from acdis import cells, config, files, methods
from acdis.cells import Cell
from acdis.config import Experiment, Split
from acdis.data.patients import known as patients_of
from acdis.data.schemes import CLASS_NAMES
from acdis.errors import UserError
from acdis.evaluation.records import Record, read_parquet, write_parquet
from acdis.prediction.model import CELL, WEIGHTS, open_model, records_of, scheme_of, spacing_of
from acdis.prediction.output import try_folder
from acdis.version import __version__
from acdis.vocabulary import CLASSES, MODALITIES, REGIONS, SUBSETS, subset_name

FORMAT = 1
CARD, CONFIG, LINEAGE, STATE = "docs/README.md", "config.yaml", "lineage.json", "state.json"
EVALUATION, SCORES = "exported", "records.parquet"
#: Of a lineage's tags, what says nothing about the machine and its user.
_TAGS = ("acdis.git_", "acdis.version.")
_CELL_NAME = re.compile(r"[a-z0-9_]{1,40}-[0-9a-f]{12}")


def hashed(name: str) -> str:
    """What stands for a name: enough to know it again, not to learn it."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def export(cell: Cell, out: Path, table: Callable[[Sequence[Record]], str], licence: str) -> Path:
    """Write the cell to a new or empty folder.

    Args:
        table: the 15 × 3 table as Markdown, from the records of its test cases.
        licence: of the weights and the data that they come from, for the card.

    Returns:
        The model card.

    Raises:
        UserError: the cell is damaged, or the folder is not empty or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is not an empty folder; give a new one")
    try_folder(out)
    try:
        return _fill(out, cell, table, licence)
    except BaseException:  # a full disk, Ctrl-C: the same command needs an empty folder
        for left in out.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        raise


def _fill(out: Path, cell: Cell, table: Callable[[Sequence[Record]], str], licence: str) -> Path:
    from acdis.prediction import program, tensors

    model = open_model(cell, "cpu")
    experiment = shareable(model.experiment)
    tensors.write(out / WEIGHTS, model.method.inference_state(), {"cell": cell.name, "format": "pt"})
    try:
        deviation = program.write(out / program.PROGRAM, model)
        about = (
            f"{program.PROGRAM}, for a window of {' × '.join(map(str, experiment.evaluation.window))} "
            "voxels; over the 15 subsets of a random window its probabilities differ by "
            f"{deviation:.1g} at most"
        )
    except program.ProgramError as error:
        about = f"none: {error}"
    files.write_text(out / CONFIG, config.dump(experiment))
    files.write_json(out / LINEAGE, without_names(cell))
    state = {"status": "done"}
    if (scored := records_of(cell)) is not None:
        rows = [
            replace(row, case=hashed(row.case), patient=hashed(row.patient)) for row in read_parquet(scored)
        ]
        write_parquet(out / "evaluations" / EVALUATION / SCORES, rows)
        state["evaluation"] = EVALUATION
    files.write_json(out / STATE, state)
    files.write_text(out / CARD, card(cell, experiment, table, licence, about))
    files.write_json(out / "configs" / "metadata.json", metadata(cell, experiment))
    files.write_json(out / "configs" / "inference.json", INFERENCE)
    written = [path for path in sorted(out.rglob("*")) if path.is_file()]
    sums = {path.relative_to(out).as_posix(): _checksum(path) for path in written}
    tree = {
        "format": FORMAT,
        "name": cell.name,
        "acdis": __version__,
        "method_version": methods.version(experiment.method.name),
        "files": sums,
    }
    files.write_json(out / CELL, tree)  # the last: a folder with it is whole
    return out / CARD


def without_names(cell: Cell) -> dict[str, Any]:
    """The cell's lineage with hashes for the names of cases and patients; its parents' cases among them."""
    lineage = cell.lineage()
    splits = lineage.get("splits", {})
    mark: Callable[[str], str] = str if lineage.get("names") == "sha256" else hashed
    patients: dict[str, str] = {}
    voxels: dict[str, str] = {}
    for relative in cell.family()[0]:
        told = relative.lineage()
        parts = told.get("splits", {})
        learned = [*parts.get("train", []), *parts.get("validation", [])]
        known: Callable[[str], str] = str if told.get("names") == "sha256" else hashed
        persons = told.get("patients") or patients_of(learned)
        patients |= {known(name): known(who) for name, who in persons.items()}
        voxels |= {known(name): digest for name, digest in told.get("voxels", {}).items()}
    words = {index: name for name, index in CLASS_NAMES.items()}
    return {
        "tags": {key: text for key, text in lineage.get("tags", {}).items() if key.startswith(_TAGS)},
        "names": "sha256",
        "splits": {part: [mark(name) for name in names] for part, names in splits.items()},
        "patients": patients,
        "voxels": voxels,
        "labels": {str(value): words[index] for value, index in scheme_of(cell).classes},
        "training_spacing_mm": spacing_of(cell),
    }


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def shareable(experiment: Experiment) -> Experiment:
    """Without paths and addresses of where it was trained, none of which changes the weights."""
    fresh = Experiment()
    data = experiment.data.model_copy(
        update={"root": None, "split": Split(), "files": None, "patients": None}
    )
    return experiment.model_copy(update={"data": data, "tracking": fresh.tracking, "scaling": fresh.scaling})


def find(base: Path, run: str | Path) -> Cell:
    """A trained cell by its name, the beginning of it, or its folder; by the id or the name of its MLflow run
    in the home's store; or an export, by its folder.

    Raises:
        UserError: as `cells.find_trained` and `check`; or runs of several cells have that name.
    """
    if (Path(run) / CELL).is_file():
        check(Path(run))
        return Cell(Path(run).resolve())
    try:
        return cells.find_trained(base, str(run))
    except UserError:
        from acdis.tracking.by_run import cells_of

        names = cells_of(base / "mlflow.db", str(run))
        if len(names) > 1:
            raise UserError(
                f"{run}: is the name of the MLflow runs of several cells: {', '.join(names)}"
            ) from None
        if not names:
            raise
        return cells.find_trained(base, names[0])


def check(folder: Path) -> dict[str, Any]:
    """What `cell.json` says, once every file has been found to be as it was written.

    Raises:
        UserError: it is no export, of a newer format, or a file is missing or was changed.
    """
    path = folder / CELL
    try:
        tree = files.read_json(path)
        name, listed, form = str(tree["name"]), dict(tree["files"]), int(tree["format"])
    except FileNotFoundError:
        raise UserError(f"{folder}: is no exported cell: it has no {CELL}") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({files.reason(error)}); get the export again") from None
    if not _CELL_NAME.fullmatch(name):
        raise UserError(f"{path}: {name!r} is no cell's name; get the export again")
    if form > FORMAT:
        raise UserError(f"{folder}: was exported by a newer version ({tree.get('acdis')}); upgrade")
    for relative in {WEIGHTS, CONFIG, LINEAGE, STATE, *listed}:
        place = folder / relative
        if not place.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: names {relative!r}, outside of the export; get the export again")
        if not place.is_file() or _checksum(place) != listed.get(relative):
            raise UserError(f"{place}: is missing or not as it was exported; get the export again")
    return dict(tree)


def import_cell(base: Path, folder: Path) -> Cell:
    """The export as a cell of this home: it can be predicted with, evaluated on other data, be a parent.

    Raises:
        UserError: as `check`; its weights do not fit its configuration; or a cell of that name is there.
    """
    import torch

    from acdis.training import checkpoint

    tree, source = check(folder), Cell(folder.resolve())
    state = open_model(source, "cpu").method.inference_state()
    cell = cells.create(base, tree["name"], methods.resolve(source.experiment()), source.lineage())
    if cell.weights.exists():
        there = checkpoint.load(cell.weights)
        if there.keys() == state.keys() and all(torch.equal(there[name], state[name]) for name in state):
            return cell
        raise UserError(f"{cell.folder}: is there already with other weights; remove it, or set ACDIS_HOME")
    known: dict[str, Any] = {"status": "done"}
    if (scored := records_of(source)) is not None:
        write_parquet(cell.evaluations / EVALUATION / SCORES, read_parquet(scored))
        known["evaluation"] = EVALUATION
    cell.update(**known)
    checkpoint.save(cell.weights, state)
    return cell


#: `python -m monai.bundle run --config_file configs/inference.json --flair f.nii.gz --output seg.nii.gz`
INFERENCE: dict[str, Any] = {
    "imports": ["$import acdis"],
    "bundle_root": ".",
    **{name.lower(): None for name in MODALITIES},
    "output": "seg.nii.gz",
    "images": "${name: path for name, path in {"
    + ", ".join(f"'{name}': @{name.lower()}" for name in MODALITIES)
    + "}.items() if path}",
    "run": ["$acdis.predict(@bundle_root, @images).save(@output)"],
}


def metadata(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    """MONAI's description of a bundle."""
    from importlib.metadata import version

    side = list(experiment.evaluation.window)
    shape = {"spatial_shape": side, "is_patch_data": True}
    return {
        "version": __version__,
        "changelog": {__version__: f"exported from {cell.name}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"acdis-platform": __version__, "nibabel": version("nibabel")},
        "name": cell.name,
        "task": "Brain tumour segmentation from any subset of FLAIR, T1ce, T1 and T2",
        "description": "Segments WT, TC and ET in the scan's own grid. Research only; not for clinical use.",
        "authors": "see docs/README.md",
        "copyright": "see docs/README.md",
        "intended_use": "research only; not for clinical use",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image", "format": "magnitude", "modality": "MR", "num_channels": 4, **shape,
                    "dtype": "float32", "value_range": [-10, 10],
                    "channel_def": {str(at): name for at, name in enumerate(MODALITIES)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image", "format": "segmentation", "num_channels": len(CLASSES), **shape,
                    "dtype": "uint8", "value_range": [0, 3],
                    "channel_def": {str(at): name for at, name in enumerate(CLASSES)},
                }
            },
        },
    }  # fmt: skip


def card(
    cell: Cell,
    experiment: Experiment,
    table: Callable[[Sequence[Record]], str],
    licence: str,
    program: str,
) -> str:
    """The model card, Markdown; `program` is what is said of the `torch.export` program."""
    from acdis.evaluation.scores import from_records

    counts = {part: len(names) for part, names in cell.lineage().get("splits", {}).items()}
    data = experiment.data
    source = "phantoms, drawn by the platform" if data.phantoms else f"labels as {scheme_of(cell).name}"
    told = ", ".join(f"{count} {part}" for part, count in counts.items()) or "not recorded"
    lines = [
        f"# {cell.name}",
        "",
        "**For research only; not for clinical use.** Segments brain tumours (WT, TC, ET) from any non-empty "
        "subset of FLAIR, T1ce, T1 and T2, co-registered and skull-stripped as in BraTS.",
        "",
        f"- Method: {experiment.method.name}, seed {experiment.seed}, {experiment.training.epochs} epochs",
        f"- Data: {source}; cases: {told}",
        f"- Licence of weights and data: {licence}",
        f"- Made by acdis {__version__}; configuration: config.yaml",
        f"- `torch.export` program: {program}",
        "- Cite the method's paper, and the data that it learned from.",
        "",
        "```",
        f"acdis import DIR && acdis predict {cell.name} --flair flair.nii.gz -o seg.nii.gz",
        "```",
        "",
    ]
    scored = records_of(cell)
    if scored is None:
        return "\n".join([*lines, "It was scored on no test cases.", ""])
    records = read_parquet(scored)
    scores = from_records(records)
    by_subset = 100 * scores.dice.mean(axis=(0, 2))
    worst = [f"{subset_name(SUBSETS[at])} {by_subset[at]:.1f}" for at in np.argsort(by_subset)[:3]]
    by_case = 100 * scores.dice.mean(axis=1)
    fails = ", ".join(
        f"{region} below 50 in {int((by_case[:, at] < 50).sum())} of {len(by_case)}"
        for at, region in enumerate(REGIONS)
    )
    return "\n".join(
        [
            *lines,
            table(records),
            "## Where it fails",
            "",
            f"- Subsets with the lowest mean Dice, per cent: {', '.join(worst)}",
            f"- Test cases, mean over the subsets, per cent: {fails}",
            "- Scores hold for scans like its test cases; nothing is known about others.",
            "",
        ]
    )
