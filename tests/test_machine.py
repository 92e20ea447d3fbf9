"""What this machine gives, also where the system tells less."""

import os
import subprocess
import sys

from acdis import machine


def test_processors_are_those_of_the_affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert machine.processors() == 3


def test_processors_without_an_affinity(monkeypatch):
    """macOS has none."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert machine.processors() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.processors() == 1


#: Takes away what macOS lacks, then runs the command line.
_LIKE_MACOS = """
import os, sys
del os.sched_getaffinity
from pathlib import Path
from acdis import machine
machine._PROC = machine._CGROUPS = Path("/not/there")
machine.reset_peak()
assert machine.peak() > 2**20 and machine.free() > 2**20
from acdis.cli import main
sys.argv = ["acdis", *sys.argv[1:]]
main()
"""


def test_cases_are_drawn_checked_and_prepared_without_what_macos_lacks(tmp_path):
    def run(*words):
        done = subprocess.run(
            [sys.executable, "-c", _LIKE_MACOS, *words],
            env={**os.environ, "ACDIS_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    cases = str(tmp_path / "cases")
    run("data", "phantom", cases, "--cases", "2", "--shape", "24", "24", "24", "--spacing", "7")
    assert "0 with problems" in run("data", "check", cases)
    run("data", "prepare", cases)
    assert list((tmp_path / "home" / "cache").rglob("case.json"))
