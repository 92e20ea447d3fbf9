"""Checkpoints and weights: bytes, other contents, and pickles that would do something."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import strategies as st

from acdis.config import Experiment
from acdis.methods.base import Method
from acdis.training import checkpoint, run
from acdis.training.group import Group

EXPERIMENT = Experiment.model_validate({"training": {"epochs": 4, "precision": "fp32"}})
ENTRY = {
    "epoch": 1,
    "epochs": 4,
    "terms": {"loss": 1.0},
    "learning_rate": 1e-4,
    "seconds": 1.0,
    "validation": {},
}


class Small(Method):
    """A method of twelve weights: mutations of a real one would hit nothing but weights."""

    version = 1
    training_only = ("helper",)
    encode = decode = forward = None  # nothing is computed with it

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(3, 2)
        self.helper = torch.nn.BatchNorm1d(2)


@pytest.fixture(autouse=True)
def _small_method(monkeypatch):
    monkeypatch.setattr(run, "new_method", lambda _: Small())


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """What a checkpoint of a training holds after its first epoch."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "new_method", lambda _: Small())
        begun = run.begin(EXPERIMENT, folder, Group(device=torch.device("cpu")))
    for optimiser in begun.optimisers.values():
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimiser.step()
    begun.history.append(ENTRY)
    run.write(folder, run.state_of(begun))
    return checkpoint.load(folder / run.LAST)


@pytest.fixture(scope="module")
def content(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def _taken_up(folder):
    """As a training goes on from it, and one step further."""
    begun = run.begin(EXPERIMENT, folder, Group(device=torch.device("cpu")))
    assert begun.epoch == 1
    for optimiser in begun.optimisers.values():
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimiser.step()


def _scored(path):
    """As `evaluate` reads weights."""
    Small().load_inference_state(checkpoint.load(path))


def test_bytes_of_a_checkpoint(room, content, fuzz, mutations):
    path = room.home / run.LAST

    def attempt(damaged):
        path.write_bytes(damaged)
        room.tries("checkpoint, bytes", lambda: _taken_up(room.home), [run.LAST])

    fuzz(mutations.damaged(content), 40, attempt)


def test_the_pickle_in_a_checkpoint(room, content, fuzz, mutations):
    """The archive is whole, with the right checksums; what it says is not."""
    path = room.home / run.LAST
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in parts if name.endswith("data.pkl"))

    def attempt(damaged):
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, damaged if name == pickled else part)
        room.tries("checkpoint, pickle", lambda: _taken_up(room.home), [run.LAST])

    fuzz(mutations.damaged(parts[pickled]), 50, attempt)


def test_what_a_checkpoint_holds(room, state, fuzz, mutations):
    """Other keys, values, shapes and types, saved as the platform saves."""
    path = room.home / run.LAST
    skeleton = {
        "method": list(state["method"]),
        "optimisers": {
            name: {"state": list(each["state"]), "param_groups": each["param_groups"]}
            for name, each in state["optimisers"].items()
        },
        "history": [ENTRY],
        "best": {"dice": 0.5, "epoch": 1.0},
        "version": state["version"],
    }

    def attempt(tree):
        changed = copy.copy(state)
        if not isinstance(tree, dict):
            changed = tree
        else:
            changed = {
                key: state[key] if tree.get(key) == skeleton[key] else tree[key]
                for key in tree
                if key in state
            }
            if isinstance(tree.get("history"), list):
                changed["history"] = json.dumps(tree["history"])
        try:
            torch.save(changed, path)
        except Exception:
            return  # no such file can be
        room.tries("checkpoint, content", lambda: _taken_up(room.home), [run.LAST])

    fuzz(mutations.changed(skeleton), 50, attempt)


