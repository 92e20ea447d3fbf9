"""An exported cell: nothing that runs, nothing of the machine and its patients; imported it is the same."""

import errno
import json
import logging
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from acdis import cells, cli, files
from acdis.data.prepared_case import Entry
from acdis.data.preprocess import Box, Meta
from acdis.data.scan import read
from acdis.errors import UserError
from acdis.evaluation.records import summarise
from acdis.prediction import hand_on, program, tensors
from acdis.prediction.model import open_model
from acdis.prediction.predict import predict
from acdis.training import checkpoint
from acdis.workflow.score_again import unseen

NAMES = ("BraTS-GLI-00001-000", "BraTS-GLI-00002-000")
CASE = Meta(Box((0, 0, 0), (1, 1, 1)), (1, 1, 1), (1.0,) * 3, (1, 1, 1), (1.0,) * 3, ((1.0,),))


@pytest.fixture(scope="module")
def shared_cell(tmp_path_factory, make_cell):
    base = tmp_path_factory.mktemp("theirs")
    return make_cell(base, changes={"data.root": "/secret/place"}, names=NAMES)


@pytest.fixture(scope="module")
def once(shared_cell, tmp_path_factory):
    out = tmp_path_factory.mktemp("once") / "out"
    logging.disable(logging.DEBUG)  # torch.export tells pytest's capture of every node
    hand_on.export(shared_cell, out, lambda rows: f"WT {summarise(rows)['dice/WT/mean']:.2f}", "CC BY")
    logging.disable(logging.NOTSET)
    return out


@pytest.fixture
def exported(once, tmp_path):
    shutil.copytree(once, tmp_path / "out")
    return tmp_path / "out"


def test_an_export_that_fails_leaves_an_empty_folder(shared_cell, tmp_path, monkeypatch):
    """With room again the same command does it."""

    def full(*_):
        raise files.UnwritableError(tmp_path / "out" / "README.md", OSError(errno.ENOSPC, "No space left"))

    def no_program(*_):
        raise program.ProgramError("it takes long")

    monkeypatch.setattr(program, "write", no_program)
    with monkeypatch.context() as patch:
        patch.setattr(hand_on, "card", full)
        with pytest.raises(files.UnwritableError, match="No space left"):
            hand_on.export(shared_cell, tmp_path / "out", lambda _: "", "none")
    assert list((tmp_path / "out").iterdir()) == []
    assert hand_on.export(shared_cell, tmp_path / "out", lambda _: "", "none").exists()


def test_nothing_that_runs_and_nobodys_names(exported, shared_cell):
    files = sorted(path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file())
    assert files == [
        "cell.json", "config.yaml", "configs/inference.json", "configs/metadata.json", "docs/README.md",
        "evaluations/exported/records.parquet", "lineage.json", "models/model.pt2",
        "models/model.safetensors", "state.json",
    ]  # fmt: skip
    whole = b"".join((exported / name).read_bytes() for name in files)
    package = str(Path(cells.__file__).parents[1]).encode()
    for secret in (b"/secret/place", b"BraTS-GLI-00001", b"case3", package):
        assert secret not in whole
    card = (exported / "docs" / "README.md").read_text()
    for words in ("not for clinical use", "CC BY", "WT 0.80", "Where it fails", "T1 ", shared_cell.name):
        assert words in card
    # ET is 0.4 without T1ce, TC 0.675 on average: (80 + 67.5 + 40) / 3
    assert "FLAIR 62.5" in card


