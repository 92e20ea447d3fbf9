"""Checklists: what is "known" is what the cells hold, worked out here again; the rest is to be written."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from acdis.cells import Cell
from acdis.errors import UserError
from acdis.report.facts import PHANTOM_WARNING
from acdis.report.paperwork import checklist, lists
from acdis.report.paperwork.study import Study

UNKNOWN = "- not known: write here"


def answers(study: Study, name: str) -> dict[str, checklist.Answer]:
    page = checklist.page_of(study, name)
    return {item.at: item for _, items in page.groups for item in items}


def known(study: Study, name: str, at: str) -> str:
    return " | ".join(answers(study, name)[at].known)


@pytest.mark.parametrize(("name", "count"), [("claim", 44), ("neurips", 16), ("midl", 8)])
def test_lists_have_every_number_of_the_original(name: str, count: int) -> None:
    numbers = [item.at for group in lists.load(name).groups for item in group.items]
    assert numbers == [str(number) for number in range(1, count + 1)]


def test_lists_name_facts_that_there_are_and_every_fact_is_asked_for(kept: Study) -> None:
    """A list with a misspelt fact would stop at it; a fact that no list wants is for nobody."""
    facts = checklist.facts_of(kept)
    wanted = {
        name
        for each in lists.names()
        for group in lists.load(each).groups
        for item in group.items
        for name in item.known
    }
    assert wanted == set(facts)


def test_splits_patients_and_checksums(kept: Study, paper: SimpleNamespace) -> None:
    said = known(kept, "claim", "10")
    assert "train 5 scans of 4 patients; validation 1 scan of 1 patient; test 3 scans of 2 patients" in said
    for part, names in paper.splits.items():
        lines = "".join(f"{name}\n" for name in sorted(names))
        assert f"{part} {hashlib.sha256(lines.encode()).hexdigest()}" in said
    assert f"trained and validated on {'1e' * 32}, scored {'5c' * 32}" in said
    assert known(kept, "claim", "20") == "patients: none in more than one of train, validation and test"
    assert "train: my_train.txt, validation: my_val.txt, test: my_test.txt" in known(kept, "claim", "19")
    assert "/somewhere" not in checklist.render(kept, "claim")  # no path of anybody's machine


def test_a_patient_on_two_sides_is_counted(home: SimpleNamespace, paper: SimpleNamespace) -> None:
    for lineage in home.base.glob("cells/*/lineage.json"):
        tree = json.loads(lineage.read_text())
        tree["splits"]["test"].append("BraTS-GLI-00001-002")  # its first two scans train
        lineage.write_text(json.dumps(tree))
    assert "patients: 1 in more than one of" in known(paper.of_home(home), "claim", "20")


def test_data_set_and_its_terms(kept: Study) -> None:
    said = known(kept, "claim", "7")
    assert "BraTS 2023, adult glioma: 9 scans" in said
    assert "a Synapse account" in said
    assert "retrospective" in known(kept, "claim", "5")


def test_recipe_and_seeds_are_those_of_the_configuration(kept: Study) -> None:
    said = known(kept, "claim", "25")
    assert "9 epochs of 11 steps each, batch 3, crops of 16 × 16 × 16 voxels" in said
    assert "Adam with AMSGrad, learning rate 0.0002" in said
    assert "[-7, 7)" in said
    assert "flips with probability 0.25" in said
    assert "seeds 4, 7" in known(kept, "claim", "24")
    assert "windows of 16 × 16 × 16 voxels at stride 8 × 8 × 8" in known(kept, "claim", "22")
    assert "8.50 M parameters" in known(kept, "claim", "22")


def test_code_versions_and_device_are_those_of_the_lineage(kept: Study) -> None:
    said = known(kept, "claim", "23")
    assert "ACDIS platform 0.1.0, Python 3.11.9, PyTorch 2.11.0, MONAI 1.6.0" in said
    assert "Ray" not in said  # its version is noted as absent
    assert "commit 0123456789abcdef0123456789abcdef01234567, with uncommitted changes (kept" in said
    assert "1 × NVIDIA H200" in known(kept, "neurips", "8")
    assert "peak of a training step 3.0 GiB" in known(kept, "neurips", "8")


def test_metrics_with_their_conventions(kept: Study) -> None:
    said = known(kept, "claim", "28")
    assert "one empty 373.13, a penalty" in said
    assert "normalised surface Dice at 1 and 2 mm" in said
    assert "an empty truth with any predicted voxel about 0 %" in said
    assert "RFNet: HD95 that are penalties: WT 0, TC 0, ET 4 of 90 scores each" in known(kept, "claim", "39")
    assert "test cases without the region: WT 0, TC 0, ET 1 of 3" in known(kept, "claim", "36")


def test_volumes_by_hand(kept: Study) -> None:
    """WT 3, 6 and 9 ml; ET 1 and 2 ml where there is some."""
    said = known(kept, "metrics-reloaded", "FP3.1")
    assert "WT median 6 ml (3 to 9)" in said
    assert "ET median 1.5 ml (1 to 2)" in said


def test_failures_and_worst_subsets_by_plain_means(kept: Study) -> None:
    rows = kept.compared[0][1]
    for row in rows:
        dice = np.stack([scores.dice for scores in row.seeds.values()])  # [S, N, 15, 3]
        count = int((100 * dice[..., 1].mean(axis=2) < 50).sum())
        assert f"{row.label}: cases with a mean Dice over the subsets below 50 %" in known(
            kept, "claim", "39"
        )
        assert re.search(rf"{row.label}: cases .*: WT \d+, TC {count}, ET", known(kept, "claim", "39"))
        low = 100 * dice[..., 0].mean(axis=(0, 1)).min()
        assert f"{row.label}: Dice from the worst subset to the best: WT {low:.2f} (" in known(
            kept, "claim", "30"
        )


def test_statistics_are_those_that_report_computed(tmp_path: Path, paper: SimpleNamespace) -> None:
    spec = re.sub(r"\n  theirs: .*", "", paper.spec)
    study = paper.of_home(paper.made(tmp_path, spec, failed=False))
    _, _, result = study.compared[0]
    assert result.tests == 3
    said = known(study, "claim", "29")
    assert "2 rows × 2 seeds × 3 cases" in said
    assert "multi-reader multi-case" in said
    assert "3 questions (every row with the baseline, rfnet, regions apart); p adjusted by Holm" in said
    assert "equal within 0.5 points" in said
    for each in result.differences:
        assert each.answer
        assert f"MMANet − RFNet, {each.region}: {each.delta:+.2f} points" in known(study, "claim", "37")
        assert each.verdict in known(study, "claim", "37")


def test_one_seed_claims_nothing(kept: Study) -> None:
    assert "one seed, so nothing can be said of the method: MMANet, nnU-Net" in known(kept, "claim", "40")
    assert "equal within" not in known(kept, "claim", "29")
    assert "multi-reader" not in known(kept, "claim", "29")
    assert answers(kept, "claim")["4"].ask  # no question was tested, so it is asked for


def test_a_failed_training_is_told(kept: Study) -> None:
    assert "MMANet seed 7 (failed: the loss became NaN)" in known(kept, "neurips", "2")
    assert "MMANet, seed 7 (mmanet-" in known(kept, "neurips", "8")
    assert "0.50 GPU hours" in known(kept, "neurips", "8")
    assert "Without seed 7, which one of the two lacks" in known(kept, "claim", "12")


def test_another_tools_training_is_not_made_up(kept: Study) -> None:
    """Its cell holds the experiment's recipe, which is not what the tool was trained with."""
    assert "nnU-Net: predictions of another tool; how it was trained is not known here" in known(
        kept, "midl", "5"
    )
    page = checklist.page_of(kept, "claim")
    assert "the tool behind nnU-Net" in page.uncited
    facts = checklist.facts_of(kept)
    for name in ("recipe", "seeds", "hardware", "hours", "versions", "splits", "initial_weights"):
        assert not any("nnU-Net" in line for line in facts[name])