def test_weights_of_other_shapes(room, state, fuzz):
    """One tensor of the weights or of the optimiser's state in place of another."""
    path = room.home / run.LAST
    others = [
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(3),
        torch.zeros(1).expand(2**40),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(3, dtype=torch.int8),
        torch.zeros(2, device="meta"),
        torch.full((3,), torch.nan),
        None,
        3,
        "x",
        [1],
        {"a": 1},
        torch.nn.Parameter(torch.zeros(2)),
        torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
    ]
    names = sorted(state["method"])

    def attempt(drawn):
        where, index, other = drawn
        changed = {**state, "method": OrderedDict(state["method"])}
        if where == "method":
            changed["method"][names[index % len(names)]] = other
        else:
            optimisers = copy.copy(state["optimisers"])
            main = copy.copy(optimisers["main"])
            main["state"] = {key: dict(value) for key, value in main["state"].items()}
            main["state"][index % len(main["state"])][where] = other
            changed["optimisers"] = {**optimisers, "main": main}
        torch.save(changed, path)
        room.tries("checkpoint, tensors", lambda: _taken_up(room.home), [run.LAST])

    where = st.sampled_from(["method", "exp_avg", "step", "max_exp_avg_sq", "stranger"])
    fuzz(st.tuples(where, st.integers(0, 60), st.sampled_from(others)), 50, attempt)


def test_bytes_of_weights(room, state, fuzz, mutations):
    path = room.home / "weights.pt"
    stream = io.BytesIO()
    torch.save(state["method"], stream)

    def attempt(damaged):
        path.write_bytes(damaged)
        room.tries("weights, bytes", lambda: _scored(path), ["weights.pt", "weights do not fit"])

    fuzz(mutations.damaged(stream.getvalue()), 30, attempt)


class Calls:
    """Unpickling this calls something."""

    def __init__(self, function, *arguments):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


def _storage(size):
    return torch.zeros(size).storage()


PICKLES = {
    "a folder is made": lambda: Calls(os.mkdir, "it_ran"),
    "a command runs": lambda: Calls(os.system, "touch it_ran"),
    "evaluated": lambda: Calls(eval, "open('it_ran', 'w')"),
    "three gigabytes": lambda: Calls(bytearray, 3 * 2**30),
    "a tensor without numbers": lambda: Calls(
        torch._utils._rebuild_tensor_v2, _storage(4), 0, (2**34,), (1,), False, OrderedDict()
    ),
    "a tensor of one number": lambda: Calls(
        torch._utils._rebuild_tensor_v2, _storage(4), 0, (2**40,), (0,), False, OrderedDict()
    ),
    "a device": lambda: torch.device("cuda:7"),
    "a type": lambda: torch.float16,
    "a set": lambda: {1, 2},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("where", ["checkpoint", "weights"])
def test_pickles_that_do_something(room, state, name, old, where):
    path = room.home / (run.LAST if where == "checkpoint" else "weights.pt")
    method = {**state["method"], "more": PICKLES[name]()}
    tree = {**state, "method": method} if where == "checkpoint" else method
    torch.save(tree, path, _use_new_zipfile_serialization=not old)
    action = (lambda: _taken_up(room.home)) if where == "checkpoint" else (lambda: _scored(path))
    assert room.tries("checkpoint, crafted", action, [path.name]) == "refused"
    assert not list(room.base.rglob("it_ran"))


@pytest.mark.parametrize(
    "kind",
    ["compressed", "overlapping", "bare pickle", "folder", "device", "nested", "four million entries"],
)
def test_archives_that_do_something(room, content, mutations, kind):
    path = room.home / run.LAST
    if kind == "compressed":  # a bomb would be: 3 GB of zeros are 3 MB
        with (
            zipfile.ZipFile(io.BytesIO(content)) as whole,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb,
        ):
            for name in whole.namelist():
                bomb.writestr(name, whole.read(name))
    elif kind == "overlapping":  # an entry that claims to be longer than the file
        at = content.rindex(b"PK\x01\x02")
        path.write_bytes(content[: at + 20] + struct.pack("<II", 2**31, 2**31) + content[at + 28 :])
    elif kind == "four million entries":
        path.write_bytes(mutations.of_many_entries(4_000_000))
    elif kind == "bare pickle":
        path.write_bytes(pickle.dumps({"method": Calls(os.mkdir, "it_ran")}))
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
            archive.writestr("a/version", b"3\n")
    assert room.tries("checkpoint, crafted", lambda: _taken_up(room.home), [run.LAST]) == "refused"