def test_weights_as_the_format_says(exported, shared_cell):
    """Read with struct and NumPy alone."""
    raw = (exported / "models" / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert header.pop("__metadata__")["cell"] == shared_cell.name
    weights = checkpoint.load(shared_cell.weights)
    assert header.keys() == weights.keys()
    kinds = {"F32": np.float32, "I64": np.int64, "BOOL": np.bool_}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        values = np.frombuffer(raw[8 + length + first : 8 + length + last], kinds[entry["dtype"]])
        np.testing.assert_array_equal(values.reshape(entry["shape"]), weights[name].numpy())


def test_the_program_runs_without_this_package(exported, shared_cell, tmp_path):
    """Loaded by torch alone; its labels and probabilities are those of a window that `predict` computes."""
    path = exported / "models" / "model.pt2"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        others = [name for name in names if "/weights/weight_" not in name]  # raw numbers
        assert not [name for name in others if archive.read(name)[:1] in (b"\x80", b"P")]  # pickle, archive
    assert not [name for name in names if "auxiliary" in name]
    assert "probabilities differ by" in (exported / "docs" / "README.md").read_text()
    images = torch.randn(1, 4, 24, 24, 24, generator=torch.manual_seed(3))
    available = torch.tensor([[True, False, False, True]])
    origin = torch.tensor([[5, 0, 2]])
    torch.save((images, available, origin), tmp_path / "in.pt")
    code = (
        "import sys, torch\n"
        f"given = torch.load({str(tmp_path / 'in.pt')!r})\n"
        f"network = torch.export.load({str(path)!r}).module()\n"
        f"torch.save(network(*given).detach(), {str(tmp_path / 'out.pt')!r})\n"
        "assert not [name for name in sys.modules if name.startswith('acdis')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    logits = torch.load(tmp_path / "out.pt")
    method = open_model(shared_cell, "cpu").method
    with torch.no_grad():
        due = method.decode(method.encode(images, origin=origin), available)
        blank = images.clone()
        blank[:, 1:3] = torch.nan  # what is missing is not read
        network = torch.export.load(path).module()
        torch.testing.assert_close(network(blank, available, origin), logits)
    torch.testing.assert_close(logits.softmax(1), due.softmax(1), atol=1e-4, rtol=0)
    assert (logits.argmax(1) == due.argmax(1)).float().mean() > 0.999
    assert logits.argmax(1).unique().numel() > 1


def test_a_program_that_says_something_else_is_not_handed_on(shared_cell, tmp_path, monkeypatch):
    model = open_model(shared_cell, "cpu")
    monkeypatch.setattr(program, "TOLERANCE", 0.0)
    with pytest.raises(program.ProgramError, match="differ by"):
        program.write(tmp_path / "m.pt2", model)
    assert not (tmp_path / "m.pt2").exists()

    def encode(*_, **__):
        raise ValueError("reads the device")

    monkeypatch.setattr(type(model.method), "encode", encode)
    with pytest.raises(program.ProgramError, match=r"torch\.export: ValueError: reads the device"):
        program.write(tmp_path / "m.pt2", model)


def test_every_type_comes_back(tmp_path):
    draw = torch.manual_seed(0)
    state = {
        "a": torch.randn(2, 3, generator=draw).bfloat16(), "b": torch.arange(5), "c": torch.tensor(True),
        "d": torch.empty(0, 4), "e": torch.randn(4, 3, generator=draw).t(), "f": torch.tensor(2.5).double(),
    }  # fmt: skip
    tensors.write(tmp_path / "x.safetensors", state, {})
    back = tensors.read(tmp_path / "x.safetensors")
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}, b"abcd"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"abcdefgh"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"abcdmore"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"abcd"),
        ({"a": {"dtype": "pickle", "shape": [1], "data_offsets": [0, 4]}}, b"abcd"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}, b""),
        ([], b""),
    ],
)
def test_crafted_weights_are_refused(tmp_path, header, data):
    head = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(head)) + head + data)
    with pytest.raises(UserError, match="no safetensors file"):
        tensors.read(tmp_path / "x")
    (tmp_path / "y").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(UserError, match="header claims"):
        tensors.read(tmp_path / "y")


def test_an_imported_cell_is_the_same(exported, shared_cell, patient, tmp_path):
    mine = hand_on.import_cell(tmp_path / "mine", exported)
    assert mine.name == shared_cell.name
    assert cells.find_trained(tmp_path / "mine", shared_cell.name[:9]) == mine
    ours, theirs = checkpoint.load(mine.weights), checkpoint.load(shared_cell.weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())
    scan = read({"T2": patient["T2"]})
    found = [predict([open_model(cell, "cpu")], scan) for cell in (shared_cell, mine)]
    found.append(predict([open_model(hand_on.find(tmp_path, exported), "cpu")], scan))
    first = found[0].report
    assert first["labels"] == {"background": 0, "NCR/NET": 1, "ED": 2, "ET": 3}  # of BraTS 2023
    for other in found[1:]:
        np.testing.assert_array_equal(other.labels, found[0].labels)
        for key in ("cells", "labels", "expected_dice_percent", "better", "volumes_ml", "notes"):
            assert other.report[key] == first[key]
    assert hand_on.import_cell(tmp_path / "mine", exported) == mine  # again changes nothing
    checkpoint.save(mine.weights, {name: value + 1 for name, value in ours.items()})
    with pytest.raises(UserError, match="is there already with other weights"):
        hand_on.import_cell(tmp_path / "mine", exported)


