"""A plain U-Net for each subset: what is lost where one network has to serve them all.

A row of a spec with this method is sixteen cells: fifteen that are trained, each for its subset, and one that
takes their networks, is scored and stands in the tables. Options here, torch only behind `model()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from acdis.methods.unet import NetworkOptions
from acdis.vocabulary import SUBSETS, subset_name

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 1

NAMES = tuple(map(subset_name, SUBSETS))


def _known(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"{name!r} is no subset; there are {', '.join(NAMES)}")
    return name


SubsetName = Annotated[str, AfterValidator(_known)]


class Options(NetworkOptions):
    """The network, and the subset that it is for."""

    subset: SubsetName | None = Field(
        None,
        description="the one subset to train on, such as FLAIR_T1ce. None: a network for each of the 15; a "
        "row of a spec trains each in a cell of its own, `train` all of them side by side in one",
    )

    def needs_whole_cases(self) -> str | None:
        return "each of its networks is trained on every case with a subset of its own"

    def parts(self) -> dict[str, dict[str, Any]]:
        return {} if self.subset else {name: {"subset": name} for name in NAMES}

    def roles(self) -> tuple[str, ...]:
        return tuple(self.parts())


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.unet_dedicated.network import DedicatedUNets

    return DedicatedUNets
