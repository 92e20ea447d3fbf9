"""ACDIS platform: experiments and ablations for brain-tumour segmentation with missing MRI modalities."""

from typing import TYPE_CHECKING, Any

from acdis.version import __version__

if TYPE_CHECKING:
    from acdis.api import build, cases, load, open_cell, predict, results, score, train

__all__ = [
    "__version__",
    "build",
    "cases",
    "load",
    "open_cell",
    "predict",
    "results",
    "score",
    "train",
]


def __getattr__(name: str) -> Any:
    """The functions of `acdis.api`, imported when the first of them is asked for."""
    if name in __all__:
        from acdis import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