def test_an_imported_cell_knows_what_it_has_seen(exported, tmp_path):
    mine = hand_on.import_cell(tmp_path / "mine", exported)
    entries = [
        Entry(name, Path(name), "f", CASE, patient)
        for name, patient in (
            (NAMES[0], NAMES[0][:-4]),
            ("BraTS-GLI-00002-001", "BraTS-GLI-00002"),
            ("other", "other"),
        )
    ]
    said = []
    assert [entry.name for entry in unseen(mine, entries, said.append)] == ["other"]
    assert "(1 by name, 1 by patient)" in said[0]


@pytest.mark.parametrize("what", ["weights", "missing", "newer", "name", "outside", "no export", "JSON"])
def test_a_changed_export_is_refused(exported, tmp_path, what):
    path = exported / "cell.json"
    tree = json.loads(path.read_text())
    words = "not as it was exported"
    if what == "weights":
        weights = exported / "models" / "model.safetensors"
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 1
        weights.write_bytes(raw)
    elif what == "missing":
        (exported / "lineage.json").unlink()
    elif what == "newer":
        tree["format"], words = 99, "newer version"
    elif what == "name":
        tree["name"], words = "../../evil", "no cell's name"
    elif what == "outside":
        tree["files"]["../x"], words = "0", "outside of the export"
    elif what == "no export":
        path.unlink()
        words = "is no exported cell"
    if what not in ("no export", "JSON"):
        path.write_text(json.dumps(tree))
    if what == "JSON":
        path.write_text("{")
        words = "is damaged"
    with pytest.raises(UserError, match=words):
        hand_on.import_cell(tmp_path / "mine", exported)
    assert not (tmp_path / "mine" / "cells").exists()


def test_from_the_command_line(shared_cell, tmp_path, monkeypatch, capsys):
    def acdis(home, *words):
        monkeypatch.setenv("ACDIS_HOME", str(home))
        monkeypatch.setattr(sys, "argv", ["acdis", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr()

    theirs = shared_cell.folder.parents[1]
    code, said = acdis(theirs, "export", shared_cell.name, tmp_path / "out", "--licence", "MIT")
    assert code == 0, said.err
    card = (tmp_path / "out" / "docs" / "README.md").read_text()
    assert card.count("●") == 32  # 4 × 1 + 6 × 2 + 4 × 3 + 4 modalities in the 15 subsets
    assert "Licence of weights and data: MIT" in card
    code, said = acdis(theirs, "export", shared_cell.name, tmp_path / "out")
    assert code == 2
    assert "is not an empty folder" in said.err
    code, said = acdis(tmp_path / "mine", "import", tmp_path / "out")
    assert code == 0, said.err
    assert (tmp_path / "mine" / "cells" / shared_cell.name / "weights.pt").exists()
    assert acdis(tmp_path / "mine", "import", tmp_path)[0] == 2


@pytest.mark.slow
def test_monai_runs_the_bundle(exported, patient, tmp_path, monkeypatch):
    from monai.bundle import run

    monkeypatch.setenv("ACDIS_HOME", str(tmp_path / "home"))

    run(
        run_id="run",
        config_file=str(exported / "configs" / "inference.json"),
        meta_file=str(exported / "configs" / "metadata.json"),
        bundle_root=str(exported),
        flair=str(patient["FLAIR"]),
        output=str(tmp_path / "seg.nii.gz"),
    )
    import nibabel

    due = predict([open_model(hand_on.find(tmp_path, exported), "cpu")], read({"FLAIR": patient["FLAIR"]}))
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "seg.nii.gz").dataobj), due.labels)
