"""What cells and evaluations are called: hashes of all that changes weights, and scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from acdis.config import Experiment, MethodChoice
from acdis.data.fingerprints import later_options

#: The method, and so the beginning of the name, of a cell that holds scores of another tool's predictions.
EXTERNAL = "external"

#: The parts of `data` that decide what the network sees; paths and splits count through the data fingerprint.
_DATA_KEYS = ("spacing", "min_size", "background", "crop", "lesion_crops", "augmentation")


def identity(experiment: Experiment, data_fingerprint: str, method_version: int) -> dict[str, Any]:
    """Everything that changes the weights, as plain values.

    Args:
        experiment: with the method's options resolved and precision not `auto`.
        data_fingerprint: of the cases that train and validate (content, preprocessing, split).
        method_version: raised by hand when a method's mathematics changes.
    """
    tree = experiment.model_dump(mode="json")
    training = tree["training"]
    data = {key: tree["data"][key] for key in _DATA_KEYS} | later_options(experiment.data)
    if data["augmentation"]["rotation_images"] == "linear":  # it came later: names stay
        del data["augmentation"]["rotation_images"]
    # Without parents as it was before there were any, so that names stay.
    parts = ("name", "options", *(("parents",) if tree["method"]["parents"] else ()))
    chosen = {key: tree["method"][key] for key in parts}
    choosing: dict[str, Any] = {}
    if training["selection"] == "best":
        names = ("window", "stride", "window_weights", "post_processing")
        choosing = {name: value for name, value in _named(tree["evaluation"]).items() if name in names}
    else:
        del training["validate_every"]  # only looks, when the last epoch is kept
    return {
        "seed": tree["seed"],
        "method": {**chosen, "version": method_version},
        "data": data | {"fingerprint": data_fingerprint},
        "training": training,
        "choosing": choosing,
    }


def as_external(experiment: Experiment) -> Experiment:
    """The experiment of another tool's predictions: data and evaluation are ours, its method is not known."""
    return experiment.model_copy(update={"method": MethodChoice(name=EXTERNAL)})


def cell_name(experiment: Experiment, data_fingerprint: str, method_version: int) -> str:
    """`<method>-<12 hex>` of a SHA-256 over the canonical `identity`."""
    return f"{experiment.method.name}-{digest(identity(experiment, data_fingerprint, method_version))}"


def evaluation_name(experiment: Experiment, test_fingerprint: str) -> str:
    """An evaluation has a name of its own: how it scores, and which cases."""
    settings = _named(experiment.evaluation.model_dump(mode="json"))
    return digest({"evaluation": settings, "cases": test_fingerprint})


def _named(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of the evaluation's settings. What came later is left out where it changes nothing: names
    stay what they were before there was a choice."""
    without_effect = {
        "window_weights": "constant",
        "box": "all",
        "post_processing": [],
        "metrics": [],
        "hd95_convention": "max",
    }
    return {name: value for name, value in evaluation.items() if (name, value) not in without_effect.items()}


def digest(tree: Any) -> str:
    """12 hex of a SHA-256 over canonical JSON."""
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
