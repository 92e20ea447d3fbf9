"""The shipped cluster.local.yaml on three hosts: it comes up, trains over two, lets nobody in, goes down.

The hosts are network namespaces of this machine (world.py); everything else is as on three machines: ssh,
rsync, Ray's own `ray up`, jobs through a tunnel. The tests come in the order of a day: the last takes it
down.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any

import pytest
import yaml
from launched import DASHBOARD, MLFLOW, Cluster, reaches
from ports import listening_in_its_namespace
from world import PATIENCE, Host, World, command_of, missing, wait_for

from acdis.cells import Cell
from acdis.evaluation.records import read_parquet

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
GCS, CLIENT, AGENT = 6379, 10001, 52365
#: Two CPUs a worker: with two on a host, the workers of one training are on two hosts.
WIDE = ["scaling.workers=2", "scaling.cpus_per_worker=2"]


class Watch(threading.Thread):
    """Every command line that `ps` would have shown on any host, from start to stop."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self.world = world
        self.seen: dict[str, set[str]] = {host.name: set() for host in (*world, world.desk)}
        self.listening: dict[str, set[str]] = {}  # the most that a training's process there had
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.4):
            for host in (*self.world, self.world.desk):
                commands = {process: command_of(process) for process in host.processes()}
                self.seen[host.name] |= set(commands.values())
                for process, command in commands.items():
                    if "RayTrainWorker" in command:
                        self._listen(host, process)

    def _listen(self, host: Host, process: int) -> None:
        with contextlib.suppress(OSError):  # it has just ended
            found = listening_in_its_namespace(process)
            everywhere = [address for address in found if address in ("0.0.0.0", "::")]
            self.listening.setdefault(host.name, set()).update({*found, f"everywhere: {len(everywhere)}"})

    def hosts_of(self, word: str) -> list[str]:
        """Names of the hosts that had a process with the word in its command line."""
        return [name for name, lines in self.seen.items() if any(word in line for line in lines)]


