"""Trainings on Ray: submitted as a job, killed and taken up again, spread over workers, scored again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from moto.server import ThreadedMotoServer
from ports import assert_on_loopback_alone, family, lists_jobs, token_of
from pyarrow import fs

from acdis.cluster import head
from acdis.evaluation.records import read_parquet
from acdis.tracking.runs import open_store

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

EPOCHS = 6
OTHER_VERSION = "99.0.0+uploaded"


@pytest.fixture(scope="module")
def undisturbed(
    ray_head: dict[str, Any],
    places: Callable[..., Any],
    checkout: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """A training by `ray job submit` of a checkout that differs from the installed package."""
    copy = tmp_path_factory.mktemp("copy") / "checkout"
    for name in ("platform", "experiments", "pyproject.toml"):
        source = checkout / name
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, copy / name, ignore=ignore) if source.is_dir() else shutil.copy(source, copy)
    (copy / "platform" / "acdis" / "version.py").write_text(f'__version__ = "{OTHER_VERSION}"\n')
    place = places(ray_head)
    variables = {"env_vars": {"ACDIS_HOME": str(place.base), "OMP_NUM_THREADS": "1"}}
    line = [
        *head.ray_command("job", "submit"),
        f"--address={ray_head['address']}",
        f"--working-dir={copy}",
        f"--runtime-env-json={json.dumps(variables)}",
        *("--", "python", "experiments/main.py", "train", str(place.experiment)),
    ]
    done = subprocess.run(
        line, env=head.environment(ray_head), capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    place.output = done.stdout
    return place


def test_the_uploaded_code_is_what_runs_on_the_workers(undisturbed: Any, checkout: Path) -> None:
    state = undisturbed.cell().state()
    assert state["version"] == OTHER_VERSION
    assert not Path(state["code"]).is_relative_to(checkout)


def test_a_submitted_training_ends_with_its_table_and_the_way_to_the_dashboard(undisturbed: Any) -> None:
    lines = [line for line in undisturbed.output.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 15 + 1
    assert "acdis dashboard" in undisturbed.output
    assert undisturbed.cell().state()["status"] == "done"
    assert not (undisturbed.cell().folder / "last.pt").exists()


def _runs(place: Any) -> list[Any]:
    client = open_store(f"sqlite:///{place.base}/mlflow.db")
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


def _steps(place: Any, run: Any, metric: str) -> list[int]:
    client = open_store(f"sqlite:///{place.base}/mlflow.db")
    return sorted(point.step for point in client.get_metric_history(run.info.run_id, metric))


def test_mlflow_has_one_run_with_everything_a_reader_needs(undisturbed: Any) -> None:
    (run,) = _runs(undisturbed)
    assert run.info.status == "FINISHED"
    assert _steps(undisturbed, run, "train/loss") == list(range(1, EPOCHS + 1))
    assert _steps(undisturbed, run, "validation/dice/mean") == [3, 6]
    assert {
        "dice/ET/FLAIR_T1ce",
        "dice/WT/mean",
        "hd95/TC/mean",
        "dice_et500/ET/mean",
    } <= run.data.metrics.keys()
    assert run.data.params["method.options.base_width"] == "4"
    assert run.data.tags["acdis.cell"] == undisturbed.cell().name
    assert float(run.data.tags["acdis.cpu_hours"]) >= 0
    client = open_store(f"sqlite:///{undisturbed.base}/mlflow.db")
    names = {
        each.path
        for folder in ("", "evaluation", "evaluation/qualitative", "training")
        for each in client.list_artifacts(run.info.run_id, folder)
    }
    assert {
        "config.yaml",
        "evaluation/records.parquet",
        "evaluation/subsets.md",
        "training/curves.png",
    } <= names
    (records,) = undisturbed.cell().evaluations.glob("*/records.parquet")
    cases = {record.case for record in read_parquet(records)}
    assert {f"evaluation/qualitative/{case}.png" for case in cases} <= names


@pytest.fixture
def mark() -> Iterator[str]:
    """A mark for the processes of one test; none of them outlives it."""
    value = uuid.uuid4().hex
    yield value
    for process in _marked(value):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _name(process: psutil.Process) -> str:
    """Empty where it has ended."""
    try:
        return process.name()
    except psutil.Error:
        return ""


def _marked(value: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ACDIS_TEST") == value:
                found += [process, *process.children(recursive=True)]
        except (psutil.Error, OSError):
            continue
    return found


def _kill_worker(state: dict[str, Any]) -> None:
    process = psutil.Process(state["pid"])
    assert "RayTrainWorker" in " ".join(process.cmdline())
    process.kill()


@pytest.mark.faults
def test_killed_worker_then_killed_driver_then_the_same_command_gives_the_same_bits(
    undisturbed: Any, places: Callable[..., Any], mark: str
) -> None:
    place = places(None)  # a Ray of its own, which must die with the driver
    place.variables["ACDIS_TEST"] = mark
    driver = place.start("train", str(place.experiment))
    with place.held(lambda state: state.get("done", 0) >= 1) as training:
        ports = assert_on_loopback_alone(family(driver.pid))
        token = token_of(driver.pid).read_text()
        assert not [port for port in ports if lists_jobs(port, token)]  # where nobody needs it, there is none
        _kill_worker(training)
    with place.held(lambda state: state.get("resumed_at", 0) >= 1 and state["done"] > state["resumed_at"]):
        started = _marked(mark)
        assert len(started) > 5
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    slow = [
        process for process in started if _name(process) in ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
    ]
    _, alive = psutil.wait_procs([each for each in started if each not in slow], timeout=300)
    assert not alive
    done = int(place.cell().state()["done"])
    assert 0 < done < EPOCHS

    again = place.run("train", str(place.experiment))

    assert again.returncode == 0, again.stdout + again.stderr
    assert place.cell().state()["resumed_at"] >= done
    assert place.cell().name == undisturbed.cell().name
    _equal_weights(place, undisturbed)
    history = place.cell().history()
    assert [entry["epoch"] for entry in history] == list(range(1, EPOCHS + 1))
    assert [entry["terms"] for entry in history] == [entry["terms"] for entry in undisturbed.cell().history()]
    (run,) = _runs(place)
    assert run.info.status == "FINISHED"
    assert _steps(place, run, "train/loss") == list(range(1, EPOCHS + 1))
    _, alive = psutil.wait_procs(slow, timeout=600)  # these two give up on a dead Ray after about a minute
    assert not alive


@pytest.fixture
def bucket() -> Iterator[dict[str, str]]:
    """An S3-compatible server of the test's own with one bucket, `cells`: the variables that lead to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/cells", method="PUT")).close()
    yield {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


def _objects(bucket: dict[str, str]) -> dict[str, int]:
    """Names below the bucket and their sizes."""
    store = fs.S3FileSystem(
        endpoint_override=bucket["AWS_ENDPOINT_URL"],
        access_key=bucket["AWS_ACCESS_KEY_ID"],
        secret_key=bucket["AWS_SECRET_ACCESS_KEY"],
        region=bucket["AWS_DEFAULT_REGION"],
    )
    found = store.get_file_info(fs.FileSelector("cells", recursive=True))
    return {each.path: each.size for each in found if each.type == fs.FileType.File}


@pytest.mark.faults
def test_a_machine_that_has_nothing_goes_on_from_an_object_store(
    undisturbed: Any, places: Callable[..., Any], mark: str, bucket: dict[str, str]
) -> None:
    lost, new = places(None), places(None)
    line = "scaling.storage=s3://cells/some/prefix"
    for place in (lost, new):
        place.variables |= bucket | {"ACDIS_TEST": mark}
    driver = lost.start("train", str(lost.experiment), line)
    with lost.held(lambda state: state.get("done", 0) >= 2):
        started = _marked(mark)
        for process in (driver, *started):
            with contextlib.suppress(psutil.NoSuchProcess):  # most die with the driver
                process.kill()
        driver.wait()
        psutil.wait_procs(started, timeout=300)
    done = lost.cell().state()["done"]
    assert 2 <= done < EPOCHS
    name = lost.cell().name
    shutil.rmtree(lost.base)
    assert f"cells/some/prefix/cells/{name}/last.pt" in _objects(bucket)

    again = new.run("train", str(new.experiment), line)

    assert again.returncode == 0, again.stdout + again.stderr
    assert new.cell().state()["resumed_at"] >= done - 1  # the last epoch may not have been sent
    _equal_weights(new, undisturbed)
    history = new.cell().history()
    assert [entry["epoch"] for entry in history] == list(range(1, EPOCHS + 1))
    assert [entry["terms"] for entry in history] == [entry["terms"] for entry in undisturbed.cell().history()]
    (run,) = _runs(new)  # filled from the journal, which came with the cell
    assert _steps(new, run, "train/loss") == list(range(1, EPOCHS + 1))
    left = _objects(bucket)
    assert left[f"cells/some/prefix/cells/{name}/weights.pt"] == new.cell().weights.stat().st_size
    assert not [path for path in left if path.endswith(("last.pt", "best.pt"))]
    assert any(path.endswith("/records.parquet") for path in left)


def test_a_store_that_is_not_there_is_one_line(
    ray_head: dict[str, Any], places: Callable[..., Any], bucket: dict[str, str]
) -> None:
    place = places(ray_head)
    place.variables |= bucket
    done = place.run("train", str(place.experiment), "scaling.storage=s3://no-such-bucket/prefix")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: scaling.storage: s3://no-such-bucket/prefix")


def _weights(place: Any) -> dict[str, torch.Tensor]:
    return torch.load(place.cell().weights, weights_only=True)


def _equal_weights(one: Any, other: Any) -> None:
    first, second = _weights(one), _weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_two_workers_train_what_one_does_within_rounding(
    undisturbed: Any, ray_head: dict[str, Any], places: Callable[..., Any]
) -> None:
    place = places(ray_head)
    driver = place.start("train", str(place.experiment), "scaling.workers=2")
    with place.held(lambda state: state.get("status") == "training"):
        ours = {process.pid for process in head.processes(ray_head["mark"])}
        assert_on_loopback_alone(ours | family(driver.pid))  # where the two have met is among them
    assert driver.wait(timeout=1100) == 0, (place.base / "log.txt").read_text()
    assert place.cell().state()["workers"] == 2
    assert place.cell().name == undisturbed.cell().name
    for ours, theirs in zip(place.cell().history(), undisturbed.cell().history(), strict=True):
        assert ours["terms"]["loss"] == pytest.approx(theirs["terms"]["loss"], rel=2e-3)
    first, second = _weights(place), _weights(undisturbed)
    for name, tensor in first.items():
        # Adam divides by the root of the squared gradient: rounding in a tiny gradient shows in a step's size
        assert torch.allclose(tensor.float(), second[name].float(), atol=5e-3), name


def test_a_finished_cell_is_shown_again_without_training(undisturbed: Any) -> None:
    before = undisturbed.cell().weights.stat().st_mtime_ns
    (run,) = _runs(undisturbed)
    done = undisturbed.run("train", str(undisturbed.experiment))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "already" in done.stdout
    assert "Ray" not in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("|")]) == 18
    assert undisturbed.cell().weights.stat().st_mtime_ns == before
    (after,) = _runs(undisturbed)
    assert (after.info.run_id, after.info.end_time) == (run.info.run_id, run.info.end_time)


