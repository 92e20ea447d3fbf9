"""`imagesTr` and `labelsTr`: cases as nnU-Net and the Medical Segmentation Decathlon keep them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from acdis.data import nnunet, schemes
from acdis.data.case import NIFTI, SEGMENTATION, Case, said, stem, without
from acdis.data.problems import Note, Problem
from acdis.data.schemes import Scheme
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

#: MSD's channels are FLAIR, T1w, T1gd, T2w: where each of `MODALITIES` lies among them.
MSD_CHANNELS = (0, 2, 1, 3)


def training_images(
    images: Path, labelled: Scheme | None, incomplete: bool = False
) -> Iterator[Case | Problem | Note]:
    """`imagesTr` of nnU-Net (a file per channel, `dataset.json` beside it) or of MSD Task01 (a 4-D file)."""
    labels = images.parent / "labelsTr"
    stems = {folder: _stems(folder) for folder in (images, labels)}
    channels, strangers = nnunet.channel_files(stems[images])
    if channels:
        for path in strangers:
            yield Problem(stem(path.name), path, "is not named <case>_0000 as the others are; take it away")
        yield from _nnunet(images, channels, stems[labels], labelled, incomplete)
        return
    description = images.parent / "dataset.json"
    if description.is_file():
        scheme = None if labelled else schemes.SCHEMES["msd"]
        other = nnunet.not_msd(description, MSD_CHANNELS, scheme)
        if other:
            cure = "write data.labels" if other == "labels" else "write a file per modality, and data.files"
            raise UserError(f"{description}: tells other {other} than MSD Task01 has; mend it, or {cure}")
    for name in sorted(stems[images].keys() | stems[labels].keys()):
        image, segmentation = (stems[folder].get(name) for folder in (images, labels))
        if image is None:
            yield Problem(name, images / f"{name}.nii.gz", "the image with all modalities is missing")
        elif segmentation is None:
            yield Problem(name, labels / f"{name}.nii.gz", f"{SEGMENTATION} is missing")
        else:
            yield Case(name, (image, image, image, image), segmentation, "msd")


def _nnunet(
    images: Path,
    channels: Mapping[str, Mapping[int, Path]],
    labels: Mapping[str, Path],
    labelled: Scheme | None,
    incomplete: bool,
) -> Iterator[Case | Problem | Note]:
    description = nnunet.describe(images.parent / "dataset.json", labelled)
    for name in sorted(channels.keys() | labels.keys()):
        files = {m: channels.get(name, {}).get(description.channels[m]) for m in MODALITIES}
        absent = without(files) if incomplete else []
        missing = [m for m in MODALITIES if files[m] is None and m not in absent]
        for modality in missing:
            number = description.channels[modality]
            yield Problem(name, images / f"{name}_{number:04d}.nii.gz", f"{modality} is missing")
        if name not in labels:
            yield Problem(name, images.parent / "labelsTr" / f"{name}.nii.gz", f"{SEGMENTATION} is missing")
        elif not missing:
            yield from said(name, absent)
            flair, t1ce, t1, t2 = (files[modality] for modality in MODALITIES)
            paths = (flair, t1ce, t1, t2)
            yield Case(name, paths, labels[name], "nnunet", scheme=description.scheme)


def _stems(folder: Path) -> dict[str, Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        stem(file.name): file
        for file in files
        if not file.name.startswith(".") and NIFTI.fullmatch(file.name)
    }
