"""A CUDA device that is not there, for child processes; skipped where it cannot be built."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
Ask = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that says that there is a device."""
    if platform.system() != "Linux" or torch.version.cuda:
        pytest.skip("pretends a GPU to a CPU build of torch on Linux; this is another")
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ on this machine: apt-get install g++")
    library, base = tmp_path_factory.mktemp("hooks") / "hooks.so", Path(torch.__file__).parent
    include = base / "include"
    words = [compiler, "-w", "-std=c++20", "-O1", "-shared", "-fPIC", f"-I{include}"]
    words += [f"-I{include / 'torch/csrc/api/include'}", str(HERE / "hooks.cpp"), "-o", str(library)]
    words += [f"-L{base / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{base / 'lib'}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the pretended device cannot be built: {done.stderr.splitlines()[0][:200]}")
    return library


@pytest.fixture(scope="session")
def ask(hooks: Path) -> Ask:
    """Runs jobs in one child process; the census of each, see `child.py`."""

    def answers(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        environment = os.environ | {"LD_PRELOAD": str(hooks), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
        words = [sys.executable, str(HERE / "child.py"), json.dumps(jobs)]
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, done.stdout + done.stderr
        marked = (line for line in done.stdout.splitlines() if line.startswith("CENSUS "))
        return [json.loads(line.removeprefix("CENSUS ")) for line in marked]

    return answers
