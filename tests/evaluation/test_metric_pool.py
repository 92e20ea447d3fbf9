"""Metrics in processes of their own: as without them, in order, bounded, and gone when scoring is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from acdis.config import Data, Evaluation
from acdis.data import cache, cases, phantom
from acdis.data.prepared_case import Entry
from acdis.evaluation import examples
from acdis.evaluation.case_files import CaseFiles
from acdis.evaluation.map_scores import LabelMap, Scorer
from acdis.evaluation.metric_pool import MetricPool, MetricsFailed, MetricsLost, processes_for
from acdis.evaluation.records import Record
from acdis.evaluation.scoring import score
from acdis.methods.base import Method

CPU = torch.device("cpu")
SETTINGS = Evaluation(
    window=(24, 24, 24),
    stride=(24, 24, 24),
    et_minimum=0,
    metrics=("nsd",),
    post_processing=[{"rule": "small_et", "volume": 400.0}],
)
PATIENCE = 600.0  # seconds; a process starts in one or two, on a machine that is free


class Noisy(Method):
    """Labels of the images' own noise, other ones for each subset; `before` is called with each case."""

    forward = None  # it is never trained

    def __init__(self, before: Callable[[int], None] = lambda case: None) -> None:
        super().__init__()
        self.before, self.cases = before, 0

    def encode(self, images, origin=None):
        self.cases += 1  # all windows of such a small case go through together
        self.before(self.cases)
        return images

    def decode(self, features, available):
        known = features * available[:, :, None, None, None]
        return 4.0 * torch.stack([known.sum(1).roll(shift, 1) for shift in range(4)], dim=1)


@pytest.fixture(scope="module")
def entries(tmp_path_factory) -> list[Entry]:
    folder = tmp_path_factory.mktemp("pool")
    phantom.write(folder / "cases", 3, seed=7, shape=(28, 30, 26), spacing=6.0)
    data = Data(min_size=24, crop=(16, 16, 16))
    return list(cache.prepare(cases.find(folder / "cases").cases, data, folder / "cache", 1).values())


@pytest.fixture(scope="module")
def plain(entries) -> list[Record]:
    """What one process gives, prediction and metrics by turns."""
    return score(Noisy(), entries, SETTINGS, CPU, None)


def children() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children() if "acdis import child" in " ".join(child.cmdline())
    ]


def send(number: int) -> None:
    for child in children():
        child.send_signal(number)


def test_records_slices_and_files_are_those_of_one_process(entries, plain, tmp_path: Path) -> None:
    """Ctrl-C at a terminal goes to a group that the processes are not in."""
    alone, beside = examples.Worst(), examples.Worst()
    assert score(Noisy(), entries, SETTINGS, CPU, None, keep=alone.add) == plain
    assert len({record.hd95 for record in plain}) > 20
    done: list[int] = []
    files = CaseFiles(tmp_path / "scored")
    groups: set[int] = set()
    method = Noisy(lambda _: groups.update(os.getpgid(child.pid) for child in children()))
    arguments = method, entries, SETTINGS, CPU, None, done.append
    assert score(*arguments, keep=beside.add, files=files, processes=1) == plain
    assert done == [1, 2, 3]
    assert len(groups) == 1
    assert os.getpgrp() not in groups
    assert not children()
    for one, other in zip(alone.examples, beside.examples, strict=True):
        assert (one.case, one.dice) == (other.case, other.dice)
        assert np.array_equal(one.predictions, other.predictions)
    for entry in entries:
        known = files.read(entry.name, pictured=True)
        assert known is not None
        assert known[0] == [record for record in plain if record.case == entry.name]


def test_the_next_case_is_predicted_meanwhile(entries, plain) -> None:
    """The processes stand still until the second case is begun: one after the other would wait for ever."""
    order: list[str] = []

    def before(case: int) -> None:
        order.append(f"predict {case}")
        send({1: signal.SIGSTOP, 2: signal.SIGCONT}.get(case, 0))

    arguments = Noisy(before), entries[:2], SETTINGS, CPU, None, lambda done: order.append(f"done {done}")
    found = score(*arguments, processes=1)
    assert found == [record for record in plain if record.case != entries[2].name]
    assert order == ["predict 1", "predict 2", "done 1", "done 2"]


def test_no_more_maps_wait_than_there_is_room_for(entries) -> None:
    """One at work and two that wait; the fourth waits outside. What cannot be computed is named."""
    labels = np.zeros_like(entries[0].native_labels())
    given = LabelMap(entries[0], ("T1",), labels, SETTINGS)
    with MetricPool(1, waiting=2) as pool:
        send(signal.SIGSTOP)
        futures = [pool.submit(given) for _ in range(3)]
        late = threading.Thread(target=lambda: futures.append(pool.submit(given)))
        late.start()
        late.join(0.5)
        assert late.is_alive()
        send(signal.SIGCONT)
        late.join(PATIENCE)
        assert [each.result(PATIENCE).records for each in futures] == [Scorer()(given).records] * 4
        wrong = LabelMap(entries[0], ("T1", "T2"), labels[1:], SETTINGS)
        with pytest.raises(
            MetricsFailed, match=rf"^{given.entry.name}, T1_T2: its metrics cannot (.|\n)*27, 30"
        ):
            pool.submit(wrong).result(PATIENCE)


def test_a_process_that_is_killed_is_named(entries) -> None:
    method = Noisy(lambda case: send(signal.SIGKILL) if case == 2 else None)
    first = entries[0].name
    with pytest.raises(MetricsLost, match=rf"{first}|{entries[1].name}.*is gone \(killed"):
        score(method, entries, SETTINGS, CPU, None, processes=1)
    assert not children()


def test_ctrl_c_leaves_no_process(entries) -> None:
    """Also while the processes do not answer."""

    def interrupt(case: int) -> None:
        if case == 2:
            send(signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        score(Noisy(interrupt), entries, SETTINGS, CPU, None, processes=2)
    assert not children()


def test_a_process_ends_with_the_one_that_started_it() -> None:
    """Also by kill -9, when nobody ends it."""
    words = "import acdis.evaluation.metric_pool as m, psutil, signal\nwith m.MetricPool(1):\n"
    words += "    print(psutil.Process().children()[0].pid, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    end = time.monotonic() + PATIENCE
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("choice", "device", "given", "cases", "expected"),
    [
        (None, "cpu", {}, 9, 0),
        (None, "cuda", {}, 9, 3),
        (None, "cuda", {"hd95": False}, 9, 0),
        (None, "cuda", {"hd95": False, "metrics": ("nsd",)}, 9, 3),
        (None, "cuda", {}, 1, 0),
        (2, "cpu", {}, 9, 2),
        (0, "cuda", {}, 9, 0),
    ],
)
def test_how_many(choice, device, given, cases, expected) -> None:
    """Of a worker with four threads."""
    assert processes_for(choice, torch.device(device), Evaluation(**given), cases, 4) == expected
