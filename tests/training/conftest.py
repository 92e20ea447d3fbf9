"""Small settings, a few phantoms, and processes that train: what all tests of this room use."""

import copy
import importlib.util
import os
import pickle
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
    "training": {"epochs": 4, "batch_size": 2, "learning_rate": 1e-3, "precision": "fp32"},
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


@pytest.fixture(scope="session")
def start():
    """`start(folder, tasks, world=1)`: `child.py` as a process per rank, killed at the end of the session."""
    running = []

    def launch(folder, tasks, world=1):
        folder.mkdir(parents=True, exist_ok=True)
        job = folder / "job.pickle"
        job.write_bytes(pickle.dumps({"tasks": tasks, "folder": folder, "world": world}))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        commands = ([sys.executable, "-u", str(CHILD), str(job), str(rank)] for rank in range(world))
        started = [subprocess.Popen(command, env=environment, **pipes) for command in commands]
        running.extend(started)
        return started

    yield launch
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def finish(start):
    """`finish(folder, tasks, world=1)`: per rank, the results of the tasks."""

    def run(folder, tasks, world=1, timeout=280):
        for process in start(folder, tasks, world):
            _, errors = process.communicate(timeout=timeout)
            assert process.returncode == 0, errors
        return [pickle.loads((folder / f"results{rank}.pickle").read_bytes()) for rank in range(world)]

    return run
