"""Cases whose files lack modalities: trained with, tested apart, from a folder to a table."""

import os
import shutil

import nibabel as nib
import numpy as np
import pytest

import acdis
from acdis.data import phantom
from acdis.data.cases import find
from acdis.evaluation import incomplete
from acdis.evaluation.records import read_parquet
from acdis.evaluation.scores import read_file
from acdis.report import patterns
from acdis.verbs.figures import FiguresRequest, figures
from acdis.vocabulary import SUBSETS, subset_name

SETTINGS = [
    "data.incomplete=true",
    "data.min_size=24",
    "data.crop=[16, 16, 16]",
    "method.options={base_width: 4, levels: 3, afeb_tokens: 4, synthesis_start: 0}",
    "training.epochs=1",
    "training.iterations=2",
    "training.precision=fp32",
    "evaluation.window=[24, 24, 24]",
    "evaluation.stride=[24, 24, 24]",
    "evaluation.hd95=false",
]
PARTS = {"train": (0, 1, 2), "validation": (3,), "test": (4, 5, 6)}
#: What is taken away, by the number of the case: of one that trains, of one that validates, of two that test.
LACKING = {0: ("T2",), 3: ("T1",), 5: ("T1ce",), 6: ("FLAIR", "T2")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The experiment, its cell, the names of the cases and the folder that they lie in."""
    place = tmp_path_factory.mktemp("incomplete")
    folders = phantom.write(place / "cases", 7, seed=1, shape=(24, 24, 24), spacing=7.0)
    for case, names in LACKING.items():
        own = next(found for found in find(place / "cases").cases if found.name == folders[case].name)
        for name in names:
            own.given[name].unlink()
    for part, members in PARTS.items():
        (place / part).write_text("\n".join(folders[case].name for case in members))
    lists = ", ".join(f"{part}: {place / part}" for part in PARTS)
    before = os.environ.get("ACDIS_HOME")
    os.environ["ACDIS_HOME"] = str(place / "home")
    said = [f"data.root={place / 'cases'}", f"data.split={{{lists}}}", *SETTINGS]
    experiment = acdis.load(None, said)
    cell = acdis.train(experiment, device="cpu")
    yield experiment, cell, [folder.name for folder in folders], place / "cases"
    os.environ.pop("ACDIS_HOME")
    if before is not None:
        os.environ["ACDIS_HOME"] = before


def test_which_cases_do_what(trained):
    """What validates and lacks a modality is left out: its Dice would be of other subsets than others'."""
    experiment, cell, names, _ = trained
    inputs = acdis.cases(experiment)
    assert [len(entry.modalities) for entry in inputs.train] == [3, 4, 4]
    assert inputs.validation == ()
    assert [entry.name for entry in inputs.test] == [names[4]]
    assert [(entry.name, entry.modalities) for entry in inputs.incomplete] == [
        (names[5], ("FLAIR", "T1", "T2")),
        (names[6], ("T1ce", "T1")),
    ]
    assert inputs.notes[-1] == "1 of 1 validation cases lack modalities: left out"
    assert "of the 3 training cases 1 have no T2" in inputs.notes
    assert any(f"{names[5]}: has no T1ce, and takes part without" in note for note in inputs.notes)
    assert cell.test_cases() == [names[4], names[5], names[6]]


def test_scores_stand_apart_on_the_subsets_that_a_case_has(trained):
    _, cell, names, folder = trained
    (evaluation,) = cell.evaluations.iterdir()
    assert {record.case for record in read_parquet(evaluation / "records.parquet")} == {names[4]}
    rows = read_parquet(evaluation / incomplete.FILE)
    for case, has in ((5, {"FLAIR", "T1", "T2"}), (6, {"T1ce", "T1"})):
        own = {record.subset for record in rows if record.case == names[case]}
        assert own == {subset_name(subset) for subset in SUBSETS if set(subset) <= has}
    case = next(
        found
        for found in find(folder, acdis.load(None, ["data.incomplete=true"]).data).cases
        if found.name == names[5]
    )
    predicted = acdis.predict(cell, case.given).labels
    truth = np.asarray(nib.load(case.segmentation).dataobj)
    both = 2 * np.count_nonzero((predicted > 0) & (truth > 0))
    dice = both / (np.count_nonzero(predicted) + np.count_nonzero(truth))
    (found,) = [
        record.dice
        for record in rows
        if (record.case, record.subset, record.region) == (names[5], "FLAIR_T1_T2", "WT")
    ]
    assert found == pytest.approx(dice, abs=1e-6)


def test_they_are_counted_by_what_they_have(trained):
    _, cell, names, _ = trained
    (evaluation,) = cell.evaluations.iterdir()
    scores = read_file(evaluation / "records.parquet")
    assert scores.cases == (names[4],)
    assert [(pattern.modalities, pattern.cases, pattern.subsets) for pattern in scores.incomplete] == [
        (("T1ce", "T1"), (names[6],), 3),
        (("FLAIR", "T1", "T2"), (names[5],), 7),
    ]
    rows = [row for row in read_parquet(evaluation / incomplete.FILE) if row.case == names[6]]
    mean = np.mean([row.dice for row in rows if row.region == "TC"])
    assert scores.incomplete[0].summary["dice/TC/mean"] == pytest.approx(mean)
    (line,) = patterns.notes(scores)
    assert line.startswith("2 more test cases lack modalities; they are not in this table.")
    assert f"T1ce + T1 (1, 3 subsets): WT {100 * scores.incomplete[0].summary['dice/WT/mean']:.2f}" in line


def test_without_the_option_they_are_refused_as_before(trained):
    experiment, *_ = trained
    data = experiment.data.model_copy(update={"incomplete": False})
    with pytest.raises(acdis.errors.UserError, match="4 of 7 cases lack files"):
        acdis.cases(experiment.model_copy(update={"data": data}))


def test_a_mean_of_15_subsets_needs_whole_cases(trained, tmp_path):
    experiment, _, names, _ = trained
    shutil.copy(experiment.data.split.train, tmp_path / "train")
    (tmp_path / "test").write_text(names[5])
    split = experiment.data.split.model_copy(update={"test": str(tmp_path / "test"), "validation": None})
    data = experiment.data.model_copy(update={"split": split})
    with pytest.raises(acdis.errors.UserError, match="all 1 cases to be scored lack modalities"):
        acdis.cases(experiment.model_copy(update={"data": data}))


def test_figures_are_of_cases_that_have_all_four(trained):
    _, cell, names, _ = trained
    with pytest.raises(acdis.errors.UserError, match=f"{names[5]}: has no T1ce, and figures show all four"):
        figures(FiguresRequest([cell.name], case=names[5], out=cell.folder / "figures"))
