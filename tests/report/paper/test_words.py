"""What a cell is said to have, and which figures it can give."""

from __future__ import annotations

from typing import Any

import pytest

from acdis import config, methods
from acdis.config import Experiment
from acdis.report.paper import blocks


def _experiment(name: str = "acdis", epochs: int = 30, **options: Any) -> Experiment:
    tree = {"method": {"name": name, "options": options}, "training": {"epochs": epochs}}
    return methods.resolve(config.parse(tree, "test"))


@pytest.mark.parametrize(
    ("options", "said", "distils"),
    [
        ({}, "AFEB + L_Var + L_Covar; MFSB + L_Syn", True),
        ({"consistency": ["covar"], "synthesis": ["adver"]}, "AFEB + L_Covar; MFSB + L_Adver", True),
        ({"consistency": ["mse"]}, "AFEB + L_MSE; MFSB + L_Syn", None),
        ({"afeb": "conv"}, "no AFEB + L_Var + L_Covar; MFSB + L_Syn", None),
        (
            {"afeb": "conv", "consistency": [], "mfsb": "conv", "synthesis": []},
            "no AFEB; no MFSB",
            False,
        ),
    ],
)
def test_blocks_and_acd(options: dict[str, Any], said: str, distils: bool | None) -> None:
    experiment = _experiment(**options)
    assert blocks.blocks(experiment) == said
    assert blocks.distils(experiment) is distils


def test_why_there_is_nothing_synthesised() -> None:
    assert blocks.no_synthesis(_experiment()) is None
    assert "stand in for its MFSB" in str(blocks.no_synthesis(_experiment(mfsb="conv")))
    assert "before MFSB took part" in str(blocks.no_synthesis(_experiment(synthesis_start=30)))
    rfnet = _experiment("rfnet")
    assert "method rfnet" in str(blocks.no_synthesis(rfnet))
    assert (blocks.blocks(rfnet), blocks.distils(rfnet)) == ("rfnet", None)
