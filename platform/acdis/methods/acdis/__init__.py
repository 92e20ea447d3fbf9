"""ACDIS (the paper, and METHOD.md where it is silent): options here, torch only behind `model()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acdis.methods.acdis.options import Options

if TYPE_CHECKING:
    from acdis.methods.base import Method

__all__ = ["VERSION", "Options", "model"]

VERSION = 6


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.acdis.network import ACDIS

    return ACDIS
