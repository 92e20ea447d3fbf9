"""What a Ray of our own starts from: a token for its owner alone, a short folder, where workers meet."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from acdis import files
from acdis.cluster import head, rendezvous, session, temporary, token
from acdis.errors import UserError


def _rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = token.own(tmp_path / "head")
    content = file.read_text()
    assert (_rights(file), _rights(file.parent)) == (0o600, 0o700)
    assert len(content) == 64
    file.chmod(0o644)
    assert token.own(tmp_path / "head").read_text() == content
    assert _rights(file) == 0o600
    assert os.listdir(file.parent) == ["token"]


def test_two_that_make_the_token_at_once_have_one(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def make() -> str:
        start.wait()
        return token.own(tmp_path).read_text()

    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(make) for _ in range(8)]
        assert len({each.result() for each in made}) == 1


def test_a_file_system_without_rights_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token.own(tmp_path).chmod(0o644)
    monkeypatch.setattr(Path, "chmod", lambda self, mode: None)
    with pytest.raises(UserError, match=r"token: others can read it.*RAY_AUTH_TOKEN_PATH"):
        token.own(tmp_path)


@pytest.mark.parametrize(
    "given", [{"RAY_AUTH_TOKEN": "of the user's"}, {"RAY_AUTH_TOKEN_PATH": "/of/the/users"}]
)
def test_a_token_of_the_users_stays(tmp_path: Path, given: dict[str, str]) -> None:
    environment = dict(given)
    with token.settled(environment, tmp_path):
        assert environment == given | {"RAY_AUTH_MODE": "token"}
    assert environment == given | {"RAY_AUTH_MODE": "token"}
    assert not any(tmp_path.iterdir())


def test_rays_one_after_the_other_have_the_token_that_ray_remembers(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    read = []
    for name in ("first", "second"):
        with token.settled(environment, tmp_path / name):
            file = Path(environment["RAY_AUTH_TOKEN_PATH"])
            assert file.parent == tmp_path / name
            assert _rights(file) == 0o600
            read.append(file.read_text())
    assert read[0] == read[1]
    assert len(read[0]) == 64
    assert environment == {"RAY_AUTH_MODE": "token"}


def test_rays_own_file_is_put_right_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("made by ray.init()")
    file.chmod(0o644)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    session._close_token()
    assert _rights(file) == 0o600
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line
    session._close_token()
    assert not capsys.readouterr().err


@pytest.mark.parametrize("nested", [False, True])
def test_what_ray_is_started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool) -> None:
    """On loopback, with our token in a closed folder; a Jobs API only where trials are driven by others."""
    known = tmp_path / ".ray" / "auth_token"
    known.parent.mkdir()
    known.write_text("made by ray.init()")
    known.chmod(0o644)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", *head.LOOPBACK):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    seen: dict[str, Any] = {}

    def init(**settings: Any) -> None:
        file = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        seen.update(settings, mode=os.environ["RAY_AUTH_MODE"], rights=(_rights(file), _rights(file.parent)))
        seen["loopback"] = {name: os.environ.get(name) for name in head.LOOPBACK}
        assert Path(settings["_temp_dir"]).parent == file.parent

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: None))
    with session.connected(nested):
        assert seen["include_dashboard"] == nested
    assert (seen["address"], seen["mode"], seen["rights"]) == ("local", "token", (0o600, 0o700))
    assert seen["loopback"] == head.LOOPBACK
    assert _rights(known) == 0o600
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


#: As Slurm sites set it: ../shared/cases/long_tmpdir.sh.
LONG = "people/researcher/slurm_jobdir/1355700/tmp.t0016/scratch/of/this/job"


def test_a_long_tmpdir_is_no_place_for_sockets(tmp_path: Path) -> None:
    long = tmp_path / LONG
    long.mkdir(parents=True)
    for variable in ("TMPDIR", "RAY_TMPDIR"):
        made = temporary.made("acdis-test-", {variable: str(long)})
        try:
            assert made.parent == Path("/tmp")
            deepest = made / temporary.RAY / temporary.BELOW.lstrip("/")
            assert len(os.fsencode(deepest)) <= temporary.MOST
            with socket.socket(socket.AF_UNIX) as server:
                deepest.parent.mkdir(parents=True)
                server.bind(str(deepest))
        finally:
            temporary.remove(made)
    short = tempfile.mkdtemp(dir="/tmp", prefix="a")
    try:
        made = temporary.made("acdis-test-", {"TMPDIR": short})
        assert made.parent == Path(short)
        assert _rights(made) == 0o700
    finally:
        temporary.remove(Path(short))


def test_no_short_folder_is_one_line_that_names_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/tmp")
    with pytest.raises(UserError, match=r"TMPDIR: .*LONG.* RAY_TMPDIR".replace("LONG", LONG)):
        temporary.made("acdis-test-", {"TMPDIR": str(tmp_path / LONG)})


def test_what_killed_runs_left_is_removed_and_what_others_use_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = Path(tempfile.mkdtemp(dir="/tmp", prefix="a"))
    monkeypatch.setenv("RAY_TMPDIR", str(parent))
    try:
        left, used = (parent / f"{temporary.OWN}{name}" for name in ("left", "used"))
        for each in (left, used):
            (each / temporary.RAY).mkdir(parents=True)
        (left / "lock").touch()
        with (used / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with temporary.folder() as own:
                assert sorted(os.listdir(parent)) == sorted([used.name, own.parent.name])
                assert (_rights(own.parent), own.name) == (0o700, temporary.RAY)
            with pytest.raises(RuntimeError), temporary.folder() as failed:
                raise RuntimeError
        assert sorted(os.listdir(parent)) == sorted([used.name, failed.parent.name])
    finally:
        temporary.remove(parent)


def test_what_an_ending_process_writes_is_removed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's dashboard does, while its folder is being removed."""
    parent = Path(tempfile.mkdtemp(dir="/tmp", prefix="a"))
    monkeypatch.setenv("RAY_TMPDIR", str(parent))
    real = temporary.remove

    def remove(folder: Path) -> None:
        real(folder)
        if folder.name == temporary.RAY:
            (folder / "session").mkdir(parents=True)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(temporary, "remove", remove)
            with temporary.folder() as first:
                first.mkdir()
        assert first.exists()
        with temporary.folder() as second:
            assert os.listdir(parent) == [second.parent.name]
        assert os.listdir(parent) == []
    finally:
        temporary.remove(parent)


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, as root alone may")
def test_folders_of_other_users_are_none_of_ours() -> None:
    parent = Path(tempfile.mkdtemp(dir="/tmp", prefix="a"))
    try:
        parent.chmod(0o777)
        theirs = parent / f"{temporary.OWN}theirs"
        theirs.mkdir(0o700)
        (theirs / "lock").touch()
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                os.setuid(65534)
                files.sweep_folders(parent.glob(f"{temporary.OWN}*"), temporary.LOCK)
                code = 0
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert theirs.exists()
    finally:
        temporary.remove(parent)


