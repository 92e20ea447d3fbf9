"""How the workers of one training find each other: a store on the node's own address, for one worker none.

Ray's own way has torch open its store on all interfaces, with no token, for a single worker too. Gloo and
NCCL take the interface of the host's name or the first that they find; here they get the one that Ray uses.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import ray
import torch.distributed as dist
from ray.train.backend import Backend
from ray.train.torch import TorchConfig

#: Seconds that the end of a group may take before its workers are ended all the same.
END_SECONDS = 30


@dataclass(frozen=True)
class Place:
    """Where the first worker's store listens.

    Attributes:
        listener: descriptor of the bound socket, which means something in the first worker's process alone.
    """

    address: str
    port: int
    listener: int


class Rendezvous(TorchConfig):
    """Ray Train's settings for torch, with our way for workers to meet."""

    @property
    def backend_cls(self) -> type[Backend]:
        return NodeAddress


class NodeAddress(Backend):
    """Starts and ends torch's process group, where there is more than one worker."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Every worker in one group."""
        world = len(worker_group)
        if world == 1:
            return
        place = worker_group.execute_single(0, listen)
        common = (backend_config.backend, place, world, timedelta(seconds=backend_config.timeout_s))
        ray.get([worker_group.execute_single_async(rank, join, rank, *common) for rank in range(world)])

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Workers that hang in the group are left to Ray, which ends them."""
        if len(worker_group) > 1:
            ray.wait(worker_group.execute_async(leave), num_returns=len(worker_group), timeout=END_SECONDS)


def listen() -> Place:
    """A socket on this node's address, and on no other, for `join` in the same process."""
    address = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.bind((address, 0))
    return Place(address, server.getsockname()[1], server.detach())


def join(rank: int, backend: str, place: Place, world: int, patience: timedelta) -> None:
    """Make this process one of `world`; returns when all are there."""
    interface = interface_of(ray.util.get_node_ip_address())
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")  # that name, not those that begin so
    leads = rank == 0
    store = dist.TCPStore(
        place.address,
        place.port,
        world,
        is_master=leads,
        timeout=patience,
        wait_for_workers=False,
        master_listen_fd=place.listener if leads else None,
    )
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=patience)


def leave() -> None:
    """End this process's part of the group, if it has one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def interface_of(address: str) -> str | None:
    """The name of the network interface that has the address; none where no interface has it."""
    if address.startswith("127."):  # all of them are loopback's, which names one
        address = "127.0.0.1"
    return next(
        (
            name
            for name, addresses in psutil.net_if_addrs().items()
            if any(assigned.address == address for assigned in addresses)
        ),
        None,
    )
