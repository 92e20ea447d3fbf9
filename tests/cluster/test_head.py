"""Our own Ray head: found again, ended exactly; jobs on it speak for themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from ports import assert_on_loopback_alone

from acdis.cells import read_json
from acdis.cluster import head
from acdis.files import write_json
from acdis.planning import resources

pytestmark = [pytest.mark.ray, pytest.mark.slow]


#: As the verb `submit` does, for any command.
SUBMIT = "import sys; from acdis import home; from acdis.cluster.submit import submit; "
SUBMIT += "sys.exit(submit(home.home(), sys.argv[1:]))"


def _submit(state: dict[str, Any], checkout: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SUBMIT, *command],
        env=os.environ | {"ACDIS_HOME": str(state["base"])},
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_it_is_found_again_and_listens_on_loopback_alone(ray_head: dict[str, Any]) -> None:
    assert head.start(ray_head["base"])["mark"] == ray_head["mark"]
    ours = {process.pid for process in head.processes(ray_head["mark"])}
    assert_on_loopback_alone(ours)


def test_nobody_else_gets_into_its_folder(ray_head: dict[str, Any]) -> None:
    """Code that workers import lies there, and Ray makes its own part of it writable for everybody."""
    folder = Path(ray_head["temporary"])
    assert folder.stat().st_mode & 0o077 == 0
    assert list(folder.glob("r/session_*/runtime_resources"))


def test_nobody_is_let_in_without_the_token(ray_head: dict[str, Any]) -> None:
    for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
        request = urllib.request.Request(ray_head["address"] + "/api/jobs/", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=120)
        assert refused.value.code in (401, 403)


def test_a_second_head_is_stopped_and_the_first_lives_on(ray_head: dict[str, Any], tmp_path: Path) -> None:
    """What a dead one left behind does not matter."""
    folder = tmp_path / "head"
    write_json(
        folder / "head.json",
        {
            "mark": "of a head before the machine was started again",
            "address": f"http://127.0.0.1:{head.free_ports(1)[0]}",
            "temporary": str(tmp_path / "gone"),
            "token": str(folder / "token"),
        },
    )
    assert head.running(tmp_path) == {}
    state = head.start(tmp_path)
    try:
        assert state["mark"] != ray_head["mark"]
        assert head.running(tmp_path)["mark"] == state["mark"] == read_json(folder / "head.json")["mark"]
        assert head.start(tmp_path)["mark"] == state["mark"]
        theirs = head.processes(state["mark"])
        assert head.stop(tmp_path) > 5
        assert not any(process.is_running() for process in theirs)
        assert head.processes(state["mark"]) == []
    finally:
        head.stop(tmp_path)
    assert not Path(state["temporary"]).exists()
    assert head.running(tmp_path) == {}
    assert head.stop(tmp_path) == 0
    assert head.running(ray_head["base"])["mark"] == ray_head["mark"]


def _a_job_that_is_over(state: dict[str, Any]) -> str:
    name = "acdis-of-a-killed-command"
    line = [*head.ray_command("job", "submit"), f"--address={state['address']}"]
    line += [f"--submission-id={name}", "--", "true"]
    subprocess.run(line, env=head.environment(state), capture_output=True, timeout=600, check=True)
    return name


def test_the_job_speaks_for_itself_and_its_exit_code_comes_through(
    ray_head: dict[str, Any], checkout: Path
) -> None:
    left = ray_head["base"] / "head" / f"{_a_job_that_is_over(ray_head)}.patch"
    left.touch()
    line = [sys.executable, "experiments/main.py", "submit", "train", "experiments/nothing.yaml"]
    variables = os.environ | {"ACDIS_HOME": str(ray_head["base"])}
    done = subprocess.run(
        line, env=variables, cwd=checkout, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr == ""
    assert not list((ray_head["base"] / "head").glob("*.patch"))
    ray, job, *said, end = [line for line in done.stdout.splitlines() if line.strip()]
    assert ray.startswith("Ray: ")
    assert job.startswith("job acdis-")
    assert [line for line in said if not line.startswith("not uploaded: ")] == [
        "error: experiments/nothing.yaml: cannot be read (No such file or directory); give the path of an "
        "experiment file"
    ]
    assert end == "Ray goes on in the background; `down` ends it"
    _no_token(ray_head, done.stdout)


def _no_token(state: dict[str, Any], text: str) -> None:
    """Neither in what was said, nor in any log, nor in any command line."""
    token = Path(state["token"]).read_text()
    assert len(token) == 64
    assert Path(state["token"]).stat().st_mode & 0o077 == 0
    assert token not in text
    assert not any(token in " ".join(head._command(process)) for process in psutil.process_iter())
    logs = [Path(state["base"]) / "head" / "head.log", *Path(state["temporary"]).rglob("*.*")]
    assert not [file for file in logs if file.is_file() and token.encode() in file.read_bytes()]


def test_a_job_that_cannot_know_where_outputs_go_says_so(ray_head: dict[str, Any], checkout: Path) -> None:
    line = [
        *head.ray_command("job", "submit"),
        f"--address={ray_head['address']}",
        f"--working-dir={checkout}",
        *("--", "python", "experiments/main.py", "reproduce"),
    ]
    variables = {key: value for key, value in head.environment(ray_head).items() if key != "ACDIS_HOME"}
    done = subprocess.run(line, env=variables, capture_output=True, text=True, timeout=600, check=False)
    assert "error: ACDIS_HOME: not set" in done.stdout
    assert "exit code 2" in done.stdout
    assert done.returncode == 1  # Ray's command line knows no other


def _jobs(state: dict[str, Any]) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {Path(state['token']).read_text()}"}
    asked = urllib.request.Request(state["address"] + "/api/jobs/", headers=headers)
    with urllib.request.urlopen(asked, timeout=120) as answer:
        return list(json.load(answer))


def test_ctrl_c_stops_exactly_this_job(ray_head: dict[str, Any], checkout: Path) -> None:
    sleep = "import time; print('up', flush=True); time.sleep(900)"
    stays = _submit(ray_head, checkout, "python", "-c", sleep)
    ended = _submit(ray_head, checkout, "python", "-c", sleep)
    try:
        for process in (stays, ended):
            while (line := process.stdout.readline()) != "up\n":
                assert line, process.stderr.read()
        ended.send_signal(signal.SIGINT)
        _, err = ended.communicate(timeout=300)
        assert ended.returncode == 1
        assert "stopped; the same command goes on" in err
        jobs = _jobs(ray_head)
        status = [job["status"] for job in jobs if "sleep(900)" in job["entrypoint"]]
        assert sorted(status) == ["RUNNING", "STOPPED"]
    finally:
        for process in (stays, ended):
            process.send_signal(signal.SIGINT)
            process.wait(timeout=300)


WORKER = """
import json
from acdis.cluster import session
from acdis.config import Scaling
from acdis.errors import UserError
from acdis.planning.placement import share
with session.connected():
    import ray

    @ray.remote(num_cpus=0)
    def look():
        import platform, sys, acdis
        return [platform.__file__, platform.system(), getattr(acdis, "__file__", ""), sys.path[:3]]

    try:
        share(session.nodes(print), Scaling(workers=3, cpus_per_worker=1000))
        said = ""
    except UserError as error:
        said = str(error)
    print(json.dumps([ray.get(look.remote()), said]))
