"""One cell, one MLflow run: told at once to the journal on disk, sent by a thread in the background.

MLflow is imported inside the functions that the thread calls: the import takes over a second.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acdis.tracking import check_uri, default_uri, experiment_id, open_store, public, store_lock, user_part
from acdis.tracking.journal import Entity, Journal, Operation, Sender, chunks, encode_values, next_batch

__all__ = ["RunTracker", "check_uri", "default_uri", "open_store"]

CELL_TAG = "acdis.cell"
STATUSES = ("FINISHED", "FAILED", "KILLED")

#: An artifact that fails this often while the server answers otherwise is left in the cell's folder only.
ARTIFACT_ATTEMPTS = 5
#: MLflow's own patience with a dead server is minutes per call; the journal does the waiting here.
#: What the user has set stays. No telemetry, no emoji lines between the progress display.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
log = logging.getLogger(__name__)


class RunTracker:
    """The MLflow run of one cell. Every `log_…` writes a line to disk and returns, whatever the server does.

    Opened again on the same folder, after a kill too, it goes on with the same run and sends what was left.
    With `running=False` it does not set the run's status to RUNNING: to send what was left, or to add
    scores to a run that has finished. Raises UserError for an unusable `uri`, OSError for a full disk.
    """

    def __init__(
        self, folder: Path, uri: str, experiment: str, cell: str, name: str, *, running: bool = True
    ) -> None:
        check_uri(uri)
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        self._journal = Journal(folder)
        self._epochs: set[int] = set()
        self._params: dict[str, str] = {}
        self._scores: dict[tuple[str, int], float | str] = {}
        for operation in self._journal.operations():
            self._learn(operation)
        if running:
            self._journal.append("status", status="RUNNING")
        self._remote = _Remote(self._journal, uri, experiment, cell, name)
        self._sender = Sender(self._journal, self._remote)
        self._sender.start()

    def log_params(self, params: Mapping[str, str]) -> None:
        """Settings of the run. MLflow lets none change: the first value stays, with a warning."""
        for key in params.keys() & self._params.keys():
            if str(params[key]) != self._params[key]:
                log.warning(
                    "param %s stays %s in MLflow; this start has %s", key, self._params[key], params[key]
                )
        new = {key: str(value) for key, value in params.items() if key not in self._params}
        self._tell("params", values=new)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Tags; a later value replaces an earlier one."""
        self._tell("tags", values={key: str(value) for key, value in tags.items()})

    def log_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Values at step `epoch`; ignored if the journal has that epoch, also from before a kill."""
        if epoch not in self._epochs:
            self._tell("epoch", step=int(epoch), values=encode_values(values))

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Final scores; NaN and inf are kept. A value that stands there already is not written again."""
        new = {k: v for k, v in encode_values(values).items() if self._scores.get((k, step)) != v}
        self._tell("metrics", step=int(step), values=new)

    def log_artifact(self, path: Path, destination: str = "") -> None:
        """A file of the cell's folder, into the run's folder `destination`; ValueError if outside."""
        relative = path.resolve().relative_to(self._journal.folder)
        self._tell("artifact", path=relative.as_posix(), destination=destination)

    def finish(self, status: str = "FINISHED") -> None:
        """FINISHED, FAILED or KILLED, with this moment as the run's end."""
        if status not in STATUSES:
            raise ValueError(f"status {status!r} is none of {', '.join(STATUSES)}")
        self._tell("status", status=status)

    def drain(self, timeout: float = 30.0) -> int:
        """Wait until everything is sent, at most `timeout` seconds; returns the number of unsent lines."""
        return self._sender.drain(timeout)

    def close(self, timeout: float = 30.0) -> int:
        """`drain`, then end the thread. What is unsent stays on disk for the next tracker on this folder."""
        left = self._sender.drain(timeout)
        self._sender.stop()
        if left:
            where = self._journal.path
            log.warning("tracking: %d lines were not sent; kept in %s, sent at the next start", left, where)
        return left

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the first contact."""
        return self._remote.run or self._journal.run

    @property
    def skipped(self) -> int:
        """How many values or files the server refused for good."""
        return self._journal.skipped

    def hint(self) -> str:
        """One line that says where the run can be looked at."""
        return self._remote.hint(self.run_id)

    def _tell(self, op: str, **content: Any) -> None:
        if content.get("values", True):
            self._journal.append(op, **content)
            self._learn({"op": op, **content})
            self._sender.wake()

    def _learn(self, operation: Operation) -> None:
        """Note what must not be told twice."""
        op = operation["op"]
        if op == "epoch":
            self._epochs.add(operation["step"])
        elif op == "params":
            self._params = {**operation["values"], **self._params}
        elif op == "metrics":
            self._scores.update({(k, operation["step"]): v for k, v in operation["values"].items()})


class _Remote:
    """The run on the server: found or made when there is something to send."""

    def __init__(self, journal: Journal, uri: str, experiment: str, cell: str, name: str) -> None:
        self._journal, self._uri, self._experiment = journal, uri, experiment
        self._cell, self._run_name = cell, name
        self._client: Any = None
        self._experiment_id: str | None = None
        self._artifact_failures = 0
        self._warned: set[str] = set()
        self.run: str | None = None
        self.address = public(uri)

    def send_some(self) -> None:
        """Send the journal's next lines and mark them; raises whatever keeps it from that."""
        if self.run is None:
            self._open_run()
        operations = self._journal.operations(self._journal.sent)
        lines, batch = next_batch(operations)
        try:
            skipped = sum(self._send_entities(chunk) for chunk in chunks(batch)) if lines else 0
            if not lines and operations:
                lines, skipped = 1, self._send_single(operations[0])
        except Exception as error:
            if _status(error) == 404:
                self.run = None  # deleted, or another store behind the same address
            raise
        self._journal.mark(lines, str(self.run), skipped)

    def hint(self, run: str | None) -> str:
        if self._uri.startswith("http"):
            place = f"{self.address.rstrip('/')}/#/experiments/{self._experiment_id or ''}"
            return f"{place}/runs/{run}" if run and self._experiment_id else self.address
        place = f"experiment {self._experiment}, run {self._run_name}"
        return f"mlflow server --backend-store-uri '{self.address}'   ({place})"

    def without_password(self, text: str) -> str:
        return text.replace(self._uri, self.address).replace(user_part(self._uri), "")

    def _open_run(self) -> None:
        """Find the cell's run by its tag, or make it. On another run than before everything is sent again."""
        self._client = self._client or open_store(self._uri)
        with store_lock(self._uri):
            self._experiment_id = experiment_id(self._client, self._uri, self._experiment)
            run = self._find_run() or self._new_run()
        if self._journal.run not in (None, run):
            self._journal.rewind()
        self.run = run

    def _find_run(self, but: str = "") -> str | None:
        """The run that has had this journal's lines, else the oldest of this cell."""
        wanted = f"tags.`{CELL_TAG}` = '{self._cell}'"
        found = self._client.search_runs(
            [self._experiment_id], wanted, order_by=["attributes.start_time ASC"]
        )
        runs = [run.info.run_id for run in found if run.info.run_id != but]
        return self._journal.run if self._journal.run in runs else next(iter(runs), None)

    def _new_run(self) -> str:
        """A run with the journal's first time as its start.

        On one host the lock keeps two processes from making it at once. On a server both may: who then sees
        another's run deletes the own, still empty one. If both delete, both look again after a random pause.
        """
        start = next(
            (operation["time"] for operation in self._journal.operations() if operation["time"]), None
        )
        tags = {CELL_TAG: self._cell}
        made = self._client.create_run(
            self._experiment_id, start_time=start, tags=tags, run_name=self._run_name
        )
        other = self._find_run(but=made.info.run_id)
        if other is not None:
            self._client.delete_run(made.info.run_id)
        return str(other or made.info.run_id)

    def _send_entities(self, batch: Sequence[Entity]) -> int:
        """Send one call's worth; what is refused is halved until the culprit is alone. Returns how many."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(e.key, e.value, e.time, e.step) for e in batch if e.kind == "metric"]
        params = [Param(e.key, e.value) for e in batch if e.kind == "param"]
        tags = [RunTag(e.key, e.value) for e in batch if e.kind == "tag"]
        try:
            self._client.log_batch(self.run, metrics=metrics, params=params, tags=tags)
        except Exception as error:
            self._unless_refused(error)
            if len(batch) == 1:
                return self._skip(f"{batch[0].kind} {batch[0].key!r}", error)
            middle = len(batch) // 2
            return self._send_entities(batch[:middle]) + self._send_entities(batch[middle:])
        return 0

    def _send_single(self, operation: Operation) -> int:
        if operation["op"] == "status":
            return self._send_status(operation)
        if operation["op"] == "artifact":
            return self._send_artifact(operation)
        return self._skip("a line that cannot be read", None)

    def _send_status(self, operation: Operation) -> int:
        status = operation["status"]
        try:
            if status in STATUSES:
                self._client.set_terminated(self.run, status=status, end_time=operation["time"])
            else:
                self._client.update_run(self.run, status=status)
        except Exception as error:
            self._unless_refused(error)
            return self._skip(f"status {status}", error)
        return 0

    def _send_artifact(self, operation: Operation) -> int:
        path = self._journal.folder / operation["path"]
        if not path.is_file():
            return self._skip(
                f"artifact {operation['path']}", FileNotFoundError("no longer in the cell's folder")
            )
        try:
            self._client.log_artifact(self.run, str(path), operation["destination"] or None)
        except Exception as error:
            self._client.get_run(self.run)  # raises if the server is away: then it is not this file's fault
            self._artifact_failures += 1
            if self._artifact_failures < ARTIFACT_ATTEMPTS:
                raise
            self._artifact_failures = 0
            return self._skip(f"artifact {operation['path']}", error)
        self._artifact_failures = 0
        return 0

    def _unless_refused(self, error: Exception) -> None:
        """Raise `error` again unless the server read the call and will never take it."""
        if _status(error) != 400:
            raise error
        if self._client.get_run(self.run).info.lifecycle_stage == "deleted":
            self.run = None
            raise error

    def _skip(self, what: str, error: Exception | None) -> int:
        if what not in self._warned:
            self._warned.add(what)
            reason = self.without_password(" ".join(str(error).split())[:300]) if error else "skipped"
            log.warning("tracking: %s is not taken by %s and is left out: %s", what, self.address, reason)
        return 1


def _status(error: Exception) -> int:
    """The HTTP status that an MLflow exception stands for; 0 for any other exception."""
    if "error code 413" in str(error):  # a proxy's limit on size; MLflow's class calls it an internal error
        return 400
    status = getattr(error, "get_http_status_code", None)
    return int(status()) if status else 0
