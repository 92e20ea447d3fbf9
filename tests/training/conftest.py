"""Small settings, a few phantoms, and processes that train: what all tests of this room use."""

import copy
import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from acdis import config, methods
from acdis.data import cache, cases, phantom
from acdis.training import loop
from acdis.training.group import Group

CHILD = Path(__file__).with_name("child.py")

SMALL = {
    "data": {"spacing": 8.0, "min_size": 24, "crop": [16, 16, 16], "lesion_crops": 0.5},
    "method": {"options": {"base_width": 4, "levels": 3, "afeb_tokens": 4, "synthesis_start": 2}},
    "training": {
        "epochs": 4,
        "iterations": None,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "precision": "fp32",
    },
    "evaluation": {"window": [24, 24, 24], "stride": [24, 24, 24], "hd95": False},
}
#: Every loss there is, the adversarial one with an optimiser of its own.
ALL_LOSSES = {
    "consistency": ["var", "covar", "mse", "kl"],
    "synthesis": ["mse", "adver", "var", "covar"],
}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As in the child processes, so that numbers can be compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def all_losses():
    return ALL_LOSSES


@pytest.fixture(scope="session")
def small():
    """A function to a small experiment: `small({"training.epochs": 2}, mfsb="conv")`, options last."""

    def build(changes=None, **options):
        tree = copy.deepcopy(SMALL)
        options = {f"method.options.{key}": value for key, value in options.items()}
        for key, value in {**(changes or {}), **options}.items():
            *parents, last = key.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        return methods.resolve(config.parse(tree, "test"))

    return build


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Six phantoms of 32×40×32 voxels at 5 mm: the folder."""
    folder = tmp_path_factory.mktemp("phantoms")
    phantom.write(folder, 6, seed=3, shape=(32, 40, 32), spacing=5.0)
    return folder


@pytest.fixture(scope="session")
def entries(phantoms, tmp_path_factory, small):
    """Their brains at 8 mm, in boxes of 24³ voxels."""
    found = cases.find(phantoms).cases
    return list(cache.prepare(found, small().data, tmp_path_factory.mktemp("cache"), 1).values())


@pytest.fixture(scope="session")
def three(entries):
    """Three cases to train on, none to validate."""
    return loop.Cases(entries[:3])


@pytest.fixture
def train(three):
    """`train(experiment, folder, cases=three)` in this process; returns the run and the events."""

    def run(experiment, folder, cases=three):
        folder.mkdir(parents=True, exist_ok=True)
        events = []
        return loop.train(experiment, cases, folder, Group(), events.append), events

    return run


@pytest.fixture(scope="session")
def child():
    """The module `child.py`, to call its tasks in this process."""
    spec = importlib.util.spec_from_file_location("training_child", CHILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Rank:
    """A process that `child.py` has forked."""

    def __init__(self, ask, folder, rank):
        self.ask, self.process, self.code = ask, ask("start", str(folder), rank), None
        self.said, self.errors = folder / f"said{rank}.txt", folder / f"errors{rank}.txt"

    def wait(self):
        """Its exit code, negative where a signal ended it."""
        if self.code is None:
            self.code = self.ask("wait", self.process)
        return self.code


@pytest.fixture(scope="session")
def start():
    """`start(folder, tasks, world=1)`: a process per rank. With `own` each rank has a list of tasks."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, str(CHILD)], env=environment, **pipes)
    running = []

    def ask(*words):
        print(json.dumps(words), file=server.stdin, flush=True)
        return int(server.stdout.readline())

    def launch(folder, tasks, world=1, own=False):
        folder.mkdir(parents=True, exist_ok=True)
        tasks = tasks if own else [tasks] * world
        (folder / "job.pickle").write_bytes(pickle.dumps({"tasks": tasks, "world": world}))
        started = [Rank(ask, folder, rank) for rank in range(world)]
        running.extend(started)
        return started

    with server:
        yield launch
        for rank in running:
            if rank.code is None:
                os.kill(rank.process, signal.SIGKILL)


@pytest.fixture(scope="session")
def finish(start):
    """`finish(folder, tasks, world=1)`: per rank, the results of the tasks."""

    def run(folder, tasks, world=1):
        for rank in start(folder, tasks, world):
            assert rank.wait() == 0, rank.errors.read_text()
        return [pickle.loads((folder / f"results{rank}.pickle").read_bytes()) for rank in range(world)]

    return run
