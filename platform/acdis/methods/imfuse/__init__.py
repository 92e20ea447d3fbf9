"""IM-Fuse: mmFormer with fusion by Mamba blocks (Pipoli et al., MICCAI 2025). Torch only behind `model()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from acdis.methods.mmformer.options import TokenOptions

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 1

#: The authors' code: RAdam at 2e-4 with poly decay, 1,000 epochs of one pass, batch 1, crops of 128³.
RECIPE = {
    "data.crop": [128, 128, 128],
    "data.augmentation.rotation_images": "nearest",
    "data.augmentation.rotation_fill": "minus_one",
    "data.augmentation.intensity_per_slice": True,
    "data.background": "normalised",
    "data.last_slice": False,
    "training.batch_size": 1,
    "training.epochs": 1000,
    "training.iterations": None,
    "training.learning_rate": 2e-4,
    "training.weight_decay": 3e-5,
    "training.poly_power": 0.9,
    "training.precision": "fp32",
    "evaluation.window": [128, 128, 128],
    "evaluation.stride": [64, 64, 64],
    "method.options.grid": [8, 8, 8],
    "method.options.optimiser": "radam",
}


class Options(TokenOptions):
    """What only IM-Fuse knows."""

    grid: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (5, 5, 5),
        description="voxels of the coarsest level for which positions, and all tokens, are learnt: "
        "data.crop / 16 (80³: 5³, published at 128³: 8³). Other crops read between them",
    )
    level1: Literal["fused", "dropped"] = Field(
        "fused",
        description="the finest level's skip: fused as the authors' test script builds the network, and most "
        "probably what they published, or dropped as their training command does",
    )
    interleaved: bool = Field(
        True,
        description="tokens voxel by voxel, each modality and the learnt one (I-MFB); false: one after "
        "the other (MFB)",
    )
    scan: Literal["forward", "both"] = Field(
        "forward",
        description="of the sequence: forward, so that a voxel sees those before it (published), or the mean "
        "of both directions",
    )
    optimiser: Literal["adam", "radam"] = Field(
        "adam", description="adam: the common recipe's; radam: as published"
    )


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.imfuse.method import IMFuse

    return IMFuse
