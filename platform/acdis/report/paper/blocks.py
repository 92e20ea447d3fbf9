"""What a cell has of the paper's blocks, in words, and which figures that leaves out. Takes no torch."""

from __future__ import annotations

from typing import Any

from acdis.config import Experiment

_LOSSES = {"var": "L_Var", "covar": "L_Covar", "mse": "L_MSE", "kl": "L_KL", "adver": "L_Adver"}


def blocks(experiment: Experiment) -> str:
    """`AFEB + L_Var + L_Covar, MFSB + L_Syn`; the method's name where it is not ACDIS."""
    options = _acdis(experiment)
    if options is None:
        return experiment.method.name
    first = _block("AFEB", options["afeb"] == "afeb", options["consistency"], _LOSSES)
    return f"{first}; {_block('MFSB', has_mfsb(options), options['synthesis'], _LOSSES | {'mse': 'L_Syn'})}"


def distils(experiment: Experiment) -> bool | None:
    """Whether the cell has ACD (AFEB with L_Var or L_Covar); none where it is neither with nor without:
    another method, or other losses."""
    options = _acdis(experiment)
    if options is None:
        return None
    if options["afeb"] == "afeb" and {"var", "covar"} & set(options["consistency"]):
        return True
    return None if options["consistency"] else False


def no_synthesis(experiment: Experiment) -> str | None:
    """Why a cell has no synthesised features of MFSB; none where it has."""
    options = _acdis(experiment)
    if options is None:
        return f"the method {experiment.method.name} synthesises no features"
    if not has_mfsb(options):
        return "convolutions stand in for its MFSB"
    if experiment.training.epochs <= options["synthesis_start"]:
        return "its training ended before MFSB took part (method.options.synthesis_start)"
    return None


def has_mfsb(options: dict[str, Any]) -> bool:
    """MFSB, and not its stand-in."""
    return bool(options["mfsb"] == "mfsb")


def _acdis(experiment: Experiment) -> dict[str, Any] | None:
    return experiment.method.options if experiment.method.name == "acdis" else None


def _block(name: str, there: bool, losses: Any, names: dict[str, str]) -> str:
    """`AFEB + L_Var`; `no AFEB`: convolutions stand in for it."""
    parts = [name if there else f"no {name}", *(names[loss] for loss in losses)]
    return " + ".join(parts)