def _evaluations(place: Any) -> dict[str, list[Any]]:
    folders = place.cell().evaluations.iterdir()
    return {folder.name: read_parquet(folder / "records.parquet") for folder in folders}


@pytest.mark.faults
def test_evaluating_right_after_a_killed_evaluation_gives_the_same_records(undisturbed: Any) -> None:
    """As evaluating again does without a kill."""
    before = _evaluations(undisturbed)
    words = ["evaluate", undisturbed.cell().name]
    with undisturbed.start(*words) as first:
        # One small case is scored between two looks of ours: its start lasts long enough to be hit.
        undisturbed.wait_for(lambda state: state.get("status") in ("starting", "scoring"))
        first.kill()
    done = undisturbed.run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert undisturbed.cell().state()["status"] == "done"
    assert _evaluations(undisturbed) == before
    assert len(_runs(undisturbed)) == 1


def test_evaluating_other_cases_leaves_the_run_alone(undisturbed: Any, cases: Path, tmp_path: Path) -> None:
    before = _evaluations(undisturbed)
    (run,) = _runs(undisturbed)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(cases, elsewhere)
    names = sorted(folder.name for folder in elsewhere.iterdir() if folder.is_dir())[:2]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(names) + "\n")
    words = ["--root", str(elsewhere), "--split", str(listed), "--with-trained", "evaluation.hd95=false"]

    done = undisturbed.run("evaluate", undisturbed.cell().name, *words)

    assert done.returncode == 0, done.stdout + done.stderr
    after = _evaluations(undisturbed)
    (new,) = after.keys() - before.keys()
    assert {record.case for record in after[new]} == set(names)
    assert all(record.hd95 is None for record in after[new])
    runs = {each.info.run_id: each for each in _runs(undisturbed)}
    assert runs.pop(run.info.run_id).data.metrics == run.data.metrics
    (other,) = runs.values()
    assert other.data.tags["acdis.evaluation_of"] == undisturbed.cell().name
    assert undisturbed.cell().state()["status"] == "done"


@pytest.mark.faults
def test_a_training_that_diverges_fails_once_with_the_reason(
    ray_head: dict[str, Any], places: Callable[..., Any]
) -> None:
    place = places(ray_head)
    done = place.run("train", str(place.experiment), "training.learning_rate=1e30")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("failed: the loss became")
    assert "case Phantom_0000" in done.stderr
    assert place.cell().state()["status"] == "failed"
    (run,) = _runs(place)
    assert run.info.status == "FAILED"


def test_wrong_input_found_by_a_worker_is_one_line_and_exit_code_2(
    ray_head: dict[str, Any], places: Callable[..., Any], undisturbed: Any
) -> None:
    place = places(ray_head)
    folder = place.base / "cells" / undisturbed.cell().name
    folder.mkdir(parents=True)
    (folder / "last.pt").write_bytes(b"half a checkpo")
    done = place.run("train", str(place.experiment), "scaling.workers=2")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert "last.pt" in done.stderr