class Day:
    """What was done on the cluster before the tests look at it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.watch = Watch(cluster.world)
        self.watch.start()
        shared = cluster.world.shared
        self.trained = cluster.submit(["train", str(shared / "tiny.yaml"), *WIDE])
        self.ablated = cluster.submit(["ablate", str(shared / "rows.yaml"), "scaling.cpus_per_worker=2"])
        self.watch.over.set()
        self.watch.join()

    def cells(self) -> list[Cell]:
        """On the shared storage."""
        return [Cell(folder.parent) for folder in sorted((self.cluster.home / "cells").glob("*/state.json"))]


@pytest.fixture(scope="session")
def day(cluster: Cluster) -> Iterator[Day]:
    """A training over two hosts and an ablation of two rows, as jobs through a tunnel that stays."""
    with cluster.tunnel(DASHBOARD, MLFLOW):
        yield Day(cluster)


def _ask(
    cluster: Cluster, port: int, path: str, header: str = "", body: str = "", host: str = ""
) -> tuple[int, str]:
    """From the desk, through the tunnel or to `host`."""
    return cluster.ask(cluster.world.desk, host or "127.0.0.1", port, path, header, body)


def test_a_head_without_cpus_and_two_workers_come_up(cluster: Cluster) -> None:
    nodes = {node["node_ip"]: node["resources_total"] for node in cluster.nodes()}
    assert nodes.keys() == {host.address for host in cluster.world}
    assert "CPU" not in nodes[cluster.head.address]
    assert nodes[cluster.head.address]["driver"] == 16
    assert all(nodes[host.address]["CPU"] >= 1 for host in cluster.workers)
    assert all("driver" not in nodes[host.address] for host in cluster.workers)


def test_a_job_trains_on_two_hosts_and_none_of_it_on_the_head(day: Day) -> None:
    assert day.trained.returncode == 0, day.trained.stdout
    assert re.search(r"mean .*over the 15", day.trained.stdout) or "FLAIR" in day.trained.stdout
    assert day.watch.hosts_of("RayTrainWorker") == ["one", "two"]
    wide = [cell for cell in day.cells() if cell.state()["workers"] == 2]
    (cell,) = wide
    assert cell.state()["status"] == "done"
    assert [entry["epoch"] for entry in cell.history()] == [1, 2, 3]
    (folder,) = Path(cell.evaluations).iterdir()
    assert len(read_parquet(folder / "records.parquet")) == 15 * 3  # one test case


def test_the_workers_of_a_training_meet_on_their_nodes_addresses(day: Day) -> None:
    """One port of each listens everywhere, Ray's own, which wants the token. torch's store was a second."""
    for host in day.cluster.workers:
        found = day.watch.listening[host.name]
        assert {each for each in found if each.startswith("everywhere")} <= {"everywhere: 0", "everywhere: 1"}
        assert host.address in found
        assert {each for each in found if "everywhere" not in each} <= {host.address, "0.0.0.0", "::"}


def test_an_ablations_drivers_are_on_the_head_and_its_cells_on_the_workers(day: Day) -> None:
    assert day.ablated.returncode == 0, day.ablated.stdout
    assert "2 at a time on 2 CPUs a worker" in day.ablated.stdout
    assert day.watch.hosts_of("ray::ImplicitFunc") == ["head"]
    assert len(day.cells()) == 3
    assert {cell.state()["status"] for cell in day.cells()} == {"done"}


def test_mlflow_on_the_heads_loopback_has_every_epoch_though_no_worker_reaches_it(day: Day) -> None:
    cluster = day.cluster
    assert not any(reaches(host, cluster.head.address, MLFLOW) for host in cluster.workers)
    code, said = _ask(cluster, MLFLOW, "/api/2.0/mlflow/experiments/get-by-name?experiment_name=acdis")
    assert code == 200
    experiment = json.loads(said)["experiment"]["experiment_id"]
    body = json.dumps({"experiment_ids": [experiment], "filter": "tags.`acdis.cell` LIKE '%'"})
    code, said = _ask(cluster, MLFLOW, "/api/2.0/mlflow/runs/search", body=body)
    assert code == 200
    runs = json.loads(said)["runs"]
    assert len(runs) == 3
    for run in runs:
        assert run["info"]["status"] == "FINISHED"
        path = f"/api/2.0/mlflow/metrics/get-history?run_id={run['info']['run_id']}&metric_key=train/loss"
        code, said = _ask(cluster, MLFLOW, path)
        assert sorted(int(point["step"]) for point in json.loads(said)["metrics"]) == [1, 2, 3]
        assert {metric["key"] for metric in run["data"]["metrics"]} >= {"dice/WT/mean", "dice/ET/FLAIR_T1ce"}


def test_a_job_without_a_token_or_with_a_wrong_one_is_refused(day: Day) -> None:
    cluster, job = day.cluster, json.dumps({"entrypoint": "touch /tmp/got-in"})
    places = [(DASHBOARD, "/api/jobs/", ""), (AGENT, "/api/job_agent/jobs/", cluster.head.address)]
    places += [(AGENT, "/api/job_agent/jobs/", host.address) for host in cluster.workers]
    for port, path, host in places:
        assert _ask(cluster, port, path, body=job, host=host)[0] == 401, (port, host)
        wrong = f"Authorization: Bearer {'0' * 64}"
        assert _ask(cluster, port, path, wrong, job, host)[0] == 403, (port, host)
    submit = f"ray job submit --address http://127.0.0.1:{DASHBOARD} -- touch /tmp/got-in"
    for variables in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}):
        done = cluster.desk_run(submit, env=variables)
        assert done.returncode != 0
        assert re.search(r"(?i)401|403|unauth|forbidden|token", done.stdout + done.stderr)
    assert _ask(cluster, DASHBOARD, "/api/jobs/", cluster.bearer)[0] == 200
    assert not any((host.tmp / "got-in").exists() for host in cluster.world)


_JOIN = """
import os, sys, ray
own = {} if sys.argv[1].startswith("ray:") else {"_node_ip_address": sys.argv[2]}
try:
    ray.init(address=sys.argv[1], logging_level="ERROR", **own)
except BaseException as error:
    print("refused:", " ".join(str(error).split())[:300], flush=True)
else:
    print("in:", ray.cluster_resources(), flush=True)
