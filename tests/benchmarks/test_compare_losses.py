"""Losses of two commits: what is called equal, and that a run finds itself equal and a change at its step."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def difference(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(checkout / "benchmarks")
    spec = importlib.util.spec_from_file_location(
        "compare_losses", checkout / "benchmarks" / "compare_losses.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.difference


ONE = {"steps": [3.0, 2.5], "epochs": [{"dice": 0.5}]}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (ONE, "equal"),
        (None, "only A has this row"),
        ({**ONE, "steps": [3.0, 2.5000000000000004]}, "step 2 differs"),  # the last bit
        ({**ONE, "epochs": [{"dice": 0.6}]}, "epoch 1, dice differs"),
        ({**ONE, "epochs": [{"wce": 0.5}]}, "epoch 1, dice differs"),
        ({**ONE, "steps": [3.0]}, "2 steps and 1"),
    ],
)
def test_what_differs_is_named(difference, other, words):
    assert difference(ONE, other).startswith(words)


@pytest.mark.slow
def test_a_run_is_equal_to_itself(benchmark, checkout: Path, tmp_path: Path):
    spec = tmp_path / "one.yaml"
    spec.write_text(
        f"base: {checkout}/experiments/phantom.yaml\nbaseline: one\nrows: {{one: {{label: one}}}}\n"
    )
    text = benchmark("compare_losses", ".", ".", "method.options.base_width=4", f"--spec={spec}")
    assert text.splitlines() == ["one/one: equal", ". and .: equal"]
