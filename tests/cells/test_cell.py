"""Names of cells: what changes the weights changes the name, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from acdis import cells, config, files, methods
from acdis.cells import Cell
from acdis.config import Augmentation, Data, Experiment, Training
from acdis.errors import UserError
from acdis.methods.acdis.options import Options

FINGERPRINT = "ab" * 32
FULL: dict[str, Any] = {
    "training": {"precision": "fp32"},
    "method": {"options": {"synthesis": ["mse", "adver"], "synthesis_start": 5}},
}


def _name(tree: dict[str, Any], fingerprint: str = FINGERPRINT, version: int = 1) -> str:
    return cells.cell_name(methods.resolve(config.parse(tree, "test")), fingerprint, version)


def _with(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`tree` with one key changed."""
    first, _, rest = path.partition(".")
    changed = _with(tree.get(first, {}), rest, value) if rest else value
    return tree | {first: changed}


NAME = _name(FULL)


def test_a_name_is_the_method_and_twelve_hex() -> None:
    method, _, rest = NAME.partition("-")
    assert method == "acdis"
    assert len(rest) == 12
    assert int(rest, 16) >= 0


def test_the_name_of_the_defaults_stays() -> None:
    """Changing it orphans every cell that was trained: only with a change of what they mean."""
    tree = {"a": [1, 2.5, None, True], "b": {"d": "é", "c": 1}}
    assert cells.digest(tree) == cells.digest({"b": {"c": 1, "d": "é"}, "a": [1, 2.5, None, True]})
    assert cells.digest({}) == "44136fa355b3"  # SHA-256 of "{}", by sha256sum


@pytest.mark.parametrize(
    "same",
    [
        {"training": {"precision": "fp32", "learning_rate": 1e-4, "epochs": 500}, "method": FULL["method"]},
        {
            "method": {"options": {"synthesis_start": 5, "synthesis": ["mse", "adver"]}, "name": "acdis"},
            "training": FULL["training"],
        },
        _with(FULL, "method.options.synthesis", ["adver", "mse"]),
        _with(FULL, "method.options.adversarial_weight", 0.001),
        _with(FULL, "method.options.discriminator_widths", [256, 512]),
        _with(FULL, "method.options.window", 5),
        _with(FULL, "method.options.window", 5.0),
        _with(FULL, "method.options.stride", 5),
        _with(FULL, "method.options.consistency_levels", [4, 3, 2, 1]),
        _with(FULL, "training.learning_rate", "1e-4"),
        _with(FULL, "training.weight_decay", 0.0001),
        _with(FULL, "data.lesion_crops", 0),
        _with(FULL, "data.crop", [80.0, 80, 80]),
        _with(FULL, "data.root", "/elsewhere"),
        _with(FULL, "data.phantoms", {"cases": 3}),
        _with(FULL, "data.split", {"train": "a.txt"}),
        _with(FULL, "scaling", {"workers": 2, "accumulation": 1, "gpu": True, "max_failures": 0}),
        _with(FULL, "scaling.activation_checkpointing", True),
        _with(FULL, "planning.price_per_gpu_hour", 2.5),
        _with(FULL, "tracking", {"uri": "http://somewhere:5000", "experiment": "other"}),
        _with(
            FULL,
            "evaluation",
            {"window": [32, 32, 32], "stride": [32, 32, 32], "hd95": False, "et_minimum": 0},
        ),
        _with(FULL, "training.validate_every", 3),
    ],
)
def test_equal_meaning_has_an_equal_name(same: dict[str, Any]) -> None:
    assert _name(same) == NAME


