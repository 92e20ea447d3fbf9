"""Checkpoints: whole or not there, and nothing in them is executed."""

import errno
import os
import pickle
import resource
import signal
from collections import OrderedDict

import numpy as np
import pytest
import torch

from acdis import files
from acdis.errors import UserError
from acdis.training import checkpoint

STATE = {
    "method": OrderedDict(weight=torch.arange(6.0).reshape(2, 3)),
    "history": '[{"epoch": 1}]',
    "best": {"dice": 0.5},
}


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint.save(tmp_path / "a.pt", STATE)
    state = checkpoint.load(tmp_path / "a.pt")
    assert torch.equal(state["method"]["weight"], STATE["method"]["weight"])
    assert (state["history"], state["best"]) == (STATE["history"], STATE["best"])
    assert torch.load(tmp_path / "a.pt", weights_only=True).keys() == STATE.keys()


class Stopped(BaseException):
    """As Ctrl-C: not an Exception."""


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space left"), Stopped()])
@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch, error, where):
    checkpoint.save(tmp_path / "a.pt", {"value": 1})
    original = torch.save

    def fail(*_):
        raise error

    def write_half(state, stream):
        original(state, stream)
        stream.truncate(100)
        raise error

    places = {"write": "torch.save", "fsync": "os.fsync", "replace": "os.replace"}
    monkeypatch.setattr(places[where], write_half if where == "write" else fail)
    with pytest.raises(type(error)):
        checkpoint.save(tmp_path / "a.pt", {"value": 2})
    assert checkpoint.load(tmp_path / "a.pt") == {"value": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_a_disk_that_takes_half_of_it_is_one_line(tmp_path):
    """Torch says "unexpected pos 704 vs 598" then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for most in (1, 1000, 500_000, 1_000_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
            with pytest.raises(files.UnwritableError, match=r"a\.pt: cannot be written \(File too large\)"):
                checkpoint.save(tmp_path / "a.pt", {"a": torch.zeros(200_000), "b": torch.zeros(200_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, usual)
    assert list(tmp_path.iterdir()) == []


class Runs:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, write):
    write({"method": Runs(tmp_path / "it ran")}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt: not a readable checkpoint"):
        checkpoint.load(tmp_path / "a.pt")
    assert not (tmp_path / "it ran").exists()


def test_truncated_files_are_refused(tmp_path):
    checkpoint.save(tmp_path / "a.pt", STATE)
    whole = (tmp_path / "a.pt").read_bytes()
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        (tmp_path / "a.pt").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"a\.pt: not a readable checkpoint .*delete it"):
            checkpoint.load(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_noise_is_refused(tmp_path):
    """Also noise that begins as a pickle does."""
    generator = np.random.default_rng(0)
    for number in range(300):
        noise = generator.bytes(int(generator.integers(1, 200)))
        (tmp_path / "a.pt").write_bytes((b"\x80\x02" if number % 2 else b"") + noise)
        with pytest.raises(UserError):
            checkpoint.load(tmp_path / "a.pt")


def test_other_content_and_missing_files_are_refused(tmp_path):
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(UserError, match="not a checkpoint of this platform"):
        checkpoint.load(tmp_path / "a.pt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        checkpoint.load(tmp_path / "b.pt")
