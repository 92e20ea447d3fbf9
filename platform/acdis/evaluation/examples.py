"""One slice of one case, with what the method predicts from several subsets: the material of a picture."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from acdis.config import Evaluation
from acdis.data.entry import Entry
from acdis.evaluation.scoring import label_maps
from acdis.methods.base import Method
from acdis.vocabulary import subset_name

#: From one modality to all: FLAIR alone, T1ce alone, without T1ce, two, all.
SHOWN = (
    ("FLAIR",),
    ("T1ce",),
    ("FLAIR", "T1", "T2"),
    ("FLAIR", "T1ce"),
    ("FLAIR", "T1ce", "T1", "T2"),
)


def save_example(
    path: Path,
    method: Method,
    entry: Entry,
    evaluation: Evaluation,
    device: torch.device,
    dtype: torch.dtype | None,
) -> None:
    """Write `case`, `images` [4, D, H] at the working spacing, `truth` [D', H'] and `predictions` [S, D', H']
    at the file's, all of the axial slice with the largest lesion, and the subsets' names."""
    truth = entry.native_labels()
    slice_index = int((np.asarray(truth) > 0).sum((0, 1)).argmax())
    predictions = [
        labels[:, :, slice_index] for labels in label_maps(method, entry, evaluation, device, dtype, SHOWN)
    ]
    lesion = (np.asarray(entry.labels()) > 0).sum((0, 1))
    content = {
        "case": np.array(entry.name),
        "images": np.asarray(entry.images()[:, :, :, int(lesion.argmax())], dtype=np.float32),
        "truth": np.asarray(truth[:, :, slice_index]),
        "predictions": np.stack(predictions),
        "subsets": np.array([subset_name(subset) for subset in SHOWN]),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **content)
    temporary.replace(path)
