"""What killed runs leave in a home is swept by the next, and what belongs to living ones stays."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from acdis import files
from acdis.cluster import head, tune


def test_tunes_state_of_a_killed_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = f"ablation-{socket.gethostname()}"
    for name in (f"{ours}-1", f"{ours}-2", "ablation-elsewhere-3", "acdis-0123456789ab-4"):
        (tmp_path / "ray" / name / "inside").mkdir(parents=True)
        (tmp_path / "ray" / f"{name}.lock").touch()
    seen: list[str] = []

    class Tuner:
        errors = ()

        def fit(self) -> Any:
            return self

    def tuner(drive: Any, jobs: Any, at_once: int, storage: Path, name: str) -> Tuner:
        (storage / name).mkdir()
        seen.extend(sorted(path.name for path in storage.iterdir() if path.is_dir()))
        return Tuner()

    monkeypatch.setattr(tune, "_tuner", tuner)
    with files.locked(tmp_path / "ray" / f"{ours}-2.lock"):
        tune.run_all(print, [], 1, tmp_path, lambda: None)
    assert {"ablation-elsewhere-3", "acdis-0123456789ab-4", f"{ours}-2"} < set(seen)
    assert f"{ours}-1" not in seen
    left = {path.name for path in (tmp_path / "ray").iterdir() if path.name.startswith(ours)}
    assert left == {f"{ours}-2", f"{ours}-2.lock"}


def test_patches_of_jobs_that_died_with_their_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "acdis-1.patch").write_text("-old")
    monkeypatch.setattr(head, "_launch", lambda *_: None)
    monkeypatch.setattr(head, "_wait", lambda *_: None)
    state = head.start(tmp_path)
    try:
        assert not list((tmp_path / "head").glob("*.patch"))
        assert Path(state["token"]).stat().st_mode & 0o777 == 0o600
        moved = tmp_path / "moved"
        moved.mkdir()
        os.rename(tmp_path / "head", moved / "head")
        assert head._read_state(moved)["token"] == str(moved / "head" / "token")
    finally:
        head.stop(moved)
