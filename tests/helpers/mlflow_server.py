"""A real `mlflow server` of the tests' own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from acdis.cluster import head
from acdis.tracking import default_uri, open_store


class MLflowServer:
    """One process group on a SQLite store in `folder`, which outlives it: killed, it may be started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (self.port,) = head.free_ports(1)
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        open_store(default_uri(folder))

    def start(self) -> None:
        """Returns when it answers."""
        line = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        line += ["--port", str(self.port), "--backend-store-uri", default_uri(self.folder)]
        line += ["--artifacts-destination", str(self.folder / "artifacts")]
        variables = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
        log = self.folder / "server.log"
        with log.open("ab") as said:
            self.process = subprocess.Popen(
                line, env=variables, stdout=said, stderr=said, start_new_session=True, cwd=self.folder
            )
        deadline = time.monotonic() + 600
        while not self.answers():
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            assert self.process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=60) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