@pytest.mark.parametrize("name", lists.names())
def test_what_no_record_can_know_is_to_be_written(kept: Study, name: str) -> None:
    text = checklist.render(kept, name)
    for group in lists.load(name).groups:
        for item in group.items:
            part = text.split(f"\n### {item.at}: {item.words}\n", 1)[1].split("\n#", 1)[0]
            if not item.known:
                assert part.strip().startswith(UNKNOWN)
                assert "known: " not in part.replace("not known: ", "")
            if item.ask:
                assert f"{UNKNOWN} ({item.ask})" in part
            assert part.strip()


def test_without_cells_nothing_is_known_of_them(home: SimpleNamespace, paper: SimpleNamespace) -> None:
    """The spec alone: what is a habit of the platform may be said, and nothing of a training."""
    shutil.rmtree(home.base / "cells")
    specs = [
        replace(
            spec,
            rows=tuple(
                replace(
                    row, cells=tuple(replace(cell, scored=False, hours={}, capacity={}) for cell in row.cells)
                )
                for row in spec.rows
            ),
            unscored=(),
        )
        for spec in home.specs
    ]
    study = paper.of_home(SimpleNamespace(base=home.base, specs=specs))
    every = answers(study, "claim")
    for at in (
        "5",
        "7",
        "9",
        "10",
        "12",
        "13",
        "19",
        "20",
        "23",
        "26",
        "28",
        "29",
        "30",
        "35",
        "36",
        "37",
    ):
        assert every[at].known == (), at
        assert every[at].ask
        assert every[at].ask.startswith("not known: write here")
    assert "[not known: write here]" in checklist.page_of(study, "claim").methods
    assert answers(study, "midl")["7"].known == ()  # no weights are promised