"""


def test_platform_is_the_standard_library_on_a_worker_too(ray_head: dict[str, Any], checkout: Path) -> None:
    assert not (checkout / "platform" / "__init__.py").exists()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    variables = kept | head.environment(ray_head) | head.LOOPBACK | {"RAY_ADDRESS": ray_head["gcs"]}
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        env=variables,
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (file, system, package, _), said = json.loads(done.stdout.splitlines()[-1])
    assert Path(file).parent == Path(os.__file__).parent
    assert system == os.uname().sysname
    assert not Path(package).is_relative_to(checkout)
    assert "3 workers of 1000 CPUs and 0 GPUs each do not fit" in said


def test_half_a_state_file_is_no_head(tmp_path: Path) -> None:
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "head.json").write_text('{"mark": "ab')
    assert head.running(tmp_path) == {}
    assert head.stop(tmp_path) == 0


def test_a_real_head_says_the_same_both_ways(ray_head: dict[str, Any]) -> None:
    """Over HTTP as this home's own head, and by a child process as the cluster that RAY_ADDRESS names."""
    own = resources.available(head.running(ray_head["base"]), {})
    assert own.source == "this home's Ray head"
    environment = head.environment(ray_head) | {"RAY_ADDRESS": ray_head["gcs"]} | head.LOOPBACK
    asked = resources.available(head.running(ray_head["base"]), environment)
    assert own.nodes == asked.nodes
    assert own.nodes[0]["CPU"] >= 1
