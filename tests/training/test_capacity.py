"""Parameters and multiply-adds: against formulas, and of every registered method."""

import copy
import json
import types
from pathlib import Path

import pytest
import torch
import yaml

from acdis import config, methods
from acdis.cells import Cell
from acdis.cluster.worker import _capacity
from acdis.errors import UserError
from acdis.training.capacity import capacity, multiply_adds
from acdis.vocabulary import SUBSETS, subset_name

TINY = Path(__file__).resolve().parents[1] / "methods" / "tiny"


def first_variant(name):
    return next(iter(yaml.safe_load((TINY / f"{name}.yaml").read_text(encoding="utf-8")).values()))


@pytest.mark.parametrize("name", methods.names())
def test_of_every_method(name):
    """Nothing is computed, changed or drawn; the method comes back in its mode."""
    torch.manual_seed(0)
    method = methods.build(name, **first_variant(name))
    before = copy.deepcopy(method.state_dict())
    state = torch.get_rng_state()
    step, least = methods.validate(name, first_variant(name)).crop_rule()
    found = capacity(method, (max(least, -(-16 // step) * step),) * 3)
    assert found["multiply_adds"] > 1
    assert found["parameters"] == sum(p.numel() for p in method.parameters())
    kept = {name.split(".", 1)[0] for name in method.inference_state()}
    inside = [p.numel() for key, p in method.named_parameters() if key.split(".", 1)[0] in kept]
    assert found["parameters_inference"] <= sum(inside)
    assert method.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize("width", [4, 16])
def test_of_the_plain_unet_by_formula(width):
    """Per voxel of the window: kernel × inputs × outputs of each convolution, an eighth a level."""
    widths = [width, 2 * width, 4 * width]
    expected, before = 0.0, 4
    for level, own in enumerate(widths):
        expected += (27 * before * own + 2 * 27 * own * own) / 8**level
        before = own
    for level in (0, 1):
        own = widths[level]
        expected += (27 * 2 * own * own + 27 * 2 * own * own + own * own) / 8**level
    expected += 4 * width
    method = methods.build("unet", base_width=width, levels=3)
    assert multiply_adds(method, (24, 16, 16)) == (expected * 24 * 16 * 16, 15 * expected * 24 * 16 * 16)
    found = capacity(methods.build("unet_dedicated", base_width=width, levels=3, subset=None), (16,) * 3)
    assert found["multiply_adds"] == expected  # one of the fifteen is asked
    assert found["multiply_adds_subsets"] == 15 * expected
    assert found["window_voxels"] == 16**3
    assert found["parameters"] == 15 * sum(p.numel() for p in method.parameters())


#: GFLOP of a window of 80³ at the published widths, as they were counted in the published networks
#: (`design/baselines_reference.json`, `newcomers_reference.json` beside the project): one pass, what ours has
#: more, and of the eight the table's sum for 15 subsets from one encoding (`design/BASELINES.md`, 1.3), which
#: for UNet-MFI and ShaSpec leaves out the answers to an image of zeros.
FIRST_OF_MFI, ENCODER_OF_SHASPEC = 4 * (0.8847 + 56.6231 + 7.0779), 55.879
PUBLISHED = {
    "uhemis": (23.494656, 0, 138),
    "uhved": (29.687808, 0, 117),
    "unet_mfi": (896.58703872, FIRST_OF_MFI, 9830 + FIRST_OF_MFI),
    "mmformer": (60.583552, 0, 390),
    "mmanet": (186.12224, 0, 1107),
    "shaspec": (496.376291328, ENCODER_OF_SHASPEC, 1187 + ENCODER_OF_SHASPEC),
    "m3ae": (72.269824, 0, 1084),
    "gss": (203.57130752, 0.67, 1370),  # means over regions are products of matrices here
    "demoseg": (318.448919552, 0, None),
    "imfuse": (66.071454336, 0.8, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_of_the_published_networks(name):
    one, more, table = PUBLISHED[name]
    whole, subsets = (2 * counted / 1e9 for counted in multiply_adds(methods.build(name), (80, 80, 80)))
    assert whole == pytest.approx(one + more, rel=4e-4)
    if table:  # what MMANet and mmFormer add up modality by modality is encoded once
        assert 0.97 * table <= subsets <= 1.01 * table


def test_attention_is_counted():
    """At the finest of two levels: 4³ tokens of 4 channels, and the fusion reads its half too."""
    given = {"base_width": 4, "levels": 2, "afeb_tokens": 4, "mfsb": "conv", "synthesis": []}
    with_it, _ = multiply_adds(methods.build("acdis", **given), (16, 16, 16))
    without, _ = multiply_adds(methods.build("acdis", afeb_attention="bottleneck", **given), (16, 16, 16))
    tokens, C = 4**3, 4
    attention = 2 * tokens**2 * C + tokens * (3 * C * C + C * C)
    assert with_it - without == 4 * (attention + 16**3 * C * C)


def test_stand_ins_arithmetic():
    """Beside Table 2: AFEB's stand-in with as many parameters has 2.4 times its arithmetic, without the
    positions' about as much. From the sizes: C channels, N³ voxels, T tokens."""
    block = stand_in = without = 0
    for C, N in ((16, 80), (32, 40), (64, 20), (128, 10)):
        V, T = N**3, 1000
        block += V * (C * C + 27 * C * C + 2 * C * C) + T * 4 * C * C + 2 * T * T * C
        parameters = 30 * C * C + 4 * C * C + 1000 * C
        stand_in += V * 2 * 27 * C * round(parameters / (54 * C))
        without += V * 2 * 27 * C * round(34 * C * C / (54 * C))
    assert stand_in / block == pytest.approx(2.45, abs=0.01)
    assert without / block == pytest.approx(1.05, abs=0.01)
    rest = {"mfsb": "conv", "synthesis": [], "consistency": []}
    counted = [
        multiply_adds(methods.build("acdis", **rest, **own), (80, 80, 80))[0]
        for own in ({}, {"afeb": "conv"}, {"afeb": "conv", "afeb_budget": "without_positions"})
    ]
    assert counted[1] - counted[0] == 4 * (stand_in - block)
    assert counted[2] - counted[0] == 4 * (without - block)


def test_what_cannot_be_counted_is_left_out(caplog):
    method = methods.build("unet", base_width=4, levels=2)
    method.encode = lambda images, origin=None: images.sum().item()
    found = capacity(method, (16, 16, 16))
    assert set(found) == {"parameters", "parameters_inference"}
    assert "multiply-adds of UNet are not counted" in caplog.text


def test_a_cell_says_it(tmp_path):
    """What the worker writes beside the history."""
    method = methods.build("unet", base_width=4, levels=2)
    settings = {
        "data.min_size": 32,
        "data.crop": [16] * 3,
        "training.iterations": None,
        "evaluation.window": [16] * 3,
        "evaluation.stride": [16] * 3,
    }
    experiment = config.parse(config.overlaid({}, settings), "test")
    history = [{"seconds": seconds} for seconds in (9.0, 2.0, 3.0)]
    trained = types.SimpleNamespace(method=method, experiment=experiment, history=history)
    cell = Cell(tmp_path)
    assert cell.capacity() == {}
    assert "peak_bytes" not in _capacity(trained, 5, cell)
    cell.update(peak_bytes=2**30)
    told = _capacity(trained, 5, cell)
    assert told["step_seconds"] == 1.0  # of five cases in batches of two an epoch makes three steps
    (tmp_path / "history.json").write_text(json.dumps({"epochs": [], "capacity": told}))
    assert cell.capacity() == told
    assert told["peak_bytes"] == 2**30
    names = [subset_name(subset) for subset in SUBSETS]
    parents = {name: f"part-{number}" for number, name in enumerate(names)}
    choice = config.MethodChoice(name="unet_dedicated", parents=parents)
    trained.experiment, trained.history = experiment.model_copy(update={"method": choice}), []
    whole = Cell(tmp_path / "whole")
    assert not {"peak_bytes", "step_seconds"} & _capacity(trained, 5, whole).keys()
    for number, peak in ((3, 50), (7, 90), (9, 70)):  # the largest of its parts
        part = Cell(tmp_path / f"part-{number}")
        part.update(peak_bytes=peak)
        written = {"epochs": [], "capacity": {"step_seconds": peak / 10}}
        (part.folder / "history.json").write_text(json.dumps(written))
    assert _capacity(trained, 5, whole)["peak_bytes"] == 90
    assert _capacity(trained, 5, whole)["step_seconds"] == 9.0
    (tmp_path / "history.json").write_text('{"epochs": [], "capacity": {"parameters": -1}}')
    with pytest.raises(UserError, match=r"history\.json: is damaged \(capacity\.parameters"):
        cell.capacity()
