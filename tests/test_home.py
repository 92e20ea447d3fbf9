"""Where outputs go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from acdis import home
from acdis.errors import UserError


def test_by_default_runs_in_the_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ACDIS_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert home.home() == checkout / "runs"


def test_the_variable_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path / "new"))
    assert home.home() == tmp_path / "new"
    assert (tmp_path / "new").is_dir()


def test_a_relative_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACDIS_HOME", "runs")
    with pytest.raises(UserError, match="ACDIS_HOME: 'runs' is not an absolute path"):
        home.home()


def test_one_that_cannot_be_made_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match="cannot be created"):
        home.home()


def test_in_rays_upload_folder_it_must_be_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    upload = tmp_path / "session" / home.UPLOAD / "working_dir_files" / "_ray_pkg_0"
    upload.mkdir(parents=True)
    monkeypatch.chdir(upload)
    monkeypatch.delenv("ACDIS_HOME", raising=False)
    with pytest.raises(UserError, match="ACDIS_HOME: not set"):
        home.home()
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path))
    assert home.home() == tmp_path


def test_an_installed_package_takes_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "lib" / "python" / "site-packages" / "acdis" / "home.py"
    monkeypatch.setattr(home, "__file__", str(installed))
    monkeypatch.delenv("ACDIS_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert home.checkout() is None
    assert home.home() == tmp_path / "runs"


def test_paths_of_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CASES", str(tmp_path / "cases"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert home.expand("$CASES/a", "data.root") == tmp_path / "cases" / "a"
    assert home.expand("~/a", "data.root") == tmp_path / "a"
    assert home.expand("a", "data.root") == tmp_path / "a"
    monkeypatch.delenv("CASES")
    with pytest.raises(UserError, match=r"data\.root: the environment variable in '\$CASES/a' is not set"):
        home.expand("$CASES/a", "data.root")


def test_one_that_can_only_be_read_is_for_looking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert home.to_read() == tmp_path
    with pytest.raises(UserError, match=r"ACDIS_HOME: .* cannot be written to; set it to another folder"):
        home.home()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"ACDIS_HOME: .* cannot be"):
        home.to_read()
