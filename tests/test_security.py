"""Nothing that a file says is executed, and nothing that it names leaves the folders of the platform."""

from __future__ import annotations

import ast
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from acdis import cells, config
from acdis.ablation import search, spec
from acdis.cells import schemas
from acdis.cells.object_store import leads_inside
from acdis.config import Experiment
from acdis.data import cases, nifti, splits
from acdis.data.patients import Patients
from acdis.errors import UserError
from acdis.methods import build, resolve
from acdis.report import bundle, spec_outline
from acdis.tracking.journal import epochs_of
from acdis.training import run
from acdis.training.group import Group

#: Modules that make objects, and so run code, from bytes.
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.full_load"),
    *(
        "yaml.unsafe_load",
        "yaml.load_all",
        "yaml.unsafe_load_all",
        "shutil.unpack_archive",
        "tarfile.open",
        "archive.extract",
    ),
}
METHODS = {"extractall"}  # of archives: names in them may lead anywhere
DUE = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}


def _offences(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            yield from _offences_of_call(node)


def _offences_of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {each.arg: ast.unparse(each.value) for each in call.keywords}
    if name in CALLS or (isinstance(call.func, ast.Attribute) and call.func.attr in METHODS):
        yield name
    if given.get("shell") == "True" or given.get("allow_pickle") == "True":
        yield f"{name} with shell or allow_pickle"
    key, value = DUE.get((name.rpartition(".")[0], name.rpartition(".")[2]), ("", None))
    if key and given.get(key) != str(value):
        yield f"{name} without {key}={value}"
    if name.startswith("yaml.") and name.endswith("Loader") and "Safe" not in name:
        yield name


def test_no_code_of_the_package_makes_objects_from_bytes(checkout: Path) -> None:
    files = [*(checkout / "platform").rglob("*.py"), *(checkout / "experiments").rglob("*.py")]
    assert len(files) > 100
    found = {str(file): list(_offences(file.read_text(encoding="utf-8"))) for file in files}
    assert {file: offences for file, offences in found.items() if offences} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import cloudpickle as c",
        "eval('1')",
        "yaml.load(x)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "run(x, shell=True)",
        "os.system('x')",
        "archive.extractall()",
        "yaml.UnsafeLoader(x)",
    ],
)
def test_the_scan_sees(source: str) -> None:
    assert list(_offences(source))
    assert not list(
        _offences("yaml.safe_load(x); torch.load(x, weights_only=True); np.load(x, allow_pickle=False)")
    )


CODE = "!!python/object/apply:os.mkdir ['it_ran']"


@pytest.mark.parametrize("tag", [CODE, "!!python/object/new:os.mkdir ['it_ran']", "!!python/name:os.mkdir"])
@pytest.mark.parametrize(
    "entrance", ["experiment", "extends", "override", "spec", "use", "base", "search", "cell"]
)
def test_yaml_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str, entrance: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(f"seed: {tag}\n")
    Path("good.yaml").write_text("seed: 1\n")
    Path("file.yaml").write_text(
        {
            "extends": "extends: bad.yaml\n",
            "spec": f"base: good.yaml\nbaseline: a\nrows: {{a: {{label: {tag}}}}}\n",
            "use": "base: good.yaml\nbaseline: a\nrows: {a: {use: 'bad.yaml#a'}}\n",
            "base": "base: bad.yaml\nbaseline: a\nrows: {a: {}}\n",
            "search": f"base: good.yaml\nsearch: {tag}\n",
        }.get(entrance, f"seed: {tag}\n")
    )
    read = {
        "override": lambda: config.load(None, [f"seed={tag}"]),
        "search": lambda: search.load(Path("file.yaml")),
        "cell": lambda: cells.Cell(_cell(tag)).experiment(),
        **dict.fromkeys(("experiment", "extends"), lambda: config.load(Path("file.yaml"))),
        **dict.fromkeys(("spec", "use", "base"), lambda: spec.load(Path("file.yaml"))),
    }[entrance]
    with pytest.raises(UserError, match="YAML"):
        read()
    assert not Path("it_ran").exists()
    assert yaml.unsafe_load("!!python/object/apply:os.mkdir ['it_ran']") is None  # it would have run
    assert Path("it_ran").exists()


