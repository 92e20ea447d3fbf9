"""A job's lines, its exit code and its end, and what is not uploaded, with a stand-in for Ray's client."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import zipfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ServerDisconnectedError

from acdis.cluster import submit, upload
from acdis.cluster.session import interrupted_by_sigterm

JOB = "acdis-0123456789ab"
PREAMBLE = (
    "2026-01-01 00:00:00,000\tINFO job_manager.py:634 -- Runtime env is setting up.\n"
    f"Running entrypoint for job {JOB}: python experiments/main.py train x.yaml\n"
)
SAID = "one\n\n  two\nRunning entrypoint for job acdis-another: x\nthree\n"


class Client:
    """Passes a log on piece by piece; each sequence of pieces is a connection, and ends with it."""

    def __init__(
        self, *connections: Sequence[str | BaseException], whole: str = PREAMBLE + SAID, **info: Any
    ):
        self.connections, self.whole = list(connections), whole
        self.info = SimpleNamespace(**{"driver_exit_code": 0, "status": "SUCCEEDED", "message": ""} | info)
        self.stopped: list[str] = []
        self.submitted: list[dict[str, Any]] = []

    def submit_job(self, **settings: Any) -> None:
        self.submitted.append(settings)

    def get_job_status(self, job: str) -> Any:
        return SimpleNamespace(is_terminal=lambda: not self.connections)

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for piece in self.connections.pop(0):
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def get_job_logs(self, job: str) -> str:
        return self.whole

    def get_job_info(self, job: str) -> Any:
        return self.info

    def list_jobs(self) -> list[Any]:
        return []

    def stop_job(self, job: str) -> None:
        self.stopped.append(job)
        self.connections.clear()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "PAUSE", 0.0)


def _run(client: Client, monkeypatch: pytest.MonkeyPatch, patches: Path = Path("nowhere")) -> int:
    monkeypatch.setattr(submit, "client_of", lambda state: client)
    with interrupted_by_sigterm():
        return submit._run({}, JOB, ["python", "a b"], {}, patches)


def test_a_patch_goes_with_its_job_also_where_the_command_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> None:
    """One that is at work, or is just being submitted by another command, keeps its own."""
    folder = tmp_path / "head"
    folder.mkdir()
    for name in ("over", "running", "not yet known"):
        (folder / f"{name}.patch").touch()
    client = Client([LOG])
    states = {"over": True, "running": False}
    client.list_jobs = lambda: [
        SimpleNamespace(submission_id=name, status=SimpleNamespace(is_terminal=lambda ended=ended: ended))
        for name, ended in states.items()
    ]
    monkeypatch.setattr(submit, "client_of", lambda state: client)
    monkeypatch.setattr(submit, "start", lambda base: {})
    monkeypatch.setattr(submit.home, "checkout", lambda: checkout)
    assert submit.submit(tmp_path, ["python"]) == 0
    (settings,) = client.submitted
    assert Path(settings["runtime_env"]["env_vars"]["ACDIS_GIT_PATCH"]).parent == folder
    assert {path.stem for path in folder.iterdir()} == {"running", "not yet known"}


LOG = PREAMBLE + SAID
LOST = RuntimeError("WebSocket connection closed unexpectedly with close code 1006")


@pytest.mark.parametrize(
    "connections",
    [
        ([LOG],),
        ([],),  # nothing was passed on before the end
        (list(LOG),),  # character by character
        ([LOG[:90], LOG[90:-7]],),  # not to the end
        ([LOG[:-30], LOST], [LOG[:50], LOST], [LOG[:-20], LOG[-20:]]),  # broken twice
        ([ConnectionResetError()], [LOG[:100], ServerDisconnectedError()], [LOG]),
    ],
)
def test_only_the_job_is_heard_and_each_line_once(
    connections: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(*connections)
    assert _run(client, monkeypatch) == 0
    assert capsys.readouterr() == (SAID, "")
    ((settings),) = client.submitted
    assert (settings["entrypoint"], settings["submission_id"]) == ("python 'a b'", JOB)


def test_each_line_comes_as_soon_as_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    voice = submit.Voice(JOB)
    voice.read(PREAMBLE + "one\n")
    assert capsys.readouterr().out == "one\n"


def test_rays_own_lines_among_the_jobs_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    voice = submit.Voice(JOB)
    warning = "\x1b[33m(raylet)\x1b[0m WARNING: 8 PYTHON worker processes have been started\n"
    for end in range(len(PREAMBLE), len(PREAMBLE + "one\n" + warning + "two\nthree") + 1):
        voice.read((PREAMBLE + "one\n" + warning + "two\nthree")[:end])
    assert capsys.readouterr().out == "one\ntwo\n"
    voice.read(PREAMBLE + "one\n" + warning + "two\nthree", last=True)
    assert capsys.readouterr().out == "three"


@pytest.mark.parametrize(
    ("info", "code", "said"),
    [
        ({"driver_exit_code": 2, "status": "FAILED"}, 2, ""),
        ({"driver_exit_code": None, "status": "STOPPED"}, 1, "the job was stopped; the same command goes on"),
        (
            {"driver_exit_code": None, "status": "FAILED", "message": "no env"},
            1,
            "did not run the job: no env",
        ),
    ],
)
def test_the_jobs_end_is_ours(
    info: dict[str, Any],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run(Client([LOG], **info), monkeypatch) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_exactly_this_job(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client()

    async def tail(job: str) -> AsyncIterator[str]:
        yield PREAMBLE
        os.kill(os.getpid(), number)
        await asyncio.sleep(60)

    monkeypatch.setattr(client, "tail_job_logs", tail)
    client.connections.append([])
    before = signal.getsignal(signal.SIGTERM)
    assert _run(client, monkeypatch) == 1
    assert client.stopped == [JOB]
    assert "stopped; the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("error", [ConnectionError("Failed to connect"), ValueError("exceeds 500 MiB")])
def test_a_submission_that_ray_refuses_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client()

    def refuse(**_: Any) -> None:
        raise error

    monkeypatch.setattr(client, "submit_job", refuse)
    assert _run(client, monkeypatch) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("failed: Ray did not run the job")
    assert str(error) in line


def _write(root: Path, name: str, size: int = 1) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b"x" * size)


@pytest.fixture
def messy(tmp_path: Path, checkout: Path) -> Path:
    """A checkout as people have them."""
    root = tmp_path / "checkout"
    for name in (
        *("experiments/main.py", "platform/acdis/cli.py", "docs/a.md", ".git/config"),
        *("env/pyvenv.cfg", "env/bin/python", "env/lib/python3.11/site-packages/torch/big.py"),
        *("conda env [1]/conda-meta/history", "conda env [1]/bin/python", "results/mlflow.db"),
        *("results/cells/acdis-1/config.yaml", "data/case/case_t1.nii.gz", "data/case/case_seg.nii"),
        *("data/list.txt", "weights.pt", "bundle.zip", ".venv/pyvenv.cfg", ".venv/bin/python"),
    ):
        _write(root, name)
    _write(root, "notes/scan!", upload.LARGE + 1)
    (tmp_path / "elsewhere").mkdir()
    _write(tmp_path, "elsewhere/patient.txt")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "broken").symlink_to(tmp_path / "nowhere")
    for name in (".rayignore", ".gitignore"):
        (root / name).write_text((checkout / name).read_text())
    return root


def test_environments_outputs_data_and_what_is_large_are_left_out(messy: Path, tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    found = upload.left_out(messy)
    package = tmp_path / "package.zip"
    excluded = [upload.pattern(path.relative_to(messy)) for path in found] + [".git"]  # as Ray itself does
    create_package(str(messy), package, include_gitignore=True, excludes=excluded)
    with zipfile.ZipFile(package) as packed:
        files = {name for name in packed.namelist() if not name.endswith("/")}
    assert files == {
        *("experiments/main.py", "platform/acdis/cli.py", "docs/a.md", "data/list.txt"),
        *(".gitignore", ".rayignore"),
    }


def test_without_our_command_what_a_name_can_tell_is_left_out(messy: Path, tmp_path: Path) -> None:
    """`ray job submit --working-dir .` reads `.rayignore`."""
    from ray._private.runtime_env.packaging import create_package

    (messy / "broken").unlink()  # on which Ray alone ends
    package = tmp_path / "package.zip"
    create_package(str(messy), package, include_gitignore=True, excludes=[".git"])
    with zipfile.ZipFile(package) as packed:
        names = packed.namelist()
    assert not [name for name in names if name.endswith((".nii", ".nii.gz", ".pt", ".zip", ".db", "big.py"))]


def test_nothing_that_the_checkout_tracks_is_left_out(checkout: Path, tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "-C", str(checkout), "ls-files", "-ci", "--exclude-from=.rayignore"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("no git checkout")
    assert listed.stdout == ""
    tracked = upload.left_out(checkout)
    assert not [path for path in tracked if path.is_relative_to(checkout / "platform")]


def test_what_nobody_expects_to_be_left_out_is_said(messy: Path) -> None:
    subprocess.run(["git", "init", "-q", str(messy)], check=True)
    lines = set(upload.described(messy, upload.left_out(messy)))
    assert lines == {
        "not uploaded: env (a virtual environment)",
        "not uploaded: conda env [1] (a conda environment)",
        "not uploaded: results (outputs of an ACDIS_HOME)",
        "not uploaded: notes/scan! (10 MB)",
        "not uploaded: linked (a link)",
        "not uploaded: broken (cannot be read)",
    }


def test_of_thousands_ten_are_named(tmp_path: Path) -> None:
    found = {tmp_path / f"{number}.mgz": "12 MB" for number in range(3000)}
    lines = list(upload.described(tmp_path, found))
    assert len(lines) == 11
    assert lines[0] == "not uploaded: 0.mgz (12 MB)"
    assert lines[-1] == "not uploaded: 2,990 more"
