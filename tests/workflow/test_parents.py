"""A parent that is missing, failed, not done or of another method is named before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from acdis import cells, config, methods
from acdis.cells import Cell
from acdis.config import Experiment
from acdis.data import phantom
from acdis.errors import UserError
from acdis.terminal.progress import Display
from acdis.training import run
from acdis.workflow.jobs import check_parents, job_of
from acdis.workflow.opening import open_specs
from acdis.workflow.train_missing import _has_parents

Pupil = Callable[[str], Experiment]


@pytest.fixture
def pupil() -> Pupil:
    """GSS that starts from what is named."""

    def of(parent: str) -> Experiment:
        tree = config.overlaid({}, {"method.name": "gss", "method.parents": {"start": parent}})
        return methods.resolve(config.parse(tree, "test"))

    return of


def make(base: Path, name: str, status: str = "done", trained: bool = True) -> Cell:
    cell = cells.create(base, name, config.parse({}, "test"), {})
    cell.update(status=status)
    if trained:
        cell.weights.write_bytes(b"weights")
    return cell


def test_one_that_is_not_there_names_itself(pupil: Pupil, tmp_path: Path) -> None:
    make(tmp_path, "rfnet-aaaaaaaaaaaa")
    check_parents([pupil("rfnet-aaaaaaaaaaaa")], (), tmp_path)
    with pytest.raises(UserError, match=r"method\.parents\.start: no row .*rfnet-bbbbbbbbbbbb"):
        check_parents([pupil("rfnet-bbbbbbbbbbbb")], (), tmp_path)
    check_parents([pupil("rfnet-bbbbbbbbbbbb")], {"rfnet-bbbbbbbbbbbb"}, tmp_path)  # it is trained now
    with pytest.raises(UserError, match="give the cell's whole name, rfnet-aaaaaaaaaaaa"):
        check_parents([pupil("rfnet-aaaa")], (), tmp_path)


@pytest.mark.parametrize("status", ["failed", "training"])
def test_one_without_weights_says_how_it_stands(pupil: Pupil, tmp_path: Path, status: str) -> None:
    make(tmp_path, "rfnet-aaaaaaaaaaaa", status, trained=False)
    words = rf"start: .*rfnet-aaaaaaaaaaaa.* \(state: {status}\); train it first"
    with pytest.raises(UserError, match=words):
        check_parents([pupil("rfnet-aaaaaaaaaaaa")], (), tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_one_of_another_method_names_itself_and_what_would_do(
    pupil: Pupil, tmp_path: Path, there: bool
) -> None:
    words = r"start: uhved-aaaaaaaaaaaa is a cell of uhved; gss takes rfnet or gss"
    if there:
        make(tmp_path, "uhved-aaaaaaaaaaaa")
    with pytest.raises(UserError, match=words):
        check_parents([pupil("uhved-aaaaaaaaaaaa")], (), tmp_path)


SPEC = {
    "base": "small.yaml",
    "seeds": [0],
    "baseline": "first",
    "rows": {
        "first": {"set": {"method.name": "rfnet"}},
        "then": {"set": {"method.name": "gss", "method.parents.start": "first"}},
    },
}


def test_behind_a_parent_that_failed_nothing_is_begun(tmp_path: Path) -> None:
    """The cell has failed too, and says which parent it lacks."""
    phantom.write(tmp_path / "cases", 3, seed=3, shape=(24, 24, 24), spacing=7.0)
    data = {"root": "cases", "split": {"counts": [2, 0, 1]}, "min_size": 16, "crop": [16, 16, 16]}
    window = {"window": [16, 16, 16], "stride": [16, 16, 16]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"data": data, "evaluation": window}))
    (tmp_path / "chain.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    base = tmp_path / "home"
    with Display() as display:
        members = open_specs([tmp_path / "chain.yaml"], None, [], None, None, base, display)
        first, then = (job_of(member.experiment, member.inputs, base, {}) for member in members)
        first.cell.update(status="failed", reason="the loss became NaN")
        assert not _has_parents(then, base, display)
        state = then.cell.state()
        assert state["status"] == "failed"
        assert f"its parent {first.cell.name} (method.parents.start) has failed" in state["reason"]
        first.cell.weights.write_bytes(b"weights")
        assert _has_parents(then, base, display)


def test_a_worker_that_finds_no_weights_names_the_parent(tmp_path: Path) -> None:
    """Its folder may have been taken away since the check."""
    words = r"method\.parents\.start: rfnet-aaaaaaaaaaaa has no weights: it failed"
    with pytest.raises(UserError, match=words):
        run._adopt(methods.build("gss"), "start", tmp_path / "rfnet-aaaaaaaaaaaa")