def _cell(tag: str) -> Path:
    folder = Path("cell")
    folder.mkdir()
    whole = config.dump(config.Experiment())  # half a configuration is refused before it is parsed
    (folder / "config.yaml").write_text(whole.replace("seed: 0\n", f"seed: {tag}\n", 1))
    return folder


class Runs:
    """Unpickling this makes a folder."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("it_ran",)


TINY = Experiment.model_validate(
    {
        "method": {"name": "rfnet", "options": {"base_width": 4}},
        "data": {"min_size": 32, "crop": [32, 32, 32]},
        "training": {"precision": "fp32", "selection": "best"},
        "evaluation": {"window": [32, 32, 32], "stride": [32, 32, 32]},
    }
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("entrance", [run.LAST, run.BEST, "weights.pt", "figures"])
def test_checkpoints_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entrance: str, old: bool
) -> None:
    """Each place that reads weights: going on, the best epoch, scoring, figures."""
    from acdis.report.paper.figure_arrays import load_method
    from acdis.training import checkpoint

    monkeypatch.chdir(tmp_path)
    experiment = resolve(TINY)
    cpu = torch.device("cpu")
    begun = run.begin(experiment, tmp_path, Group(device=cpu))
    name = "weights.pt" if entrance == "figures" else entrance
    tree = OrderedDict(begun.method.state_dict(), more=Runs())
    torch.save(tree, tmp_path / name, _use_new_zipfile_serialization=not old)
    read = {
        run.LAST: lambda: run.begin(experiment, tmp_path, Group(device=cpu)),
        run.BEST: lambda: run.final_state(begun, tmp_path),
        "weights.pt": lambda: begun.method.load_inference_state(checkpoint.load(tmp_path / name)),
        "figures": lambda: load_method(cells.Cell(tmp_path), experiment, cpu),
    }[entrance]
    with pytest.raises(UserError, match=name):
        read()
    assert not Path("it_ran").exists()
    torch.load(tmp_path / name, weights_only=False)  # it would have run
    assert Path("it_ran").exists()


@pytest.mark.parametrize(
    "name", ["...yaml", "....yaml", "a'b.yaml", "a%.yaml", "a\nb.yaml", "-x.yaml", ".yaml.yaml"]
)
def test_a_spec_whose_name_would_leave_the_home(tmp_path: Path, name: str) -> None:
    """`Path('...yaml').stem` is `..`: its folder would be the one above all specs."""
    file = tmp_path / name
    (tmp_path / "base").write_text("seed: 1\n")
    file.write_text("base: base\nbaseline: a\nrows: {a: {}}\n")
    with pytest.raises(UserError, match="cannot name a spec"):
        spec.load(file)
    with pytest.raises(UserError, match="cannot name a spec"):
        search.load(file)


@pytest.mark.parametrize("name", ["../../x", "/x", "..", ".", "a/b", "", "a\\0b", "a b", "-x"])
def test_rows_whose_names_would_leave_the_home(tmp_path: Path, name: str) -> None:
    (tmp_path / "base.yaml").write_text("seed: 1\n")
    (tmp_path / "s.yaml").write_text(f'base: base.yaml\nbaseline: a\nrows: {{a: {{}}, "{name}": {{}}}}\n')
    with pytest.raises(UserError, match=r"s\.yaml"):
        spec.load(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    "name", ["../../x", "/x", "os", "acdis.cli", "base", "rfnet.network", "", "rfnet/../x"]
)
def test_methods_that_are_no_methods(name: str) -> None:
    """The name of a method becomes the name of a module, and of a folder."""
    with pytest.raises(UserError, match="unknown method"):
        build(name)


@pytest.mark.parametrize("run_name", ["../outside", "..", "/", "x" * 5000, "*", "acdis-[0-9]"])
def test_runs_that_are_no_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_name: str) -> None:
    (tmp_path / "home" / "cells" / "acdis-0").mkdir(parents=True)
    (tmp_path / "home" / "cells" / "acdis-0" / "config.yaml").write_text("")
    (tmp_path / "home" / "outside").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="names no cell"):
        cells.find(tmp_path / "home", run_name)


def test_a_cell_that_is_a_link_to_somewhere_else(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "home" / "cells").mkdir(parents=True)
    (tmp_path / "home" / "cells" / "acdis-0").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="leads out of"):
        cells.create(tmp_path / "home", "acdis-0", Experiment(), {})
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "a//x", "./x", "", "a/", "a\x1b[2J", "a\0"]
)
def test_objects_whose_names_lead_out_of_the_cell(name: str) -> None:
    """Keys of an object store may be anything; each becomes a file below the cell's folder."""
    assert not leads_inside(name)
    assert leads_inside("evaluations/0123456789ab/records.parquet")