def test_a_damaged_file_costs_what_it_says(
    home: SimpleNamespace, paper: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    whole = paper.of_home(home)
    (pupil,) = {run.cell.cell for run in whole.runs if (run.row.id, run.cell.seed) == ("pupil", 4)}
    for name in ("config.yaml", "lineage.json", "roles.json"):
        (home.base / "cells" / pupil / name).write_bytes(b"{")
    text = checklist.render(paper.of_home(home), "claim")
    for name in ("config.yaml", "lineage.json", "roles.json"):
        assert f"{pupil}/{name}: is damaged" in caplog.text
    assert "train 5 scans of 4 patients" in text  # the other cells know it


@pytest.mark.parametrize("name", lists.names())
def test_a_bundle_says_what_the_home_said(home: SimpleNamespace, paper: SimpleNamespace, name: str) -> None:
    """All but what else lies in the home, which a bundle cannot know."""
    here = checklist.render(paper.of_home(home), name)
    there = checklist.render(paper.of_bundle(home, home.base.parent / "b.zip"), name)
    gone = [line for line in here.splitlines() if line not in there.splitlines()]
    assert [line for line in gone if "the home holds no other cells" not in line] == []
    assert [line for line in there.splitlines() if line not in here.splitlines()] == []


def test_a_bundle_holds_the_cells_of_teachers(home: SimpleNamespace, paper: SimpleNamespace) -> None:
    study = paper.of_bundle(home, home.base.parent / "b.zip")
    assert len(study.helpers) == 2
    for run in study.helpers:
        assert run.papers.experiment
        assert run.papers.experiment.method.options["stage"] == "teacher"


def test_what_else_the_home_holds_is_counted(home: SimpleNamespace, paper: SimpleNamespace) -> None:
    """A search of two trials, an hour of a GPU each; the baseline has its best settings."""
    rfnet = next(run for run in paper.of_home(home).runs if run.row.id == "rfnet")
    config = (home.base / "cells" / rfnet.cell.cell / "config.yaml").read_text()
    for number, rate in enumerate((0.0002, 0.0005)):
        cell = Cell(home.base / "cells" / f"rfnet-00000000000{number}")
        cell.folder.mkdir()
        (cell.folder / "config.yaml").write_text(
            config.replace("learning_rate: 0.0002", f"learning_rate: {rate}")
        )
        cell.update(status=("done", "stopped")[number], workers=1, gpus=1)
        cell.add_role(spec="rates", table="rates", row=f"trial-{number}", seed=0)
        (cell.folder / "history.json").write_text(json.dumps({"epochs": [{"seconds": 3600.0}]}))
    best = home.base / "searches" / "rates" / "best.yaml"
    best.parent.mkdir(parents=True)
    best.write_text(f"# Search rates, trial 0: validation dice/mean 0.5\n{config}")
    study = paper.of_home(home)
    said = known(study, "neurips", "6")
    assert "search rates: 2 trials (1 done, 1 stopped), 2.00 GPU hours" in said
    assert "training.learning_rate 0.0002, 0.0005" in said
    assert "RFNet: the settings of Search rates, trial 0: validation dice/mean 0.5" in said
    assert "the home holds 2 other cells: 2.00 GPU hours" in known(study, "neurips", "8")
    assert "MMANet: the settings" not in said


def test_evaluations_on_other_peoples_cases_are_told(home: SimpleNamespace, paper: SimpleNamespace) -> None:
    assert answers(paper.of_home(home), "claim")["33"].known == ()
    cell = next(run.cell.cell for run in paper.of_home(home).runs if run.row.id == "rfnet")
    folder = home.base / "cells" / cell / "evaluations" / "other"
    folder.mkdir()
    (folder / "external.md").write_text(f"# {cell}: inside (2 patients) and outside (9 patients)\n\nDice …\n")
    for study in (paper.of_home(home), paper.of_bundle(home, home.base.parent / "b.zip")):
        assert f"RFNet: {cell}: inside (2 patients) and outside (9 patients)" in known(study, "claim", "33")
        assert "one data set" not in known(study, "claim", "40")


def test_phantoms_are_no_patients(tmp_path: Path, paper: SimpleNamespace) -> None:
    data = re.sub(r"  root: .*\n  split: .*\n", "  phantoms: {cases: 9}\n", paper.experiment)
    study = paper.of_home(paper.made(tmp_path, experiment=data))
    assert "phantoms, drawn by the platform: 9 cases, seed 0" in known(study, "claim", "7")
    assert "Synapse" not in known(study, "claim", "7")
    text = checklist.render(study, "midl")
    assert f"> **{PHANTOM_WARNING}**" in text
    assert "@misc{baid2021rsna" not in text


def test_cases_that_lack_modalities_are_told(tmp_path: Path, paper: SimpleNamespace, kept: Study) -> None:
    lacking = "data:\n  missing: {T1ce: 0.4, T2: 0.25, seed: 3}\n  incomplete: true"
    rows = "\n".join(line for line in paper.spec.splitlines() if "mmanet" not in line)
    study = paper.of_home(
        paper.made(tmp_path, rows, experiment=paper.experiment.replace("data:", lacking), failed=False)
    )
    text = checklist.render(study, "midl")
    assert "drawn by seed 3: T1ce 40 %, T2 25 %; every case keeps one at least" in text
    assert "scored on the subsets that they have, apart from the means over 15 subsets" in text
    assert "lack a modality altogether" not in checklist.render(kept, "midl")


def test_words_of_a_spec_are_no_markup(tmp_path: Path, paper: SimpleNamespace) -> None:
    spec = paper.spec.replace("label: RFNet", 'label: "R|F <script>*x* `y`"')
    text = checklist.render(paper.of_home(paper.made(tmp_path, spec)), "claim")
    assert "R\\|F &lt;script>\\*x\\* \\`y\\`" in text
    assert "<script>" not in text


def test_no_list_of_that_name(kept: Study) -> None:
    with pytest.raises(UserError, match=r"--checklist: 'clam' is none of .*; did you mean 'claim'\?"):
        checklist.page_of(kept, "clam")
