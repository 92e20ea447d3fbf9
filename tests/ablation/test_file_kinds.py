"""What a file is, by its keys, and what is said where a verb was given another kind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from acdis import cli
from acdis.ablation.file_kinds import expect, kind_of
from acdis.errors import UserError

ROOT = Path(__file__).parents[2]


def test_every_file_of_this_checkout_is_what_its_folder_says() -> None:
    specs = sorted((ROOT / "ablations").glob("*.yaml"))
    assert len(specs) > 3
    for path in specs:
        due = "search" if path.stem == "search" else "spec"
        assert kind_of(path) == due, path
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        assert kind_of(path) == "experiment", path


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("seed: 3", "experiment"),
        ("extends: other.yaml", "experiment"),
        ("seeds: [3]", "spec"),
        ("grid: {}", "spec"),
        ("search: {}", "search"),
        ("title: any", None),
        ("data: {}\nrows: {}", None),  # a wrong key, told with its line by whoever reads it
        ("nothing: known", None),
        ("[", None),
    ],
)
def test_a_file_is_known_by_keys_that_no_other_kind_has(tmp_path: Path, text: str, kind: str | None) -> None:
    (tmp_path / "other.yaml").write_text("training: {epochs: 3}")
    (tmp_path / "it.yaml").write_text(text)
    assert kind_of(tmp_path / "it.yaml") == kind
    assert kind_of(tmp_path / "none.yaml") is None


def test_what_is_not_known_passes(tmp_path: Path) -> None:
    expect(tmp_path / "none.yaml", "spec")
    with pytest.raises(UserError, match="is a bundle, not an experiment"):
        expect(tmp_path / "none.zip", "experiment")


EXPERIMENT, SPEC, SEARCH = "experiments/phantom.yaml", "ablations/table2.yaml", "ablations/search.yaml"


@pytest.mark.parametrize(
    ("verb", "file", "said"),
    [
        ("train", SPEC, f"is a spec (a table of trainings), not an experiment (one training); `plan {SPEC}`"),
        ("train", SEARCH, f"is a search file, not an experiment (one training); `search {SEARCH}`"),
        ("train", "report.zip", "is a bundle, not an experiment (one training); `report report.zip`"),
        ("search", SPEC, f"is a spec (a table of trainings), not a search file; `plan {SPEC}`"),
        *(
            (
                verb,
                EXPERIMENT,
                f"is an experiment (one training), not a spec (a table of trainings); `train {EXPERIMENT}`",
            )
            for verb in ("plan", "ablate", "status", "report")
        ),
        *(
            (verb, SEARCH, f"is a search file, not a spec (a table of trainings); `search {SEARCH}`")
            for verb in ("plan", "ablate", "status", "report")
        ),
        *(
            (verb, "report.zip", "is a bundle, not a spec (a table of trainings); `report report.zip`")
            for verb in ("plan", "ablate", "status")
        ),
    ],
)
def test_a_verb_says_in_one_line_what_it_was_given(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    file: str,
    said: str,
) -> None:
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["acdis", verb, file])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: {said}")