OTHER: dict[str, Any] = {
    "data.spacing": 2.0,
    "data.min_size": 96,
    "data.last_slice": False,
    "data.normalisation": "clip",
    "data.background": "normalised",
    "data.crop": [64, 80, 80],
    "data.lesion_crops": 0.5,
    "data.augmentation.rotation": 5,
    "data.augmentation.rotation_fill": "minus_one",
    "data.augmentation.rotation_images": "nearest",
    "data.augmentation.intensity_scale": 0.2,
    "data.augmentation.intensity_shift": 0.2,
    "data.augmentation.intensity_per_slice": True,
    "data.augmentation.flip": 0.25,
    "training.epochs": 499,
    "training.batch_size": 4,
    "training.iterations": 10,
    "training.learning_rate": 2e-4,
    "training.weight_decay": 0.0,
    "training.amsgrad": False,
    "training.poly_power": 1.0,
    "training.precision": "bf16",
    "training.selection": "best",
    "method.options.base_width": 8,
    "method.options.levels": 3,
    "method.options.padding": "reflect",
    "method.options.norm": "group",
    "method.options.afeb": "conv",
    "method.options.afeb_attention": "bottleneck",
    "method.options.afeb_tokens": 6,
    "method.options.mfsb": "conv",
    "method.options.mfsb_kernel": 3,
    "method.options.aux_fusion": "adapter",
    "method.options.consistency": ["var"],
    "method.options.consistency_levels": [1],
    "method.options.synthesis": ["adver"],
    "method.options.synthesis_over": "all",
    "method.options.synthesis_start": 6,
    "method.options.hold_fused_map": True,
    "method.options.window": 4,
    "method.options.stride": 3,
    "method.options.discriminator_widths": [64, 512],
    "method.options.adversarial_weight": 0.01,
    "method.options.discriminator_learning_rate": 1e-3,
    "seed": 1,
}


@pytest.mark.parametrize(("key", "value"), OTHER.items())
def test_what_changes_the_weights_changes_the_name(key: str, value: Any) -> None:
    assert _name(_with(FULL, key, value)) != NAME


def _fields(model: type[BaseModel], prefix: str) -> set[str]:
    return {f"{prefix}.{name}" for name in model.model_fields}


def test_no_field_is_forgotten() -> None:
    """A new field must be put into the test above, or be known not to change the weights."""
    without_effect = {
        "data.root",
        "data.phantoms",
        "data.split",
        *("data.files", "data.labels", "data.scheme", "data.patients"),  # count through the data fingerprint
        *("data.missing", "data.incomplete"),  # too: of what each case has
        "data.augmentation",
        "data.percentiles",  # has a test of its own: none without another normalisation
        "method.options.afeb_budget",  # of the stand-ins alone, see below
        "training.validate_every",
    }
    every = (
        _fields(Data, "data")
        | _fields(Augmentation, "data.augmentation")
        | _fields(Training, "training")
        | _fields(Options, "method.options")
    )
    assert every - without_effect == OTHER.keys() - {"seed"}
    assert set(Experiment.model_fields) == {
        "seed",
        "data",
        "method",
        "training",
        "evaluation",
        "scaling",
        "tracking",
        "planning",
        "recipe",  # 'common' once it is resolved
        "scored",
    }
    assert get_args(Training.model_fields["selection"].annotation) == ("last", "best")


def test_data_and_version_of_the_method_are_in_the_name() -> None:
    assert _name(FULL, fingerprint="cd" * 32) != NAME
    assert _name(FULL, version=2) != NAME


def test_how_is_validated_counts_where_it_chooses_the_weights() -> None:
    best = _with(FULL, "training.selection", "best")
    for key, value in (
        ("training.validate_every", 3),
        ("evaluation.stride", [80, 80, 80]),
        ("evaluation.window", [64, 64, 64]),
    ):
        assert _name(_with(best, key, value)) != _name(best)
    assert _name(_with(best, "evaluation.hd95", False)) == _name(best)


def test_a_cell_is_found_by_the_beginning_of_its_name(tmp_path: Path) -> None:
    experiment = methods.resolve(config.parse(FULL, "test"))
    made = [cells.create(tmp_path, name, experiment, {"tags": {}}) for name in ("acdis-aaa1", "acdis-aab2")]
    assert cells.find(tmp_path, "acdis-aaa").folder == made[0].folder
    assert cells.find(tmp_path, str(made[1].folder)).name == "acdis-aab2"
    with pytest.raises(UserError, match="names several cells: acdis-aaa1, acdis-aab2"):
        cells.find(tmp_path, "acdis")
    with pytest.raises(UserError, match="names no cell"):
        cells.find(tmp_path, "rfnet")


def test_a_cell_keeps_its_first_configuration(tmp_path: Path) -> None:
    experiment = methods.resolve(config.parse(FULL, "test"))
    cell = cells.create(tmp_path, "acdis-1", experiment, {"tags": {"a": "b"}})
    cells.create(tmp_path, "acdis-1", experiment.model_copy(update={"seed": 5}), {})
    assert cell.experiment() == experiment
    assert cells.read_json(cell.folder / "lineage.json") == {"tags": {"a": "b"}}


