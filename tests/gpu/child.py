"""One computation of the product on a device that is not there; prints its census as JSON.

LD_PRELOAD=hooks.so python child.py '{"method": "acdis", "options": {…}, "what": "step", "side": 16}'
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import torch
from census import Census, device, moved_there

from acdis import config, methods
from acdis.data.loader import Samples
from acdis.evaluation import sliding
from acdis.training import precision, preflight
from acdis.training.group import Group
from acdis.training.run import TrainingRun, new_method
from acdis.training.step import optimiser_step

BATCH = 2


def experiment_of(job: dict[str, Any]) -> config.Experiment:
    """The method at this size, in training's last epoch."""
    side, name, options = job["side"], job["method"], job.get("options", {})
    # Which cells would be adopted does not matter here: nothing is loaded.
    parents = dict.fromkeys(methods.validate(name, options).roles(), "acdis-0123456789ab")
    tree = {
        "method": {"name": name, "options": options, "parents": parents},
        "data": {"crop": [side] * 3, "min_size": side},
        "training": {"precision": job["precision"], "batch_size": BATCH, "epochs": job.get("epochs", 300)},
        "evaluation": {"window": [side] * 3, "stride": [side] * 3},
        "scaling": {"gpu": True, "activation_checkpointing": job.get("checkpointing", False)},
    }
    return methods.resolve(config.parse(tree, "the test"))


def samples_of(experiment: config.Experiment) -> Samples:
    sides = experiment.data.crop
    return Samples(
        images=torch.empty(BATCH, 4, *sides),
        labels=torch.empty(BATCH, *sides, dtype=torch.uint8),
        available=torch.ones(BATCH, 4, dtype=torch.bool),
        origin=torch.empty(BATCH, 3, dtype=torch.long),
        flips=torch.empty(BATCH, 3, dtype=torch.bool),
        keys=(1, 2),
        names=("one", "two"),
    )


def compute(job: dict[str, Any]) -> Census:
    """What `job` asks for, on the fake device."""
    experiment = experiment_of(job)
    method = new_method(experiment).to(memory_format=torch.channels_last_3d)
    dtype = precision.autocast_dtype(experiment.training.precision)
    last = experiment.training.epochs - 1
    with device() as census:
        moved_there(method)
        where = torch.device("cuda", 0)
        optimisers = method.optimisers(experiment.training)
        run = TrainingRun(experiment, method, method, optimisers, Group(device=where), dtype)
        census.forget()
        if job["what"] == "step":
            method.train()
            optimiser_step(run, samples_of(experiment), last)
        elif job["what"] == "read":  # what the census must see
            values = torch.empty(4, device=where)
            if values[0].item() and values.sum() > 0:
                values.tolist()
            values.cpu()
        elif job["what"] == "preflight":
            preflight.measure(run, samples_of(experiment))
        else:
            side = job["side"]
            images = torch.empty(4, side + side // 2, side, side)
            sliding.predict(method, images, [side] * 3, [side // 2] * 3, None, where, dtype)
    return census


def said(census: Census) -> dict[str, Any]:
    """The census in plain values."""
    return {
        "waits": {" ".join(key): count for key, count in census.waits.items()},
        "copies": {" ".join(key): count for key, count in census.copies.items()},
        "kernels": sum(census.kernels.values()),
        "moved": census.moved,
        "clones": dict(census.clones),
    }


def main() -> None:
    warnings.filterwarnings("ignore")
    for job in json.loads(sys.argv[1]):
        print("CENSUS " + json.dumps(said(compute(job))), flush=True)


if __name__ == "__main__":
    main()
