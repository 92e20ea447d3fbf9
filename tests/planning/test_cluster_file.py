"""What cluster files say a cluster may become, and what can never be placed on it. No Ray is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from acdis.ablation.selection import load_specs
from acdis.cluster import session
from acdis.config import Scaling
from acdis.errors import UserError
from acdis.planning.cluster_file import of_file
from acdis.planning.placement import WorkerShare, fit_specs, share, side_by_side

CLUSTER = """\
cluster_name: mine
max_workers: 3
provider: {type: aws, region: eu-central-1}
available_node_types:
  head: {resources: {CPU: 0, driver: 2}, node_config: {}, max_workers: 0}
  gpu: {resources: {CPU: 8, GPU: 1}, node_config: {}, min_workers: 0, max_workers: 2}
  cpu: {resources: {CPU: 4}, node_config: {}, max_workers: 5}
head_node_type: head
"""


def _file(folder: Path, text: str = CLUSTER) -> Path:
    (folder / "cluster.yaml").write_text(text)
    return folder / "cluster.yaml"


def test_the_head_and_as_many_workers_as_the_file_allows(tmp_path: Path) -> None:
    found = of_file(_file(tmp_path))
    nodes = [(node["CPU"], node["GPU"], node["driver"]) for node in found.nodes]
    assert nodes == [(0, 0, 2), (8, 1, 0), (8, 1, 0), (4, 0, 0)]  # three workers at most, all types together
    assert found.source == f"{tmp_path}/cluster.yaml (head and up to 2 gpu, 1 cpu)"
    assert not found.local


def test_trials_side_by_side_are_no_more_than_the_head_drives(tmp_path: Path) -> None:
    nodes = of_file(_file(tmp_path)).nodes
    assert side_by_side(nodes, Scaling(cpus_per_worker=1), cells=50) == (WorkerShare(1, 0), 2)  # room for 20
    assert side_by_side(nodes, Scaling(gpu=True), cells=1) == (WorkerShare(8, 1), 1)
    assert share(nodes, Scaling(workers=2, gpu=True)) == WorkerShare(8, 1)


def test_what_can_never_be_placed_is_refused_with_the_sum(tmp_path: Path) -> None:
    cluster = _file(tmp_path)
    (tmp_path / "big.yaml").write_text(
        "data: {phantoms: {cases: 4}, split: {counts: [2, 1, 1]}}\n"
        "training: {batch_size: 3}\nscaling: {workers: 3, gpu: true}\n"
    )
    (tmp_path / "own.yaml").write_text(
        "base: big.yaml\nbaseline: a\nrows: {a: {}, b: {set: {training.epochs: 2}}}\n"
    )
    with pytest.raises(UserError) as refused:
        fit_specs(load_specs([tmp_path / "own.yaml"]), of_file(cluster))
    assert str(refused.value) == (
        f"{tmp_path}/own.yaml, row 'a': can never be scheduled on {cluster} (head and up to 2 gpu, 1 cpu): "
        "scaling.workers: 3 workers of 1 CPUs and 1 GPUs each do not fit the cluster (0 CPUs, 0 GPUs + "
        "2 × (8 CPUs, 1 GPUs) + 4 CPUs, 0 GPUs: room for 2); set fewer workers, scaling.cpus_per_worker, or "
        "scaling.gpu=false"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\n", "has no 'provider'"),
        (
            CLUSTER.replace("head_node_type: head", "head_node_type: hed"),
            "line 8: head_node_type: no node type",
        ),
        (CLUSTER.replace("max_workers: 3", "max_workers: many"), "line 2: max_workers: must be a number"),
        (CLUSTER.replace("resources: {CPU: 4}, ", ""), "cpu: says no 'resources'"),
        (CLUSTER.replace("CPU: 4", "CPU: four"), "cpu: CPU must be a number"),
        (CLUSTER.replace("type: aws", "type: local, head_ip: a, worker_ips: [b]"), "names hosts"),
    ],
)
def test_a_file_that_says_too_little_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        of_file(_file(tmp_path, text))


def test_on_a_cluster_that_grows_one_reckons_with_what_may_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_alive", lambda: [{"driver": 2.0}])  # only the head is there yet
    monkeypatch.delenv(session.CLUSTER_FILE, raising=False)
    assert session.nodes(print) == [{"driver": 2.0}]
    monkeypatch.setenv(session.CLUSTER_FILE, str(_file(tmp_path)))
    assert [node["CPU"] for node in session.nodes(print)] == [0, 8, 8, 4]


def test_given_hosts_are_waited_for_and_then_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CLUSTER.replace("type: aws", "type: local, head_ip: a, worker_ips: [b, c]")
    monkeypatch.setenv(session.CLUSTER_FILE, str(_file(tmp_path, text)))
    monkeypatch.setenv(session.PATIENCE, "5")
    answers = [[{"CPU": 1.0}], [{"CPU": 1.0}] * 2, [{"CPU": 1.0}] * 3]
    monkeypatch.setattr(session, "_alive", lambda: answers.pop(0))
    said: list[str] = []
    assert len(session.nodes(said.append)) == 3
    assert said == ["Ray: 1 of 3 hosts are up; waiting for the others, 5 s at most"]
    monkeypatch.setattr(session, "_alive", lambda: [{"CPU": 1.0}] * 2)
    monkeypatch.setenv(session.PATIENCE, "0")
    assert len(session.nodes(said.append)) == 2
    assert said[-1] == "Ray: 1 of 3 hosts did not come up; going on without them"
