"""The journal: whole lines only, whatever kills the writer; and how lines become calls."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from acdis.files import UnwritableError
from acdis.tracking.journal import (
    JOURNAL,
    SENT,
    Journal,
    chunks,
    encode_values,
    entities,
    epochs_of,
    next_batch,
    waiting,
)
from acdis.tracking.orphans import held

WRITER = """
import sys
from pathlib import Path
from acdis.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]))
known = {line["step"] for line in journal.operations()}
for step in range(10**9):
    if step not in known:
        journal.append("epoch", step=step, values={f"loss/{i}": step / (i + 1) for i in range(30)})
"""


def test_lines_come_back_in_order_with_rising_times(tmp_path: Path) -> None:
    journal, began = Journal(tmp_path / "cell"), time.time()
    for step in range(50):
        journal.append("epoch", step=step, values={"loss": 1.0})
    lines = [json.loads(line) for line in (tmp_path / "cell" / JOURNAL).read_text().splitlines()]
    assert lines == Journal(tmp_path / "cell").operations() == journal.operations()
    times = [line["time"] for line in lines]
    assert times == sorted(set(times))
    assert began - 0.001 <= times[0] / 1000 <= time.time()


@pytest.mark.parametrize(
    "torn", ["{", '{"op": "epoch", "time": 17', '{"op": "tags", "time": 1, "values": {}}']
)
def test_a_torn_last_line_is_dropped_and_the_next_stands_alone(tmp_path: Path, torn: str) -> None:
    Journal(tmp_path).append("tags", values={"a": "ä"})
    with (tmp_path / JOURNAL).open("a") as file:
        file.write(torn)
    journal = Journal(tmp_path)
    journal.append("tags", values={"b": "2"})
    assert [line["values"] for line in journal.operations()] == [{"a": "ä"}, {"b": "2"}]
    assert [line["values"] for line in Journal(tmp_path).operations()] == [{"a": "ä"}, {"b": "2"}]


def test_killed_while_writing_again_and_again(tmp_path: Path) -> None:
    for _ in range(3):
        before = len((tmp_path / JOURNAL).read_bytes()) if (tmp_path / JOURNAL).exists() else 0
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if (tmp_path / JOURNAL).exists() and (tmp_path / JOURNAL).stat().st_size > before + 30_000:
                break
            time.sleep(0.005)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    steps = [line["step"] for line in Journal(tmp_path).operations()]
    assert steps == list(range(len(steps)))
    assert len(steps) > 90


def test_a_line_that_cannot_be_read_still_counts(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('nonsense\n{"op": "tags", "time": 5, "values": 3}\n[1]\n')
    journal = Journal(tmp_path)
    journal.append("tags", values={"a": "1"})
    assert [line["op"] for line in journal.operations()] == ["unreadable"] * 3 + ["tags"]


def test_marks_survive_and_never_point_behind_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in range(4):
        journal.append("epoch", step=step, values={"loss": 1.0})
    journal.mark(3, "run", skipped=1)
    again = Journal(tmp_path)
    assert (again.sent, again.run, again.skipped, again.unsent()) == (3, "run", 1, 1)
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join(lines[:2]))  # what a power cut can do
    assert Journal(tmp_path).sent == 2
    (tmp_path / SENT).write_text("")
    assert Journal(tmp_path).sent == 0


def test_a_second_writer_is_seen(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.append("tags", values={"a": "1"})
    second.append("tags", values={"b": "2"})
    assert len(first.operations()) == len(second.operations()) == 2


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.append("tags", values={"a": "1"})
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:10]))
    with pytest.raises(OSError, match="No space left"):
        journal.append("tags", values={"b": "2"})
    monkeypatch.undo()
    journal.append("tags", values={"c": "3"})
    assert [line["values"] for line in Journal(tmp_path).operations()] == [{"a": "1"}, {"c": "3"}]


def test_numbers_that_json_does_not_know() -> None:
    encoded = json.loads(
        json.dumps(encode_values({"a": math.nan, "b": -math.inf, "c": 0.1}), allow_nan=False)
    )
    points = entities({"op": "metrics", "time": 1, "step": 2, "values": encoded})
    assert math.isnan(points[0].value)
    assert [point.value for point in points[1:]] == [-math.inf, 0.1]


def test_batches_and_chunks_keep_to_the_limits() -> None:
    params = {"op": "params", "time": 1, "values": {f"p{i}": "v" for i in range(250)}}
    tags = {"op": "tags", "time": 2, "values": {"t": "old"}}
    newer = {"op": "tags", "time": 3, "values": {"t": "new"}}
    metrics = {"op": "metrics", "time": 4, "step": 0, "values": {f"m{i}": i for i in range(2500)}}
    status = {"op": "status", "time": 5, "status": "FINISHED"}
    lines, batch = next_batch([params, tags, newer, metrics, status])
    assert lines == 3  # the metrics would make it more than one call can hold
    assert [entity.value for entity in batch if entity.kind == "tag"] == ["new"]
    sizes = [len(chunk) for chunk in chunks(batch)]
    assert sizes == [100, 100, 51]
    lines, batch = next_batch([metrics, status])
    assert (lines, [len(chunk) for chunk in chunks(batch)]) == (1, [1000, 1000, 500])
    assert next_batch([status]) == (0, [])


def test_long_values_are_cut_with_an_ellipsis() -> None:
    (param,) = entities({"op": "params", "time": 1, "values": {"p": "x" * 7000}})
    (tag,) = entities({"op": "tags", "time": 1, "values": {"t": "x" * 8000}})
    assert (len(param.value), param.value[-2:]) == (6000, "x…")
    assert tag.value == "x" * 8000


def test_a_line_of_millions_of_values_is_none_of_ours(tmp_path: Path) -> None:
    """It counts as a line, so that what was sent stays sent, and nothing of it is made."""
    journal = Journal(tmp_path)
    journal.append("tags", values={"a": "b"})
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op": "epoch", "time": 1, "step": 1, "values": [' + b"{}," * 500_000 + b"{}]}\n")
    assert [line["op"] for line in journal.operations()] == ["tags", "unreadable"]
    assert epochs_of(tmp_path) == {}
    assert waiting(tmp_path) == 2


def test_a_line_is_on_the_disk_when_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, synced = Journal(tmp_path), []

    def sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", sync)
    for step in (1, 2):
        journal.append("epoch", step=step, values={})
        assert synced[-1] == journal.path.stat().st_size


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError, match=r"tracking\.jsonl: cannot be written \(Not a directory\)"):
        Journal(tmp_path / "file" / "cell")
    (tmp_path / "spec" / "lock").mkdir(parents=True)
    with pytest.raises(UnwritableError, match=r"lock: cannot be written \(Is a directory\)"):
        held(tmp_path / "spec")
