"""Every benchmark runs at a tiny size as its users run it, and its ratios are those of its own figures."""

import importlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from acdis.data import phantom
from acdis.training.precision import cpu_has_bf16

#: See conftest.py.
Run = Callable[..., str]
SCRIPTS = (
    "machine",
    "decisions",
    "roofline",
    "volume",
    "plain",
    "step",
    "crops",
    "overhead",
    "evaluation",
    "sharing",
    "feeding",
    "ddp",
    "plan",
    "growth",
    "consistency",
    "curve",
    "agreement",
    "lesions",
    "predict",
)


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


def test_machine_names_processor_and_versions(benchmark: Run) -> None:
    text = benchmark("machine")
    assert f"torch {version('torch')}" in text
    assert f"{len(os.sched_getaffinity(0))} CPUs" in text


@pytest.mark.slow
def test_step_measures_each_side(benchmark: Run, tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    text = benchmark("step", "--crop=16", "--width=4", "--batch=1", "--steps=3", f"--json={file}")
    found = json.loads(file.read_text())
    sides = ["plain", "fp32", "checkpointed"] + ["bf16"] * cpu_has_bf16()
    median = {name: sorted(found[name]["seconds"])[1] for name in sides}
    assert found["median_seconds"] == median
    assert found["speedup"]["fp32"] == pytest.approx(median["plain"] / median["fp32"])
    assert all(len(found[name]["seconds"]) == 3 for name in sides)
    assert found["fp32"]["threads"] == 1
    for name in sides:
        # Gradients and Adam's three running values of them, float32: the least that a step adds.
        least = 4 * 4 * found[name]["parameters"]
        assert found[name]["before_bytes"] + least < found[name]["peak_bytes"] < 2e9
    assert ("bf16: not measured" in text) != cpu_has_bf16()
    assert f"torch {version('torch')}" in text
    assert min(found["fp32"]["gflop"], found["fp32"]["ceiling_gflops"]) > 0


def test_lesions_names_what_costs_most(load, tmp_path: Path, capsys) -> None:
    """Its ratios are those of its seconds, for every name and kind of prediction."""
    root, file = tmp_path / "cases", tmp_path / "lesions.json"
    phantom.write(root, cases=2, seed=0, shape=(32, 32, 32), spacing=5.0)
    load("lesions").main([str(root), "--cases=1", f"--json={file}"])
    found = json.loads(file.read_text())
    assert set(found["seconds"]) == {"moved", "specks", "clouds"}
    for kind, seconds in found["seconds"].items():
        assert min(seconds.values()) > 0
        assert found["ratios"][kind] == {
            name: pytest.approx(each / seconds["hd95"]) for name, each in seconds.items()
        }
    assert found["worst"] == max(max(each.values()) for each in found["ratios"].values())
    assert f"the most: {found['worst']:.2f} ×" in capsys.readouterr().out


def test_operations_are_counted_as_by_hand(load) -> None:
    roofline = load("roofline")
    image, layer = torch.zeros(2, 3, 5, 6, 7), torch.nn.Conv3d(3, 4, 3, padding=1, bias=False)
    product = 2 * 3 * 4 * 27 * 2 * 5 * 6 * 7  # two operations for each of a kernel's values, at each voxel
    with torch.no_grad():
        assert roofline.count(lambda: layer(image)) == product
        padding, one = (1, 1, 1), (1, 1, 1)
        direct = torch.ops.aten.mkldnn_convolution
        assert roofline.count(lambda: direct(image, layer.weight, None, padding, one, one, 1)) == product
    assert roofline.count(lambda: torch.zeros(5, 6) @ torch.zeros(6, 7)) == 2 * 5 * 6 * 7


def test_the_ceiling_is_a_rate(load, capsys) -> None:
    load("roofline").main(["--matrix=64"])
    assert "GFLOP/s in a product of 64² matrices" in capsys.readouterr().out


def test_step_compares_with_the_plain_way(load) -> None:
    step = load("step")
    peaks = {"plain": 20.0, "fp32": 10.0, "checkpointed": 5.0}
    results = {
        name: {"seconds": [3.0, 1.0, 2.0], "peak_bytes": size * 1e9, "before_bytes": 5e8, "parameters": 7}
        for name, size in peaks.items()
    }
    results["fp32"] |= {"seconds": [0.5, 0.5, 4.0], "gflop": 50.0, "ceiling_gflops": 200.0}
    summary = step.summarise(results)
    assert summary["median_seconds"] == {"plain": 2.0, "fp32": 0.5, "checkpointed": 2.0}
    assert summary["speedup"]["fp32"] == 4.0
    assert summary["memory_over_plain"]["fp32"] == pytest.approx(0.5)
    size = {"method": "acdis", "crop": 80, "width": 16, "batch": 1, "steps": 3}
    text = step.report(size, results, summary)
    assert "best 4.00 ×" in text
    # 50 GFLOP in 0.5 s; at 200 GFLOP/s they take 0.25 s, an eighth of the plain way's 2 s.
    assert (
        "50 GFLOP at 100 GFLOP/s, 50 % of a product of matrices (200), at best 8.00 × the plain way" in text
    )
    assert "checkpointing leaves 50 % of the peak" in text


@pytest.mark.slow
def test_evaluation_compares_with_separate_passes(benchmark: Run, tmp_path: Path) -> None:
    phantom.write(tmp_path / "cases", cases=1, seed=0, shape=(128, 128, 128), spacing=1.5)
    file = tmp_path / "evaluation.json"
    words = ("--extent", "20", "20", "30", "--window=20", "--width=4", f"--json={file}")
    text = benchmark("evaluation", str(tmp_path / "cases"), *words)
    found = json.loads(file.read_text())
    sides, summary = found["sides"], found["summary"]
    assert sides["plain"]["windows"] == sides["fp32"]["windows"] == 2
    assert summary["fp32"]["speedup"] == pytest.approx(sides["plain"]["seconds"] / sides["fp32"]["seconds"])
    assert summary["fp32"]["difference"] <= 1e-5
    assert summary["fp32"]["other_labels"] == 0
    # Fifteen encodings against one, to begin with.
    assert summary["fp32"]["arithmetic"] > 2
    assert summary["windows_of_the_case"] == 12**3  # 128 voxels, windows of 20 at stride 10
    assert "fp32: " in text


def test_sharing_measures_both_ways_of_a_method(load, capsys) -> None:
    """U-HVED's one pass is four encodings and a decoding of what `BASELINES` counts at its width."""
    sharing = load("sharing")
    options = sharing._parser().parse_args(["--window=16", "--repeats=1"])
    found = {name: sharing.measure(name, options) for name in ("uhved", "m3ae")}
    assert found["uhved"]["ceiling"] == pytest.approx(
        15 * 29.687808 / (29.687808 + 14 * 6.2095), rel=1e-4
    )  # any window: all in proportion to its voxels
    assert found["m3ae"]["ceiling"] == pytest.approx(1)
    assert found["uhved"]["sides"]["fp32"]["difference"] < 1e-5
    for result in found.values():
        for side in result["sides"].values():
            assert side["ratio"] == side["apart_cpu_seconds"] / side["together_cpu_seconds"] > 0
    lines = sharing.table(found).splitlines()
    assert [len(line.split("|")) for line in lines] == [9] * 4


def test_evaluation_counts_labels_that_differ_outside_ties(load) -> None:
    evaluation = load("evaluation")
    plain = np.array([[[0.5, 0.5, 0.7], [0.5, 0.4, 0.2], [0.0, 0.1, 0.1], [0.0, 0.0, 0.0]]])
    other = np.array([[[0.4, 0.4, 0.7], [0.6, 0.5, 0.2], [0.0, 0.1, 0.1], [0.0, 0.0, 0.0]]])
    assert evaluation.other_labels(plain, other) == 1  # the first voxel is a tie


@pytest.mark.slow
def test_crops_compares_with_monai(benchmark: Run, tmp_path: Path) -> None:
    phantom.write(tmp_path / "cases", cases=1, seed=0, shape=(48, 48, 48), spacing=4.0)
    file = tmp_path / "crops.json"
    text = benchmark("crops", str(tmp_path / "cases"), "--seconds=0.1", f"--json={file}")
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
@pytest.mark.timeout(1800)
def test_overhead_runs_both_ways(benchmark: Run, tmp_path: Path) -> None:
    file = tmp_path / "overhead.json"
    words = ("--epochs=2", "--iterations=1", "--width=4", "--tracked=3", f"--json={file}")
    text = benchmark("overhead", *words)
    found = json.loads(file.read_text())
    (one,) = found["runs"]
    assert one["difference_seconds"] == pytest.approx(one["ray_seconds"] - one["alone_seconds"])
    assert min(one["epoch_alone_seconds"], one["epoch_ray_seconds"]) > 0
    assert statistics.median([one["once_seconds"]]) == found["median"]["once_seconds"]
    assert "tracking under 50 ms" in text
    assert f"ray {version('ray')}" in text


def test_feeding_measures_a_set_of_one_case_under_many_names(benchmark: Run, tmp_path: Path) -> None:
    phantom.write(tmp_path / "cases", cases=1, seed=0, shape=(128, 128, 128), spacing=1.5)
    file = tmp_path / "feeding.json"
    words = ("--cases=7", "--crop=24", "--step-ms=40", "--steps=5", f"--scratch={tmp_path}", f"--json={file}")
    text = benchmark("feeding", str(tmp_path / "cases"), *words)
    found = json.loads(file.read_text())
    assert found["cases"] == 7
    assert found["step_seconds"] >= 0.04
    waited = found["step_seconds"] - 0.04
    assert found["waiting"] == pytest.approx(waited / found["step_seconds"], abs=0.1)
    assert found["rate"] == pytest.approx(found["crop_bytes_per_second"] / found["file_bytes_per_second"])
    assert "7 cases opened" in text


@pytest.mark.slow
def test_ddp_measures_two_workers(benchmark: Run, tmp_path: Path) -> None:
    file = tmp_path / "ddp.json"
    text = benchmark("ddp", "--crop=16", "--width=4", "--steps=3", f"--json={file}")
    found = json.loads(file.read_text())
    median = {side: sorted(seconds)[1] for side, seconds in found["seconds"].items()}
    assert found["efficiency"] == pytest.approx(median["alone"] / median["together"])
    shares = found["machine_share"], found["exchange_share"]
    assert sum(shares) == pytest.approx(1 - found["efficiency"])
    assert "efficiency of two workers" in text


def test_growth_is_the_exponent_of_a_power_law(load) -> None:
    growth = load("growth")
    rows = [(2, 8.0, 1.0), (4, 64.0, 8.0), (8, 512.0, 64.0)]
    assert growth.exponent(rows) == pytest.approx(1.0)
    assert growth.exponent([(1, 10.0, 3.0), (2, 1000.0, 30.0)]) == pytest.approx(0.5)
    assert "8.00     8.00" in growth.table("crop", rows)


@pytest.mark.slow
def test_growth_measures_each_table(benchmark: Run, tmp_path: Path) -> None:
    file = tmp_path / "growth.json"
    words = (
        "--crops",
        "16",
        "20",
        "--widths",
        "4",
        "6",
        "--cases",
        "3",
        "6",
        "--seeds",
        "1",
        "2",
        "--steps=1",
    )
    text = benchmark("growth", *words, f"--json={file}")
    rows = json.loads(file.read_text())["rows"]
    assert [row[0] for row in rows["crop"]] == [16, 20]
    assert [row[:2] for row in rows["width"]] == [[4, 16], [6, 36]]
    assert [row[0] for row in rows["cases"]] == [3, 6]
    assert [row[0] for row in rows["cells"]] == [289, 578]
    assert all(row[2] > 0 for each in rows.values() for row in each)
    assert text.count("to the power of") == 4


@pytest.mark.bench
@pytest.mark.slow
def test_the_script_for_accelerators_runs_on_a_cpu(load, tmp_path: Path, capsys) -> None:
    file = tmp_path / "gpu.json"
    sizes = [
        "--crop=16",
        "--width=4",
        "--batch=2",
        "--steps=2",
        "--measured=2",
        "--matrix=64",
        "--windows=36",
    ]
    gpu = load("gpu")
    gpu.main(["--device=cpu", "--parts", "step", "evaluation", *sizes, f"--json={file}"])
    found = json.loads(file.read_text())["acdis"]
    step, evaluation = found["step"], found["evaluation"]
    assert step["hours"] == pytest.approx(statistics.median(step["seconds"]) * 500 * 110 / 3600)
    assert step["tflops"] == pytest.approx(step["tflop"] / step["median_seconds"])
    assert evaluation["case_seconds"] == pytest.approx(36 * evaluation["window_seconds"])
    assert min(step["tflop"], evaluation["tflop_per_window"]) > 0
    assert "h for the paper" in capsys.readouterr().out


def test_what_fails_on_an_accelerator_is_said_and_the_rest_goes_on(load) -> None:
    gpu = load("gpu")

    def breaks() -> dict:
        raise RuntimeError("no kernel image\nmore")

    assert gpu._tried(breaks) == {"failed": "RuntimeError: no kernel image"}
    found = {
        "device": "X",
        "ceiling_tflops": 1.0,
        "size": {"crop": 80, "batch": 2, "width": 16},
        "acdis": {"step": gpu._tried(breaks)},
    }
    assert "failed: RuntimeError: no kernel image" in gpu.report(["acdis"], found)


def test_without_an_accelerator_nothing_is_measured(load, capsys) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is an accelerator")
    load("gpu").main([])
    assert "nothing measured" in capsys.readouterr().out


def test_predict_times_the_whole_and_the_network(benchmark: Run, tmp_path: Path) -> None:
    file = tmp_path / "predict.json"
    phantom.write(tmp_path / "cases", 1, seed=1, shape=(32, 32, 32), spacing=5.0)
    (case,) = (tmp_path / "cases").glob("Phantom_*")
    size = ("--width=4", "--window=32", "--stride=32")
    text = benchmark("predict", str(case), "--given=FLAIR,T2", *size, f"--json={file}")
    found = json.loads(file.read_text())
    assert found["windows"] == 1
    assert 0 < found["network_seconds"] < found["seconds"]
    assert f"{found['seconds'] / found['network_seconds']:.2f} times the network's own" in text
    assert found["peak_bytes"] > 10**8


def test_consistency_compares_with_the_plain_way_and_the_sigmoid(benchmark: Run, tmp_path: Path) -> None:
    file = tmp_path / "consistency.json"
    text = benchmark("consistency", "--crop=16", "--width=4", "--batch=1", "--repeats=1", f"--json={file}")
    found = json.loads(file.read_text())
    seconds = found["seconds"]
    assert set(seconds) == {"plain", "ours", "sigmoid"}
    assert found["speedup"] == pytest.approx(seconds["plain"] / seconds["ours"])
    assert found["sigmoids"] == pytest.approx(seconds["ours"] / seconds["sigmoid"])
    assert "times the sigmoid alone" in text


@pytest.mark.slow
def test_curve_trains_the_same_on_both_sides(benchmark: Run, tmp_path: Path) -> None:
    """In fp32 a few steps of both sides differ by rounding alone; seeds differ by more."""
    root, file = tmp_path / "cases", tmp_path / "curve.json"
    phantom.write(root, cases=2, seed=0, shape=(32, 32, 32), spacing=5.0)
    words = ["--crop=16", "--width=4", "--steps=8", "--seeds", "0", "1", f"--json={file}"]
    printed = benchmark("curve", str(root), *words)
    found = json.loads(file.read_text())
    fast = "bf16" if cpu_has_bf16() else "fp32"
    plain, ours = (np.array(found["runs"][f"{side} 0"]["losses"]) for side in ("plain", fast))
    assert len(plain) == len(ours) == 8
    np.testing.assert_allclose(ours, plain, rtol=0.05 if fast == "bf16" else 1e-3)
    assert found["difference"] == pytest.approx(abs(plain[-2:].mean() - ours[-2:].mean()))
    assert found["difference"] < found["spread"]
    assert "below the spread" in printed


def test_agreement_compares_means_and_lists_single_cases(load) -> None:
    """Two cases by hand: the mean moves by half of what the one case moves."""
    from acdis.evaluation.records import Record

    def record(case: str, dice: float, voxels: int) -> Record:
        return Record(case, "T1", "ET", dice, dice, None, voxels, 0, 1.0)

    exact = [record("a", 1.0, 0), record("b", 0.5, 9)]
    fast = [record("a", 0.0, 1), record("b", 0.501, 9)]
    agreement = load("agreement")
    found = agreement.compare(exact, fast)
    assert found["differences"] == {"ET/T1": pytest.approx(abs(0.75 - 0.2505))}
    assert found["beyond"] == ["ET/T1"]
    assert [(entry["case"], entry["predicted_voxels"]) for entry in found["single"]] == [("a", [0, 1])]
    printed = agreement.report("cell", found, {"fp32": 2.0, "bf16": 1.0})
    assert "a T1 ET: Dice 1.0000 and 0.0000, 0 and 1 voxels predicted of 0" in printed


def test_agreement_without_a_cell_measures_nothing(benchmark: Run) -> None:
    assert "no cell named" in benchmark("agreement")


@pytest.mark.parametrize(
    ("rows", "cases", "law", "shared"),
    [(6, 100, "normal", False), (3, 16, "t3", True), (2, 16, "normal", True)],
)
def test_decisions_are_as_right_as_promised(load, rows: int, cases: int, law: str, shared: bool) -> None:
    """A short version: 150 tables of three designs, within three errors of the simulation."""
    decisions = load("decisions")
    result = decisions.simulate(decisions.Design(rows, 3, cases, law, shared), 150, seed=1)
    assert decisions.failures(result) == []
    assert result.tables == 150


def test_decisions_would_notice(load) -> None:
    """What a test over cases alone did to such tables, and what one without pairing did."""
    decisions = load("decisions")
    design = decisions.Design(6, 3, 100, "normal", True)
    liberal = decisions.Result(design, 0.19, 0.88, 0.8, 0.0, 400)
    assert decisions.failures(liberal) == ["family error", "coverage"]
    assert decisions.failures(decisions.Result(design, 0.0, 0.99, 0.31, 0.0, 400)) == ["power"]


@pytest.mark.parametrize("odd", [{"unsteady": 15}, {"uneven": 3}])
def test_a_row_that_spreads_more_takes_no_power_from_the_others(load, odd: dict[str, float]) -> None:
    """Left in the pool it took it to 11 % (seeds) and 50 % (cases)."""
    decisions = load("decisions")
    result = decisions.simulate(decisions.Design(6, 3, 100, "normal", True, **odd), 100, seed=1)
    assert result.apart > 0.9
    assert result.power > 0.63


def test_simulated_tables_have_the_spreads_that_they_say(load) -> None:
    decisions = load("decisions")
    for law, shared in (("normal", True), ("normal", False), ("t3", True)):
        scores = np.concatenate(
            [
                decisions.draw(decisions.Design(4, 40, 50, law, shared), np.random.default_rng(seed))
                for seed in range(20)
            ],
            axis=0,
        ).reshape(20, 4, 40, 50, 3)
        by_seed = scores.mean(axis=3)  # [tables, rows, seeds, regions]
        between = (by_seed[:, 1] - by_seed[:, 0]).var(axis=1, ddof=1).mean(axis=0)
        own = decisions.ROW_SEED**2 + (0 if shared else decisions.SEED**2) + decisions.RESIDUAL**2 / 50
        assert between == pytest.approx(2 * own, rel=0.25)