class Workers:
    """Stands for Ray's: calls come one after the other in this process."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, []

    def __len__(self) -> int:
        return self.count

    def execute_single(self, rank: int, what: Any, *words: Any) -> Any:
        self.asked.append((rank, what, words))
        return "the place"

    execute_single_async = execute_single


def test_one_worker_has_no_store_and_several_meet_where_the_first_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendezvous, "ray", SimpleNamespace(get=lambda asked: asked))
    settings = rendezvous.Rendezvous(backend="gloo", timeout_s=7)
    backend = settings.backend_cls()
    alone, three = Workers(1), Workers(3)
    backend.on_start(alone, settings)
    backend.on_start(three, settings)
    assert alone.asked == []
    assert three.asked[0] == (0, rendezvous.listen, ())
    common = ("gloo", "the place", 3, timedelta(seconds=7))
    assert three.asked[1:] == [(rank, rendezvous.join, (rank, *common)) for rank in range(3)]


def test_the_store_listens_on_the_nodes_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "127.0.0.3"
    util = SimpleNamespace(get_node_ip_address=lambda: address)
    monkeypatch.setattr(rendezvous, "ray", SimpleNamespace(util=util))
    place = rendezvous.listen()
    assert place.address == address
    with socket.socket(fileno=place.listener) as server:
        assert server.getsockname() == (address, place.port)
    assert rendezvous.interface_of(address) == rendezvous.interface_of("127.0.0.1") in ("lo", "lo0")
    assert rendezvous.interface_of("192.0.2.1") is None


def test_a_ray_that_does_not_start_in_time_is_one_line() -> None:
    """What Ray raises then is a bare Exception; any other is a bug and keeps its traceback."""

    def fails(said: str) -> Any:
        def init(**_: Any) -> None:
            raise Exception(said)

        return SimpleNamespace(init=init)

    slow = "The current node timed out during startup. This could happen because some of the raylet failed"
    with pytest.raises(UserError, match="Ray did not start within its 30 s: this machine is busy"):
        session._initialise(fails(slow), "local")
    with pytest.raises(Exception, match="something else"):
        session._initialise(fails("something else"), "local")