os._exit(0)
"""


def test_rays_own_ports_let_nobody_in_without_the_token(day: Day, tmp_path: Path) -> None:
    """The head's GCS and Ray Client, to which other hosts can connect, since workers must."""
    cluster, desk = day.cluster, day.cluster.world.desk
    (cluster.world.shared / "join.py").write_text(_JOIN)
    doors = (f"{cluster.head.address}:{GCS}", f"ray://{cluster.head.address}:{CLIENT}")
    without, wrong, right = {"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}, {}

    def knock(door: str, keys: dict[str, str], out: Path, seconds: int = 60) -> Popen[bytes]:
        script = str(cluster.world.shared / "join.py")
        words = ["timeout", str(seconds), sys.executable, script, door, desk.address]
        return desk.start(words, out, {"RAY_AUTH_MODE": "token", **keys})

    tries = [(door, keys) for door in doors for keys in (without, wrong)]
    started = [knock(*each, tmp_path / str(number)) for number, each in enumerate(tries)]
    for process in started:  # side by side: some wait long before they give up
        process.wait(timeout=PATIENCE)
    said = [(tmp_path / str(number)).read_text() for number in range(len(tries))]
    assert not any("in:" in text for text in said), said
    # On a busy machine the server that Ray starts for a client may not be up within its half minute.
    for attempt in range(3):
        out = tmp_path / f"right {attempt}"
        knock(doors[1], right, out, PATIENCE).wait(timeout=2 * PATIENCE)
        if "in:" in out.read_text():
            return
    pytest.fail((tmp_path / "right 2").read_text())


def test_mlflow_and_dashboard_are_on_loopback_alone(cluster: Cluster) -> None:
    for port in (DASHBOARD, MLFLOW):
        wait_for(lambda port=port: reaches(cluster.head, "127.0.0.1", port), f"port {port} of the head")
        for host in (cluster.world.desk, *cluster.workers, cluster.head):
            assert not reaches(host, cluster.head.address, port), (host.name, port)


def test_the_token_is_in_no_log_artifact_tag_or_process_list(day: Day) -> None:
    """Looked for in all that is on any host's disk and on the shared storage, MLflow's store included."""
    cluster = day.cluster
    assert len(cluster.token) >= 32
    own = {cluster.world.desk.tmp / "home/.ray/auth_token"}
    own |= {host.tmp / "home/.ray/auth_token" for host in cluster.world}
    files = [path for path in cluster.world.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    found = [path for path in files if path not in own and cluster.token.encode() in path.read_bytes()]
    assert [path for path in files if path in own]
    assert any(path.name == "mlflow.db" for path in files)
    assert any(path.name == "raylet.out" for path in files)
    assert found == []
    for name, lines in day.watch.seen.items():
        assert not [line for line in lines if cluster.token in line], name
    assert all((path.stat().st_mode & 0o077) == 0 for path in own)
    said = (day.trained.stdout, day.ablated.stdout, cluster.said_up)
    assert not any(cluster.token in text for text in said)


def _failed(done: CompletedProcess[str]) -> str:
    assert done.returncode != 0, done.stdout
    return done.stdout


def test_a_missing_data_root_is_said_with_the_nodes_name(day: Day) -> None:
    words = ["train", str(day.cluster.world.shared / "tiny.yaml"), "data.phantoms=null", "data.root=/nowhere"]
    assert "data.root: /nowhere is not a folder on head" in _failed(day.cluster.submit(words))


def test_a_node_that_does_not_see_the_storage_is_named_and_nothing_is_tried_again(day: Day) -> None:
    cluster = day.cluster
    blind: Host = cluster.workers[1]
    blind.run(["mount", "-t", "tmpfs", "none", str(cluster.home)], check=True)
    try:
        words = ["train", str(cluster.world.shared / "tiny.yaml"), *WIDE, "seed=7"]
        said = _failed(cluster.submit(words))
    finally:
        blind.run(["umount", str(cluster.home)], check=True)
    assert re.search(
        rf"error: two: {cluster.home}/\S+ is not there; every node must see the same ACDIS_HOME", said
    )


def test_ray_down_ends_it(day: Day) -> None:
    cluster = day.cluster
    cluster.down()
    wait_for(lambda: not _rays(cluster.head), "the end of Ray on the head")
    wait_for(lambda: not reaches(cluster.head, "127.0.0.1", MLFLOW), "the end of MLflow")
    assert yaml.safe_load((cluster.world.shared / "tiny.yaml").read_text())  # what is on the storage stays
    assert len(day.cells()) >= 3


def _rays(host: Host) -> list[Any]:
    return [line for line in map(command_of, host.processes()) if "raylet" in line or "gcs_server" in line]
