"""A cell as a model in MLflow: logged with scores and data, registered, loaded, and served on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from acdis.cluster import head
from acdis.cluster.train import Job
from acdis.config import Tracking
from acdis.data.inputs import Inputs
from acdis.data.scan import read
from acdis.errors import UserError
from acdis.evaluation.records import read_parquet
from acdis.prediction import program
from acdis.prediction.model import open_model
from acdis.prediction.predict import predict
from acdis.prediction.served import Served
from acdis.tracking import default_uri, open_store
from acdis.tracking.models import log_model
from acdis.verbs import hand_on
from acdis.workflow import logged_models
from acdis.workflow.life import complete

pytestmark = pytest.mark.slow
PRINT = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def logged(make_cell, tmp_path_factory):
    """(home, cell, export, address of the model)."""
    base = tmp_path_factory.mktemp("served")
    cell = make_cell(base)
    path = cell.folder / "lineage.json"
    lineage = json.loads(path.read_text())
    lineage |= {"fingerprints": {"learnt": PRINT[::-1], "scored": PRINT}}
    lineage["splits"]["test"] = [f"case{number}" for number in range(8)]
    path.write_text(json.dumps(lineage))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACDIS_HOME", str(base))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(program, "write", lambda *_: 0.0)  # half a minute of its own, test_hand_on has it
        for number in (1, 2):
            hand_on.export(cell.name, base / f"out{number}", "MIT", True, "tumours")
        assert "MLFLOW_TRACKING_URI" not in os.environ, "what else this process logs would go to that store"
    client = open_store(default_uri(base))
    place = client.get_experiment_by_name("acdis").experiment_id
    last = max(client.search_logged_models([place]), key=lambda model: model.creation_timestamp)
    return base, cell, base / "out2", f"models:/{last.model_id}"


def test_it_has_scores_data_and_a_name(logged):
    base, cell, _, address = logged
    client = open_store(default_uri(base))
    model = client.get_logged_model(address.removeprefix("models:/"))
    assert (model.name, str(model.status)) == (cell.name, "READY")
    scores = {metric.key: metric for metric in model.metrics}
    # over eight cases: WT 0.8; TC 0.5, 0.55 … 0.85; ET 0.7 with T1ce (8 subsets), else 0.4 (7)
    assert scores["dice/WT/mean"].value == pytest.approx(0.8)
    assert scores["dice/TC/FLAIR"].value == pytest.approx(0.675)
    assert scores["dice/ET/mean"].value == pytest.approx((8 * 0.7 + 7 * 0.4) / 15)
    assert scores["dice/WT/mean"].dataset_digest == PRINT[:36]
    run = client.get_run(model.source_run_id)
    assert run.data.tags["acdis.cell"] == cell.name
    assert run.info.status == "FINISHED"
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.name == "testing"
    assert json.loads(given.dataset.profile) == {"cases": 8}
    assert "case3" not in given.dataset.source
    versions = {str(each.version) for each in client.search_model_versions("name = 'tumours'")}
    assert versions == {"1", "2"}


def test_what_mlflow_refuses_is_one_line(logged):
    base, cell, export, _ = logged
    uri = default_uri(base)
    before = os.environ.get("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match=f"^{uri}: MLflow does not take the model: .*name") as refused:
        log_model(uri, "acdis", cell.name, export, "acdis.prediction.served", ["numpy"], {}, None, "a/b")
    assert "\n" not in str(refused.value)
    assert os.environ.get("MLFLOW_TRACKING_URI") == before


def test_loaded_it_answers_paths_and_arrays(logged, patient, request):
    import mlflow
    import pandas

    base, cell, _, _ = logged
    request.addfinalizer(lambda: mlflow.set_tracking_uri(None))
    mlflow.set_tracking_uri(default_uri(base))
    model = mlflow.pyfunc.load_model("models:/tumours/2")
    two = {name: patient[name] for name in ("FLAIR", "T2")}
    due = [predict([open_model(cell, "cpu")], read(given)) for given in (two, {"T1": patient["T1"]})]
    assert len(np.unique(due[0].labels)) > 1
    table = pandas.DataFrame([{name: str(path) for name, path in two.items()}, {"T1": str(patient["T1"])}])
    found = model.predict(table)
    for mine, theirs in zip(found, due, strict=True):
        np.testing.assert_array_equal(mine["segmentation"], theirs.labels)
        for key in ("volumes_ml", "used", "expected_dice_percent"):
            assert mine[key] == theirs.report[key]
    images = {name: nibabel.load(path) for name, path in two.items()}
    arrays = {name: np.asarray(image.dataobj) for name, image in images.items()}
    (of_arrays,) = model.predict(arrays | {"affine": images["T2"].affine})
    np.testing.assert_array_equal(of_arrays["segmentation"], due[0].labels)
    assert of_arrays["volumes_ml"] == due[0].volumes_ml


def test_what_it_does_not_understand_is_one_line(logged):
    served = Served(logged[2])
    for given, words in (
        ({"PET": "x.nii"}, "'PET': is no modality"),
        ({"affine": np.eye(4)}, "no image given"),
        ({"T1": np.zeros((2, 2, 2)), "affine": np.eye(3)}, r"affine: has shape \(3, 3\)"),
        ({"T1": np.array([["a"]])}, "not of numbers"),
        (3, "a column per modality"),
    ):
        with pytest.raises(UserError, match=words):
            served.predict(given)


def test_a_server_answers(logged, patient, tmp_path, checkout):
    base, cell, _, address = logged
    (port,) = head.free_ports(1)
    line = [sys.executable, "-m", "mlflow", "models", "serve", "-m", address, "--env-manager", "local"]
    line += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    paths = [str(checkout / "platform"), os.environ.get("PYTHONPATH", "")]
    variables = os.environ | {
        "MLFLOW_TRACKING_URI": default_uri(base),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
    }
    log = tmp_path / "log"
    with log.open("wb") as said:
        server = subprocess.Popen(
            line, env=variables, stdout=said, stderr=said, start_new_session=True, cwd=tmp_path
        )
    try:
        deadline = time.monotonic() + 600
        while not _alive(port):
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        asked = {"dataframe_records": [{"T2": str(patient["T2"])}]}
        (answer,) = _ask(port, asked)["predictions"]
        due = predict([open_model(cell, "cpu")], read({"T2": patient["T2"]}))
        np.testing.assert_array_equal(answer["segmentation"], due.labels)
        assert answer["volumes_ml"] == due.volumes_ml
        image = nibabel.load(patient["T2"])
        asked = {"inputs": {"T2": np.asarray(image.dataobj).tolist(), "affine": image.affine.tolist()}}
        (answer,) = _ask(port, asked)["predictions"]
        np.testing.assert_array_equal(answer["segmentation"], due.labels)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _alive(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


def _ask(port, tree):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(tree).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()[-3000:]) from None


def test_a_cell_that_is_scored_becomes_a_model_once(make_cell, tmp_path, logged, monkeypatch):
    """With `tracking.log_model`; the second time it is there. What MLflow refuses costs a line, no cell."""
    monkeypatch.setattr(program, "write", lambda *_: 0.0)
    uri = default_uri(logged[0])
    tracking = {"tracking.uri": uri, "tracking.log_model": True, "tracking.register_as": "finished"}
    cell = make_cell(tmp_path, 3, tracking)
    experiment = cell.experiment()
    place = {"uri": uri, "experiment": "acdis"}
    job = Job(experiment, cell, Inputs((), (), ()), cell.evaluations / "none", place, tmp_path)
    said = []
    for _ in range(2):
        with cell.alone():
            complete(job, {}, pytest.fail, said.append)
    (line,) = (line for line in said if line.startswith("MLflow: models:/"))
    assert line.endswith(", finished version 1")
    client = open_store(uri)
    model = client.get_logged_model(line.split("models:/")[1].split(",")[0])
    assert (model.name, str(model.status)) == (cell.name, "READY")
    assert client.get_run(model.source_run_id).data.tags["acdis.cell"] == cell.name
    assert {metric.key: metric.value for metric in model.metrics}["dice/WT/mean"] == pytest.approx(0.8)
    assert not list(cell.folder.glob(".export-*"))
    (version,) = client.search_model_versions("name = 'finished'")
    assert version.source == f"models:/{model.model_id}"
    logged_models.export_and_log(cell, place | {"uri": "sqlite:////dev/null/mlflow.db"}, None, said.append)
    assert f"not logged as a model: `export {cell.name} DIR --log-model` does that later" in said[-1]


def test_a_registered_name_needs_a_model():
    for wrong in ({"register_as": "a"}, {"log_model": True, "register_as": "a/b"}):
        with pytest.raises(ValueError, match="register_as"):
            Tracking(**wrong)


@pytest.mark.parametrize(("convention", "words"), [(None, "(MONAI)"), ("pooled", "(medpy)")])
def test_a_model_card_names_the_convention_of_hd95(make_cell, tmp_path, convention, words):
    records = read_parquet(next(make_cell(tmp_path).evaluations.glob("*/records.parquet")))
    assert "HD95" not in logged_models.card_table(records)
    rows = [replace(row, hd95=3.0, hd95_convention=convention) for row in records]
    rows[0] = replace(rows[0], hd95=373.13)
    text = logged_models.card_table(rows)
    assert f"{words}: both masks empty counts 0" in text
    assert "penalties: WT 1, TC 0, ET 0 of 120 scores each." in text
