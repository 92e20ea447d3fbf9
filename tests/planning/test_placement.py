"""How a cluster's resources are shared out, and where to connect."""

from __future__ import annotations

from typing import Any

import pytest

from acdis.cluster.session import address_of
from acdis.config import Scaling
from acdis.errors import UserError
from acdis.planning.placement import WorkerShare, idle_gpus, share, side_by_side


@pytest.mark.parametrize(
    ("nodes", "scaling", "room"),
    [
        ([{"CPU": 2}], {}, WorkerShare(2, 0)),
        ([{"CPU": 2}], {"workers": 2}, WorkerShare(1, 0)),
        ([{"CPU": 8}, {"CPU": 2}], {"workers": 2}, WorkerShare(4, 0)),
        ([{"CPU": 8}, {"CPU": 8}], {"workers": 2}, WorkerShare(8, 0)),
        ([{"CPU": 8}, {"CPU": 8}], {"workers": 3}, WorkerShare(4, 0)),
        ([{"CPU": 16}, {"CPU": 4, "GPU": 2}], {"workers": 2, "gpu": True}, WorkerShare(2, 1)),
        ([{"CPU": 8, "GPU": 1}], {"gpu": True, "cpus_per_worker": 3}, WorkerShare(3, 1)),
        ([{"driver": 1}, {"CPU": 4}], {}, WorkerShare(4, 0)),
        ([{"CPU": 4}], {"workers": 8, "min_workers": 2}, WorkerShare(2, 0)),
        ([{"CPU": 4}], {"workers": 3, "min_workers": 2}, WorkerShare(1, 0)),
    ],
)
def test_workers_get_what_leaves_room_for_all(nodes: Any, scaling: dict[str, Any], room: WorkerShare) -> None:
    assert share(nodes, Scaling(**scaling)) == room


@pytest.mark.parametrize(
    ("nodes", "scaling", "words"),
    [
        ([{"CPU": 2}], {"workers": 3}, ["3 workers of 1 CPUs and 0 GPUs", "2 CPUs, 0 GPUs: room for 2"]),
        (
            [{"CPU": 2}, {"CPU": 1}],
            {"gpu": True},
            ["1 workers of 1 CPUs and 1 GPUs", "2 CPUs, 0 GPUs + 1 CPUs", "room for 0"],
        ),
        ([{"CPU": 2}], {"cpus_per_worker": 4}, ["1 workers of 4 CPUs", "room for 0"]),
        ([{}], {}, ["room for 0"]),
        ([], {}, ["room for 0"]),
    ],
)
def test_what_can_never_be_placed_is_refused_with_the_sum(
    nodes: Any, scaling: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as refused:
        share(nodes, Scaling(**scaling))
    for word in ["scaling.workers", *words]:
        assert word in str(refused.value)


def test_without_an_address_a_ray_of_our_own() -> None:
    assert address_of({}) == address_of({"RAY_ADDRESS": " "}) == "local"
    assert address_of({"RAY_ADDRESS": "10.0.0.1:6379"}) == "10.0.0.1:6379"
    assert address_of({"RAY_ADDRESS": "auto"}) == "auto"


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "https://cluster", "ray://cluster:10001"])
def test_addresses_that_cannot_train_are_refused(address: str) -> None:
    with pytest.raises(UserError, match="RAY_ADDRESS"):
        address_of({"RAY_ADDRESS": address})


@pytest.mark.parametrize(
    ("gpus", "gpu", "line"),
    [
        ([1.0], False, "1 GPU stands idle: scaling.gpu=true trains there"),
        ([2.0, 0.0, 1.0], False, "3 GPUs stand idle: scaling.gpu=true trains there"),
        ([2.0], True, ""),
        ([0.0], False, ""),
    ],
)
def test_a_gpu_that_nobody_asked_for_is_said(gpus: list[float], gpu: bool, line: str) -> None:
    nodes = [{"CPU": 4.0, "GPU": each} for each in gpus]
    assert idle_gpus(nodes, Scaling(gpu=gpu)) == line


def test_several_cells_share_a_card() -> None:
    """Three on each of two cards, as many as the CPUs allow."""
    nodes = [{"CPU": 8.0, "GPU": 2.0}]
    third = Scaling(gpu=True, gpus_per_worker=0.33, cpus_per_worker=1)
    assert side_by_side(nodes, third, cells=50) == (WorkerShare(1, 0.33), 6)
    assert side_by_side(nodes, Scaling(gpu=True, cpus_per_worker=1), cells=50) == (WorkerShare(1, 1), 2)
    assert side_by_side([{"CPU": 4.0, "GPU": 2.0}], third, cells=50)[1] == 4
    half = Scaling(gpu=True, gpus_per_worker=0.5, cpus_per_worker=1)
    assert side_by_side(nodes, half, cells=50)[1] == 4
    with pytest.raises(ValueError, match="two ranks cannot meet on one card"):
        Scaling(gpu=True, gpus_per_worker=0.5, workers=2)
