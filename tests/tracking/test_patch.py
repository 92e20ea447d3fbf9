"""What was changed since the commit, as a reviewer would apply it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from acdis import __version__
from acdis.tracking.patch import LONGEST, changes, code


def _git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def _repository(folder: Path) -> Path:
    _git(folder, "init", "-q")
    (folder / "file.txt").write_text("one\n")
    _git(folder, "add", ".")
    _git(folder, "commit", "-qm", "first")
    return folder


def test_a_change_and_an_untracked_file(tmp_path: Path) -> None:
    folder = _repository(tmp_path)
    assert changes(folder) == ""
    (folder / "file.txt").write_text("two\n")
    (folder / "new.txt").write_text("")
    found = changes(folder)
    assert "-one\n+two\n" in found
    assert "# untracked: new.txt\n" in found
    (tmp_path / "changes.patch").write_text(found)
    _git(folder, "checkout", "-q", "file.txt")
    _git(folder, "apply", "changes.patch")
    assert (folder / "file.txt").read_text() == "two\n"


def test_no_git_and_too_much(tmp_path: Path) -> None:
    assert changes(tmp_path).startswith("# no git here")
    folder = _repository(tmp_path)
    (folder / "file.txt").write_text("x" * (LONGEST + 10))
    assert "more than are kept" in changes(folder)


def test_versions_and_commit() -> None:
    found = code()
    facts = json.loads(found["commit.json"])
    assert facts["versions"]["acdis"] == __version__
    assert set(facts) == {"commit", "dirty", "versions"}
