"""Every benchmark runs at a tiny size as its users run it, and its ratios are those of its own figures."""

import importlib
import json
import os
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from acdis.data import phantom

SCRIPTS = ("machine", "step", "crops", "overhead")


@pytest.fixture
def load(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    """A script as a module; its name is free again afterwards."""
    monkeypatch.syspath_prepend(checkout / "benchmarks")

    def module(name: str) -> ModuleType:
        for script in SCRIPTS:
            monkeypatch.delitem(sys.modules, script, raising=False)
        return importlib.import_module(name)

    yield module
    for script in SCRIPTS:
        sys.modules.pop(script, None)


def run(checkout: Path, script: str, *words: str) -> str:
    ended = subprocess.run(
        [sys.executable, str(checkout / "benchmarks" / f"{script}.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=checkout,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_machine_names_processor_and_versions(checkout: Path) -> None:
    text = run(checkout, "machine")
    assert f"torch {version('torch')}" in text
    assert f"{len(os.sched_getaffinity(0))} CPUs" in text


@pytest.mark.slow
def test_step_measures_both_precisions(checkout: Path, tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    text = run(checkout, "step", "--crop=16", "--width=4", "--batch=1", "--steps=3", f"--json={file}")
    found = json.loads(file.read_text())
    median = {name: sorted(found[name]["seconds"])[1] for name in ("fp32", "bf16")}
    assert found["median_seconds"] == median
    assert found["speedup_bf16"] == pytest.approx(median["fp32"] / median["bf16"])
    assert all(len(found[name]["seconds"]) == 3 for name in median)
    assert found["fp32"]["threads"] == 1
    for name in median:
        # Gradients and Adam's three running values of them, float32: the least that a step adds.
        least = 4 * 4 * found[name]["parameters"]
        assert found[name]["before_bytes"] + least < found[name]["peak_bytes"] < 2e9
    assert "peak under 12 GB: yes" in text
    assert f"torch {version('torch')}" in text


def test_step_says_so_when_a_peak_is_over_the_limit(load) -> None:
    step = load("step")
    gigabytes = {"fp32": 12.5, "bf16": 10.0}
    results = {
        name: {"seconds": [3.0, 1.0, 2.0], "peak_bytes": size * 1e9, "before_bytes": 5e8, "parameters": 7}
        | {"hardware_bf16": True}
        for name, size in gigabytes.items()
    }
    results["bf16"]["seconds"] = [0.5, 0.5, 4.0]
    summary = step.summarise(results)
    assert summary["median_seconds"] == {"fp32": 2.0, "bf16": 0.5}
    assert summary["speedup_bf16"] == 4.0
    assert summary["memory_bf16_over_fp32"] == pytest.approx(0.8)
    size = {"crop": 80, "width": 16, "batch": 1, "steps": 3}
    assert "peak under 12 GB: NO" in step.report(size, results, summary)


@pytest.mark.slow
def test_crops_compares_with_monai(checkout: Path, tmp_path: Path) -> None:
    phantom.write(tmp_path / "cases", cases=1, seed=0, shape=(48, 48, 48), spacing=4.0)
    file = tmp_path / "crops.json"
    text = run(checkout, "crops", str(tmp_path / "cases"), "--seconds=0.1", f"--json={file}")
    found = json.loads(file.read_text())
    rates = found["crops_per_second"]
    assert found["ratio"] == pytest.approx(rates["cache"] / rates["monai"])
    assert min(rates.values()) > 0
    assert "Phantom_00001" in text
    assert f"monai {version('monai')}" in text


def test_crops_needs_a_case(checkout: Path, tmp_path: Path) -> None:
    line = [sys.executable, str(checkout / "benchmarks" / "crops.py"), str(tmp_path)]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert str(tmp_path) in ended.stderr


def test_overhead_splits_the_difference(load) -> None:
    """By hand: an epoch takes 2 s alone and 2.1 s through Ray, all else 5 s and 17 s; three epochs."""
    compare = load("overhead").compare
    alone = {"seconds": 5 + 3 * 2.0, "ends": [4.0, 6.0, 8.0]}
    ray = {"seconds": 17 + 3 * 2.1, "ends": [100.0, 102.1, 104.2]}
    found = compare(alone, ray)
    assert found["difference_seconds"] == pytest.approx(12.3)
    assert found["share"] == pytest.approx(12.3 / 11)
    assert found["epoch_share"] == pytest.approx(0.05)
    assert found["once_seconds"] == pytest.approx(12.0)
    assert found["once_share_of_an_hour"] == pytest.approx(1 / 300)


def test_overhead_refuses_runs_of_different_length(load) -> None:
    with pytest.raises(SystemExit, match="cannot be compared"):
        load("overhead").compare({"seconds": 1, "ends": [1, 2]}, {"seconds": 1, "ends": [1, 2, 3]})


def test_overhead_tracks_every_epoch(load, tmp_path: Path) -> None:
    overhead = load("overhead")
    found = overhead.track(tmp_path, 4)
    assert 0 < found["told_ms"] <= found["told_worst_ms"] <= found["stored_worst_ms"]

    from acdis.tracking.runs import default_uri, open_store

    client = open_store(default_uri(tmp_path))
    (stored,) = client.search_runs([client.get_experiment_by_name("overhead").experiment_id])
    assert len(stored.data.metrics) == overhead.VALUES
    history = client.get_metric_history(stored.info.run_id, "train/term_3")
    assert [(point.step, point.value) for point in history] == [(step, step / 4) for step in (1, 2, 3, 4)]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_overhead_runs_both_ways(checkout: Path, tmp_path: Path) -> None:
    file = tmp_path / "overhead.json"
    words = ("--epochs=2", "--iterations=1", "--width=4", "--tracked=3", f"--json={file}")
    text = run(checkout, "overhead", *words)
    found = json.loads(file.read_text())
    (one,) = found["runs"]
    assert one["difference_seconds"] == pytest.approx(one["ray_seconds"] - one["alone_seconds"])
    assert min(one["epoch_alone_seconds"], one["epoch_ray_seconds"]) > 0
    assert statistics.median([one["once_seconds"]]) == found["median"]["once_seconds"]
    assert "tracking under 50 ms" in text
    assert f"ray {version('ray')}" in text