def test_the_state_is_changed_key_by_key_and_begun_anew(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    assert cell.state() == {}
    cell.update(status="training", epoch=1, evaluation="e")
    cell.update(epoch=2)
    state = cell.state()
    del state["updated"]
    assert state == {"status": "training", "epoch": 2, "evaluation": "e", "beat": 2}
    cell.begin(status="starting")
    state = cell.state()
    del state["updated"]
    assert state == {"status": "starting", "evaluation": "e", "beat": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    cell.update(status="training", epoch=1, epochs=4)
    cell.add_role(spec="s", table=None, row="r", seed=0)
    before = cell.state()
    for wrong in ({"epoch": 0}, {"step": 3}, {"loss": "low"}, {"validation": {"dice/mean": "high"}}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            cell.update(**wrong)
    with pytest.raises(ValueError, match="seed"):
        cell.add_role(spec="s", table=None, row="r", seed="first")
    assert cell.state() == before
    assert len(cell.roles()) == 1


def test_two_writers_of_one_pid_lose_nothing(tmp_path: Path) -> None:
    """Containers on one volume number their processes alike; each here counts in a key of its own."""
    cell = Cell(tmp_path)
    children = []
    for name in ("first", "second"):
        child = os.fork()
        if not child:
            os.getpid = lambda: 7  # type: ignore[assignment]
            try:
                for count in range(1, 51):
                    cell.update(**{name: count})
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert (cell.state()["first"], cell.state()["second"], cell.state()["beat"]) == (50, 50, 100)
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


def test_who_trains_a_cell_is_named(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    with cell.alone():
        assert cell.busy()
        with pytest.raises(UserError, match=rf": process {os.getpid()} on .* is training this cell; wait"):
            cell.alone().__enter__()
    assert not cell.busy()


def test_what_a_killed_run_left_half_written_is_swept_by_the_next(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    (tmp_path / ".0123456789abcdef.part").write_text("half")
    (tmp_path / "evaluations" / "e").mkdir(parents=True)
    (tmp_path / "evaluations" / "e" / ".fedcba9876543210.part").write_text("half")
    (tmp_path / ".state.json.4711").write_text("half, of an older version")
    with files.replacing(tmp_path / "roles.json") as stream:  # of somebody who lives
        with cell.alone():
            assert not list(tmp_path.glob(".state*"))
            assert len(list(tmp_path.rglob(".*.part"))) == 1
        stream.write(b"{}")
    assert cell.roles() == []


def test_a_cell_that_nobody_trains_again_is_swept_too_and_one_at_work_is_not(tmp_path: Path) -> None:
    experiment = methods.resolve(config.parse(FULL, "test"))
    cell = cells.create(tmp_path, "acdis-1", experiment, {"tags": {}})
    half = cell.folder / ".0123456789abcdef.part"
    half.write_text("of a killed `ablate`, which noted a row")
    with cell.alone():
        half.write_text("of whoever trains it")
        cells.create(tmp_path, "acdis-1", experiment, {"tags": {}})
        assert half.exists()
    cells.create(tmp_path, "acdis-1", experiment, {"tags": {}})
    assert not half.exists()


def test_a_cell_that_may_only_be_read_is_copied_into_ones_own_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = methods.resolve(config.parse(FULL, "test"))
    theirs = cells.create(tmp_path / "theirs", "acdis-1", experiment, {"tags": {"a": "b"}})
    theirs.weights.write_text("weights")
    theirs.update(status="done")
    mine = tmp_path / "mine"
    assert cells.borrowed(mine, theirs) == theirs
    monkeypatch.setattr(os, "access", lambda *_: False)
    own = cells.borrowed(mine, theirs)
    assert own.folder == mine / "cells" / "acdis-1"
    assert (own.experiment(), own.weights.read_text(), own.state()) == (experiment, "weights", {})
    own.weights.write_text("trained here")
    assert cells.borrowed(mine, theirs).weights.read_text() == "trained here"
    (tmp_path / "other").mkdir()
    (mine / "cells" / "acdis-2").symlink_to(tmp_path / "other")
    with pytest.raises(UserError, match="symbolic link"):
        cells.borrowed(mine, Cell(tmp_path / "theirs" / "acdis-2"))


def test_options_that_came_later_leave_names_alone() -> None:
    """Defaults written out, and percentiles as they are where none are given."""
    assert _name(_with(FULL, "data.min_size", [128, 128, 128])) == NAME
    assert _name(_with(FULL, "data.normalisation", "zscore")) == NAME
    assert _name(_with(FULL, "data.last_slice", True)) == NAME
    assert _name(_with(FULL, "data.augmentation.rotation_images", "linear")) == NAME
    clipped = _with(FULL, "data.normalisation", "clip")
    assert _name(_with(clipped, "data.percentiles", [0.2, 99.8])) == _name(clipped)
    assert _name(_with(clipped, "data.percentiles", [1, 99])) != _name(clipped)
    sizes = {_name(_with(FULL, "data.min_size", size)) for size in ([128, 144, 128], [144, 128, 128], 144)}
    assert len(sizes | {NAME}) == 4


def test_the_stand_ins_budget_leaves_names_alone_as_it_was() -> None:
    stand_in = _with(FULL, "method.options.afeb", "conv")
    assert _name(_with(stand_in, "method.options.afeb_budget", "all")) == _name(stand_in)
    assert _name(_with(stand_in, "method.options.afeb_budget", "without_positions")) != _name(stand_in)
    written = methods.resolve(config.parse(_with(stand_in, "method.options.afeb_budget", "all"), "test"))
    assert "afeb_budget" not in written.method.options


def test_the_discriminators_widths_follow_the_bottlenecks() -> None:
    """256 and 512 at the paper's 128 channels, and its names stay; elsewhere they stand in the name."""
    assert "discriminator_widths" not in methods.resolve(config.parse(FULL, "test")).method.options
    small = _with(_with(FULL, "method.options.base_width", 8), "method.options.synthesis", ["adver"])
    written = methods.resolve(config.parse(small, "test")).method.options
    assert written["discriminator_widths"] == [2 * 64, 4 * 64]
    assert _name(_with(small, "method.options.discriminator_widths", [128, 256])) == _name(small)
    assert _name(_with(small, "method.options.discriminator_widths", [256, 512])) != _name(small)


def test_post_processing_is_in_the_evaluations_name() -> None:
    """And in the cell's where validation chooses the weights; none leaves names as they were."""

    def scored(rules: list[dict[str, Any]]) -> str:
        tree = _with(FULL, "evaluation.post_processing", rules)
        return cells.evaluation_name(methods.resolve(config.parse(tree, "test")), "ab" * 32)

    names = {
        scored(rules)
        for rules in (
            [],
            [{"rule": "small_et"}],
            [{"rule": "small_et", "volume": 100}],
            [{"rule": "largest_component"}, {"rule": "small_et"}],
            [{"rule": "small_et"}, {"rule": "largest_component"}],
        )
    }
    assert len(names) == 5
    assert scored([{"rule": "small_et"}]) == scored([{"rule": "small_et", "volume": 500}])
    before = cells.evaluation_name(methods.resolve(config.parse(FULL, "test")), "ab" * 32)
    assert scored([]) == before
    rule = [{"rule": "largest_component"}]
    assert _name(_with(FULL, "evaluation.post_processing", rule)) == NAME
    best = _with(FULL, "training.selection", "best")
    assert _name(_with(best, "evaluation.post_processing", rule)) != _name(best)


def test_the_convention_of_hd95_is_in_the_evaluations_name_alone() -> None:
    def scored(convention: str) -> str:
        tree = _with(FULL, "evaluation.hd95_convention", convention)
        return cells.evaluation_name(methods.resolve(config.parse(tree, "test")), "ab" * 32)

    before = cells.evaluation_name(methods.resolve(config.parse(FULL, "test")), "ab" * 32)
    assert scored("max") == before != scored("pooled")
    best = _with(FULL, "training.selection", "best")
    for tree in (FULL, best):
        assert _name(_with(tree, "evaluation.hd95_convention", "pooled")) == _name(tree)


def test_further_metrics_are_in_the_evaluations_name_and_not_in_the_cells() -> None:
    """None leaves names as they were; the order in which they are written does not matter."""

    def scored(metrics: list[str]) -> str:
        tree = _with(FULL, "evaluation.metrics", metrics)
        return cells.evaluation_name(methods.resolve(config.parse(tree, "test")), "ab" * 32)

    before = cells.evaluation_name(methods.resolve(config.parse(FULL, "test")), "ab" * 32)
    assert scored([]) == before
    assert len({scored(each) for each in ([], ["nsd"], ["brats2023"], ["brats2023", "nsd"])}) == 4
    assert scored(["nsd", "brats2023"]) == scored(["brats2023", "nsd"])
    best = _with(FULL, "training.selection", "best")
    assert _name(_with(best, "evaluation.metrics", ["brats2023"])) == _name(best)