def test_cases_whose_names_are_no_text(tmp_path: Path) -> None:
    """Names of files are bytes: escape sequences for a terminal, line breaks, or no UTF-8 at all."""
    for name in (b"a\x1b[2J", b"a\nb", b"a\xff"):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        for part in (b"flair", b"t1ce", b"t1", b"t2", b"seg"):
            Path(os.fsdecode(folder + b"/" + name + b"_" + part + b".nii")).write_bytes(b"x")
    found = cases.find(tmp_path)
    assert not found.cases
    assert len(found.problems) == 3
    for problem in found.problems:
        assert problem.case.isprintable()
        assert str(problem).isprintable()
        assert "rename" in str(problem)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a\x1b[2Jb"])
def test_names_in_split_files_open_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "train.txt").write_text(f"{name}\n")
    with pytest.raises(UserError, match="match none of the 1 cases") as refused:
        splits.resolve(config.Split(train=str(tmp_path / "train.txt")), ["A"], None)
    assert str(refused.value).isprintable()


def test_a_bundle_is_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in it that lead upwards are names in it, and no more."""
    import json
    import zipfile

    monkeypatch.chdir(tmp_path)
    cell = {
        "seed": 0,
        "cell": "../../../outside",
        "evaluation": "x",
        "scored": True,
        "standing": "",
        "hours": {},
        "code": "",
    }
    row = {"id": "a", "label": "a", "note": None, "paper": None, "changes": {}, "cells": [cell]}
    facts = {
        "name": "s",
        "title": "s",
        "table": "s",
        "baseline": "a",
        "source": "",
        "overrides": [],
        "excluded": {},
        "phantoms": True,
        "et_minimum": 0.0,
        "rows": [row],
    }
    with zipfile.ZipFile("b.zip", "w") as archive:
        archive.writestr(bundle.FACTS, json.dumps({"format": bundle.FORMAT, "specs": [facts]}))
        archive.writestr("../../../outside/evaluations/x/records.parquet", b"PAR1")
    _, read = bundle.read(Path("b.zip"))
    with pytest.raises(UserError, match=r"b\.zip"):
        read("../../../outside", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]


#: Bytes of a file, as SECURITY.md has them, and who reads it.
MOST: dict[str, tuple[int, Callable[[Path], object]]] = {
    "experiment.yaml": (128 * 2**10, config.load),
    "spec.yaml": (128 * 2**10, spec.load),
    "state.json": (32 * 2**20, lambda path: schemas.read(path, schemas.State)),
    "bundle.zip": (512 * 2**20, bundle.read),
    "facts.json": (16 * 2**20, spec_outline.read),
    "t1.nii": (512 * 2**20, lambda path: nifti.load(path, 3)),
    "patients.csv": (4 * 2**20, lambda path: Patients(str(path))),
}


@pytest.mark.parametrize("name", MOST)
def test_a_byte_more_than_is_read_of_a_file(tmp_path: Path, name: str) -> None:
    most, read = MOST[name]
    with (tmp_path / name).open("wb") as stream:
        stream.truncate(most + 1)
    with pytest.raises((UserError, nifti.UnreadableError), match=rf"{most + 1:,} bytes, {most:,} at most"):
        read(tmp_path / name)


def test_a_byte_or_a_line_more_than_is_read_of_a_journal(tmp_path: Path) -> None:
    path, line = tmp_path / "tracking.jsonl", b'{"op":"epoch","time":0,"step":1,"values":{}}\n'
    path.write_bytes(line)
    assert epochs_of(tmp_path) == {1: {}}
    path.write_bytes(line * 250_001)
    assert epochs_of(tmp_path) == {}
    path.write_bytes(line)
    os.truncate(path, 128 * 2**20 + 1)
    assert epochs_of(tmp_path) == {}
