"""Names that programs outside of this checkout rely on. Metrics: see tests/evaluation/test_records.py."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

import acdis
from acdis import cli, methods, vocabulary
from acdis.evaluation import statistics
from acdis.losses import consistency
from acdis.prediction.predict import Prediction


def test_the_words_of_the_field() -> None:
    assert vocabulary.MODALITIES == ("FLAIR", "T1ce", "T1", "T2")
    assert vocabulary.REGIONS == ("WT", "TC", "ET")
    # The columns of the paper's Table 1.
    assert [vocabulary.subset_name(subset) for subset in vocabulary.SUBSETS] == [
        *("FLAIR", "T1ce", "T1", "T2"),
        *("FLAIR_T1ce", "FLAIR_T1", "FLAIR_T2", "T1ce_T1", "T1ce_T2", "T1_T2"),
        *("FLAIR_T1ce_T1", "FLAIR_T1ce_T2", "FLAIR_T1_T2", "T1ce_T1_T2", "FLAIR_T1ce_T1_T2"),
    ]


def test_methods() -> None:
    compared = "rfnet uhemis uhved mmformer gss m3ae mmanet unet_mfi shaspec demoseg imfuse"
    assert {*compared.split(), "acdis", "unet", "unet_dedicated"} <= set(methods.names())


def test_verbs() -> None:
    names = (
        "reproduce data train evaluate predict export plan ablate status search report dashboard init import"
    )
    command: Any = typer.main.get_command(cli.app)
    assert {*names.split(), "external", "up", "down", "submit"} <= set(command.commands)


def test_make_targets() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert {"install", "demo", "stop", "test", "check", "bench"} <= targets
    assert {"test-cluster", "test-chaos", "test-gpu"} <= targets


@pytest.mark.parametrize(
    ("function", "begins"),
    [
        (consistency.variance_loss, "(f_m, f_aux, window=5, "),
        (consistency.covariance_loss, "(f_m, f_aux, window=5, "),
        (consistency.mse_loss, "(f_m, f_aux, "),
        (consistency.kl_loss, "(f_m, f_aux, "),
        (methods.build, "(name, **options)"),
        (statistics.compare, "(scores, baseline=0, patients=None, *, family=None, margin=1.0)"),
        (acdis.predict, "(cell, images, *, "),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_signatures(function: Any, begins: str) -> None:
    parameters = [
        each.replace(annotation=each.empty) for each in inspect.signature(function).parameters.values()
    ]
    assert str(inspect.Signature(parameters)).startswith(begins)


def test_what_they_give() -> None:
    given = {field.name for field in fields(statistics.Comparison)}
    assert {"row", "region", "delta", "low", "high", "p", "p_adjusted", "verdict"} <= given
    assert {"labels", "volumes_ml"} <= {field.name for field in fields(Prediction)}
    assert callable(Prediction.save)
    assert {"load", "cases", "build", "train", "open_cell", "predict", "score", "results"} <= set(dir(acdis))
