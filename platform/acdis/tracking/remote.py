"""A run on the tracking server: found by its tag or made, and filled from a journal.

MLflow is imported inside the functions: the import takes over a second.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from acdis.tracking import experiment_id, open_store, public, store_lock, user_part
from acdis.tracking.inputs import Data
from acdis.tracking.journal import Entity, Journal, Operation, chunks, next_batch

#: Which tag says whose run it is: a cell's, or a spec's, the parent of its cells' runs.
CELL_TAG, SPEC_TAG = "acdis.cell", "acdis.spec"
PARENT_TAG = "mlflow.parentRunId"
STATUSES = ("FINISHED", "FAILED", "KILLED")

#: An artifact that fails this often while the server answers otherwise is left in the cell's folder only.
ARTIFACT_ATTEMPTS = 5

Mark = tuple[str, str]
log = logging.getLogger(__name__)


class Remote:
    """The run on the server: found or made when there is something to send.

    Args:
        mark: tag and value by which the run is found.
        name: that people see.
    """

    def __init__(self, journal: Journal, uri: str, experiment: str, mark: Mark, name: str) -> None:
        self._journal, self._uri, self._experiment = journal, uri, experiment
        self._mark, self._run_name = mark, name
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
            page = self.page(run) if run else ""
            return f"{self.address.rstrip('/')}/{page}" if page else self.address
        place = f"experiment {self._experiment}, run {self._run_name}"
        return f"mlflow server --backend-store-uri '{self.address}'   ({place})"

    def page(self, run: str) -> str:
        """Where the dashboard shows `run`, relative to its address; empty before the first contact."""
        return f"#/experiments/{self._experiment_id}/runs/{run}" if self._experiment_id else ""

    def without_password(self, text: str) -> str:
        return text.replace(self._uri, self.address).replace(user_part(self._uri), "")

    def _open_run(self) -> None:
        """Find the run by its tag, or make it. On another run than before everything is sent again."""
        self._client = self._client or open_store(self._uri)
        before = self._journal.run
        with store_lock(self._uri):
            self._experiment_id = experiment_id(self._client, self._uri, self._experiment)
            times = (operation["time"] for operation in self._journal.operations() if operation["time"])
            run = found_or_made(
                self._client, self._experiment_id, self._mark, self._run_name, next(times, None), before
            )
        if before not in (None, run):
            self._adopt(str(before), run)
            self._journal.rewind()
        self.run = run

    def _adopt(self, before: str, run: str) -> None:
        """Children of a run that is gone become those of the one in its place."""
        for child in self._client.search_runs([self._experiment_id], f"tags.`{PARENT_TAG}` = '{before}'"):
            self._client.set_tag(child.info.run_id, PARENT_TAG, run)

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
        if operation["op"] == "parent":
            return self._send_parent(operation)
        if operation["op"] == "data":
            return self._send_data(operation)
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

    def _send_parent(self, operation: Operation) -> int:
        """Make this run a child of the spec's run, which is made if this is the first to ask for it."""
        spec = str(operation["spec"])
        with store_lock(self._uri):
            parent = found_or_made(
                self._client, self._experiment_id, (SPEC_TAG, spec), spec, operation["time"]
            )
        self._client.set_tag(self.run, PARENT_TAG, parent)
        return 0

    def _send_data(self, operation: Operation) -> int:
        """An input of the run; one that it has already stays one."""
        try:
            data = Data(str(operation["name"]), str(operation["digest"]), int(operation["cases"]))
        except (LookupError, TypeError, ValueError):
            return self._skip("a line that cannot be read", None)
        try:
            self._client.log_inputs(self.run, [data.entity()])
        except Exception as error:
            self._unless_refused(error)
            return self._skip(f"data {data.name}", error)
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


def found_or_made(
    client: Any, experiment: str | None, mark: Mark, name: str, start: int | None, before: str | None = None
) -> str:
    """Id of the run that bears the mark: `before` if it does, else the oldest, else a new one.

    On one host the store's lock keeps two processes from making it at once. On a server both may: who then
    sees another's run deletes the own, still empty one. If both delete, both look again after a random pause.

    Args:
        start: of a new run, ms since 1970; none: now.
    """
    marked_runs = marked(client, experiment, mark)
    if marked_runs:
        return before if before in marked_runs else marked_runs[0]
    made = client.create_run(experiment, start_time=start, tags=dict([mark]), run_name=name).info.run_id
    others = [run for run in marked(client, experiment, mark) if run != made]
    if others:
        client.delete_run(made)
    return str(others[0] if others else made)


def marked(client: Any, experiment: str | None, mark: Mark) -> list[str]:
    """Ids of the runs that bear the mark, the oldest first."""
    key, value = mark
    quote = '"' if "'" in value else "'"
    runs = client.search_runs(
        [experiment], f"tags.`{key}` = {quote}{value}{quote}", order_by=["attributes.start_time ASC"]
    )
    return [run.info.run_id for run in runs]


def _status(error: Exception) -> int:
    """The HTTP status that an MLflow exception stands for; 0 for any other exception."""
    if "error code 413" in str(error):  # a proxy's limit on size; MLflow's class calls it an internal error
        return 400
    status = getattr(error, "get_http_status_code", None)
    return int(status()) if status else 0
