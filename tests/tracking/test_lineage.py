"""Where a run says that it came from."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from acdis.tracking import lineage
from acdis.version import __version__


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    command = ("git", "-C", str(folder), *identity, *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "code").mkdir(parents=True)
    git(folder, "init", "--quiet")
    (folder / "code" / "a.py").write_text("a = 1\n")
    (folder / ".gitignore").write_text(".venv/\n")
    return folder


def test_commit_and_dirty_tree(tree: Path) -> None:
    unknown = {"acdis.git_commit": "unknown", "acdis.git_dirty": "unknown"}
    assert lineage.git_state(tree) == unknown  # no commit yet
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "-m", "first")
    commit = git(tree, "rev-parse", "HEAD")
    assert lineage.git_state(tree / "code") == {"acdis.git_commit": commit, "acdis.git_dirty": "false"}
    (tree / "new.py").write_text("")
    assert lineage.git_state(tree / "code")["acdis.git_dirty"] == "true"
    (tree / ".venv" / "acdis").mkdir(parents=True)
    assert lineage.git_state(tree / ".venv" / "acdis") == unknown


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert lineage.git_state(tmp_path)["acdis.git_commit"] == "unknown"
    assert lineage.git_state(tmp_path / "nowhere")["acdis.git_dirty"] == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lineage.git_state(tmp_path)["acdis.git_commit"] == "unknown"


@pytest.mark.parametrize(("dirty", "expected"), [("true", "true"), ("False", "false"), ("", "unknown")])
def test_what_the_submission_said_wins(monkeypatch: pytest.MonkeyPatch, dirty: str, expected: str) -> None:
    monkeypatch.setenv("ACDIS_GIT_COMMIT", "abc")
    monkeypatch.setenv("ACDIS_GIT_DIRTY", dirty)
    tags = lineage.lineage()
    assert (tags["acdis.git_commit"], tags["acdis.git_dirty"]) == ("abc", expected)


def test_versions_and_device() -> None:
    tags = lineage.lineage()
    assert tags["acdis.version.torch"] == metadata.version("torch")
    assert tags["acdis.version.ray"] == metadata.version("ray")
    assert tags["acdis.version.monai"] == metadata.version("monai")
    assert tags["acdis.version.python"] == platform.python_version()
    assert tags["acdis.version.acdis"] == __version__
    assert tags["acdis.device"]
    assert all(isinstance(value, str) for value in tags.values())


def test_device_names_gpus_or_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "_gpus", list)
    assert lineage.device().endswith(f", {len(os.sched_getaffinity(0))} threads")
    monkeypatch.setattr(lineage, "_gpus", lambda: ["X1", "X1", "Y"])
    assert lineage.device() == "2 × X1, 1 × Y"


def test_nothing_heavy_is_imported() -> None:
    modules = ", ".join(f"acdis.tracking.{name}" for name in ("runs", "journal", "lineage", "specs"))
    code = f"import sys, {modules}; print({{'mlflow', 'torch', 'ray', 'monai'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
