"""Ablations on a cluster of three nodes that is struck by faults: always the same result.

`make test-chaos` runs every fault at random moments and writes docs/reliability.md's table; five of them are
part of `make test-cluster`. ACDIS_SEED chooses the faults' order and moments.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml
from storm import ablation
from storm.faults import BY_NAME, FAULTS, Fault, gone
from storm.hosts import Hosts, cut, taken_down
from storm.scene import EPOCHS, TREE, Hit, Scene, is_inside, weather
from storm.world import World
from world import missing

from acdis.workflow.publish import worker_spans

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

SEED = int(os.environ.get("ACDIS_SEED", 1))
#: Those of `make test-cluster`, one after the other in one ablation.
FIVE = (
    "worker: kill -9",
    "MLflow answers 500 for 30 s",
    "node: all processes killed",
    "trial's driver: kill -9",
    "job: SIGTERM",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Head, two workers, MLflow."""
    made = World(tmp_path_factory.mktemp("world"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three hosts of network namespaces with Ray and MLflow."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    made = Hosts(tmp_path_factory.getbasetemp())
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _scene(world: World, places: Callable[..., Any], seed: int) -> Scene:
    place = places(world.state)
    tracking = {"uri": world.proxy.uri, "experiment": f"storm-{seed}"}
    tiny = yaml.safe_load(place.experiment.read_text()) | {"tracking": tracking}
    place.experiment.write_text(yaml.safe_dump(tiny))
    return Scene(world, ablation.write_specs(place, TREE), seed)


@pytest.fixture(scope="module")
def undisturbed(world: World, places: Callable[..., Any]) -> Any:
    """The place of an ablation that nothing happens to."""
    scene = _scene(world, places, -1)
    weather(scene, [])
    return scene.place


def _survive(scene: Scene, undisturbed: Any, faults: list[Fault], store: str) -> list[Hit]:
    """`store`: where MLflow's runs are read."""
    hits = weather(scene, faults)
    try:
        ablation.assert_intact(scene.place, undisturbed, store, f"storm-{scene.seed}", EPOCHS)
        hits = [replace(hit, equal=True) for hit in hits]
    finally:
        if "ACDIS_CHAOS_RESULTS" in os.environ:
            for hit in hits:
                hit.write(Path(os.environ["ACDIS_CHAOS_RESULTS"]))
    return hits


@contextlib.contextmanager
def _training(world: World, places: Callable[..., Any], **scaling: Any) -> Iterator[tuple[Any, Any]]:
    """A place with an experiment of two workers, and its training, started; afterwards the world is whole."""
    place = places(world.state)
    tree = yaml.safe_load(place.experiment.read_text())
    tree["training"] |= TREE["training"]
    tree["training"]["iterations"] = 12
    tree["scaling"] |= {"workers": 2, "max_failures": 5, **scaling}
    place.experiment.write_text(yaml.safe_dump(tree))
    main = place.start("train", str(place.experiment))
    try:
        yield place, main
    finally:
        if main.poll() is None:
            main.kill()
            main.wait()
        world.mend()


def _went_on_with(workers: int, state: dict[str, Any], done: int) -> bool:
    """Whether so many workers have ended an epoch more than were done."""
    return state.get("workers") == workers and state.get("done", 0) > done


def _inside(place: Any, least: int) -> dict[str, Any]:
    return place.wait_for(lambda state: is_inside(place.cell(), least))


def _end(place: Any, main: Any) -> None:
    assert main.wait(timeout=900) == 0, (place.base / "log.txt").read_text()


@pytest.mark.faults
def test_a_training_goes_on_with_fewer_workers_and_grows_again(
    world: World, places: Callable[..., Any]
) -> None:
    """That this changes nothing but rounding is shown in tests/training/test_global_batch.py."""
    with _training(world, places, min_workers=1, resize_seconds=5.0) as (place, main):
        before = _inside(place, 1)
        assert before["workers"] == 2
        world.nodes["b"].signal(signal.SIGKILL)
        assert place.cell().state()["done"] < EPOCHS
        place.wait_for(lambda state: _went_on_with(1, state, before["done"]))
        world.start_node("b")
        place.wait_for(lambda state: state.get("workers") == 2 and state.get("status") == "training")
        _end(place, main)
    history = place.cell().history()
    assert [entry["epoch"] for entry in history] == list(range(1, EPOCHS + 1))
    counts = [entry["workers"] for entry in history]
    assert [count for count, _ in groupby(counts)] == [2, 1, 2]
    lineage = json.loads((place.cell().folder / "lineage.json").read_text())
    assert lineage["workers"] == worker_spans(history)
    assert lineage["workers"].startswith("2 (epochs 1")
    ((_, run),) = ablation.runs(f"sqlite:///{place.base}/mlflow.db").items()
    assert run.data.tags["acdis.workers"] == lineage["workers"]


@pytest.mark.chaos
def test_a_training_waits_for_a_node_that_is_lost(world: World, places: Callable[..., Any]) -> None:
    """Without `scaling.min_workers`: nothing is trained by fewer, and it goes on when the node is back."""
    with _training(world, places) as (place, main):
        before = _inside(place, 1)
        world.nodes["b"].signal(signal.SIGKILL)
        gone(before["pid"])
        done = place.cell().state()["done"]
        assert done < EPOCHS
        time.sleep(20)  # as long as it may take to start workers anew
        assert place.cell().state()["done"] == done
        world.start_node("b")
        _end(place, main)
    history = place.cell().history()
    assert [entry["epoch"] for entry in history] == list(range(1, EPOCHS + 1))
    assert {entry["workers"] for entry in history} == {2}


@pytest.mark.faults
def test_five_faults_change_nothing(world: World, places: Callable[..., Any], undisturbed: Any) -> None:
    """One after the other, the epochs divided among them; where none is left to hit, in another ablation."""
    _strike_all(world, places, undisturbed, [BY_NAME[name] for name in FIVE], SEED)


def _strike_all(
    world: World, places: Callable[..., Any], undisturbed: Any, faults: list[Fault], seed: int
) -> None:
    """Each ablation must be hit by one fault at least, and in their order."""
    left, part = faults, 0
    while left:
        scene = _scene(world, places, seed + part)
        left[0].prepare(scene)
        try:
            hits = _survive(scene, undisturbed, left, world.proxy.uri)
        finally:
            scene.abandon()
            left[0].tidy(scene)
        assert hits
        assert [hit.fault for hit in hits] == [fault.name for fault in left[: len(hits)]]
        left, part = left[len(hits) :], part + 1


def _storms() -> list[list[Fault]]:
    """Every fault once, kills until there are 20: many in one ablation, some in one to themselves."""
    chance = random.Random(SEED)
    if "ACDIS_FAULTS" in os.environ:  # only these, by name, one after the other
        return [[BY_NAME[name] for name in os.environ["ACDIS_FAULTS"].split(",")]]
    alone = [fault for fault in FAULTS if fault.alone]
    others = [fault for fault in FAULTS if not fault.alone]
    kills = [fault for fault in others if "kill" in fault.name]
    many = [*others, *chance.choices(kills, k=20 - len(kills))]
    chance.shuffle(many)
    return [many[at : at + 11] for at in range(0, len(many), 11)] + [[fault] for fault in alone]


@pytest.mark.chaos
@pytest.mark.parametrize("number", range(len(_storms())))
def test_storms_change_nothing(
    world: World, places: Callable[..., Any], undisturbed: Any, number: int
) -> None:
    """What was not struck because all was trained already is struck in another ablation."""
    faults = _storms()[number]
    if faults[0].lacking():
        pytest.skip(faults[0].lacking())
    _strike_all(world, places, undisturbed, faults, 10_000 * SEED + 100 * number)


#: Of hosts. After 120 s Ray has given the node up and trains elsewhere, while the worker there trains on.
OF_HOSTS = (
    Fault("network cut for 30 s", cut(30), kills=False),
    Fault("node: namespace taken down", taken_down, kills=False),
    Fault("network cut for 120 s", cut(120), kills=False),
)


@pytest.mark.chaos
def test_storms_on_hosts_change_nothing(hosts: Hosts, places: Callable[..., Any], undisturbed: Any) -> None:
    left, part = list(OF_HOSTS), 0
    while left:
        place = places(None)
        seed = 20_000 * SEED + part
        tree = yaml.safe_load(place.experiment.read_text())
        tree["tracking"] = {"uri": hosts.uri, "experiment": f"storm-{seed}"}
        place.experiment.write_text(yaml.safe_dump(tree))
        hosts.command_on_the_head(place)
        scene = Scene(hosts, ablation.write_specs(place, TREE), seed)
        try:
            hits = _survive(scene, undisturbed, left, hosts.store)
        finally:
            scene.abandon()
        assert hits
        left, part = left[len(hits) :], part + 1
