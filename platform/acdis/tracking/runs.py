"""One cell, one MLflow run: told at once to the journal on disk, sent by a thread in the background."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acdis import extras
from acdis.tracking import check_uri, default_uri, open_store
from acdis.tracking.journal import Journal, Operation, encode_values
from acdis.tracking.remote import CELL_TAG, STATUSES, Remote
from acdis.tracking.sender import Sender

__all__ = ["RunTracker", "check_uri", "default_uri", "open_store"]

log = logging.getLogger(__name__)


class RunTracker:
    """The MLflow run of one cell. Every `log_…` writes a line to disk and returns, whatever the server does.

    With another `tag` than the cell's it is the run of what bears that tag: of a spec, say.

    Opened again on the same folder, after a kill too, it goes on with the same run and sends what was left.
    With `running=False` it does not set the run's status to RUNNING: to send what was left, or to add
    scores to a run that has finished. Where MLflow is not installed nothing is sent: the journal waits.
    Raises UserError for an unusable `uri`, OSError for a full disk.
    """

    def __init__(
        self,
        folder: Path,
        uri: str,
        experiment: str,
        cell: str,
        name: str,
        *,
        running: bool = True,
        tag: str = CELL_TAG,
    ) -> None:
        check_uri(uri)
        self._journal = Journal(folder)
        self._epochs: set[int] = set()
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._data: set[tuple[str, str]] = set()
        self._parent = ""
        self._status = ""
        self._scores: dict[tuple[str, int], float | str] = {}
        for operation in self._journal.operations():
            self._learn(operation)
        if running:
            self._journal.append("status", status="RUNNING")
            self._status = "RUNNING"
        self._remote = Remote(self._journal, uri, experiment, (tag, cell), name)
        self._sender = Sender(self._journal, self._remote)
        self._sends = extras.installed("tracking")
        if self._sends:
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

    def log_roles(self, roles: Sequence[Mapping[str, Any]]) -> None:
        """Rows of specs that the cell serves, as `Cell.roles` gives them: tags, and the first one's parent.

        The parent run is found or made by its spec's name when this is sent. Told again it writes nothing.
        """
        if not roles:
            return
        if not self._parent:
            self._tell("parent", spec=str(roles[0]["spec"]))
        tags = role_tags(roles)
        if any(self._tags.get(key) != value for key, value in tags.items()):
            self.log_tags(tags)

    def log_data(self, name: str, digest: str, cases: int) -> None:
        """A data set of the run, `training` or `testing`, by its fingerprint; once."""
        if (name, digest) not in self._data:
            self._tell("data", name=name, digest=digest, cases=cases)

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
        if not self._sends:
            return left
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
    def status(self) -> str:
        """The last one that was told; empty before the first."""
        return self._status

    @property
    def skipped(self) -> int:
        """How many values or files the server refused for good."""
        return self._journal.skipped

    def page(self, run: str) -> str:
        """Where the dashboard shows `run`, relative to its address; empty before the first contact."""
        return self._remote.page(run)

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
        elif op == "tags":
            self._tags.update(operation["values"])
        elif op == "data":
            self._data.add((str(operation.get("name")), str(operation.get("digest"))))
        elif op == "parent":
            self._parent = operation["spec"]
        elif op == "status":
            self._status = operation["status"]
        elif op == "metrics":
            self._scores.update({(k, operation["step"]): v for k, v in operation["values"].items()})


def role_tags(roles: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """`row`, `seed` and `table` of the first role, and `acdis.roles`, all of them as spec/row/seed."""
    first = {key: str(roles[0][key]) for key in ("row", "seed", "table")}
    every = (f"{role['spec']}/{role['row']}/{role['seed']}" for role in roles)
    return first | {"acdis.roles": ", ".join(every)}
