"""Ray's own lines around those of a job."""

from __future__ import annotations

import pytest

from acdis.cluster.submit import job_lines, rest


def _ray(message: str, file: str = "cli.py", level: str = "INFO") -> str:
    """A line as Ray 2.60 writes it where its output is not a terminal."""
    return f"2026-01-01 00:00:00,000\t{level} {file}:66 -- \x1b[32m{message}\x1b[39m\n"


RULE = "-" * 34
PREAMBLE = [
    _ray("Job submission server address: http://127.0.0.1:8265"),
    _ray("Creating a file package for local module '.'.", "packaging.py"),
    _ray(RULE, level="SUCC"),
    _ray("Job 'acdis-1' submitted successfully", level="SUCC"),
    _ray("Next steps"),
    "\n",
    _ray("Tailing logs until the job exits (disable with --no-wait):"),
]
PROLOGUE = [
    _ray("Runtime env is setting up.", "job_manager.py"),
    "Running entrypoint for job acdis-1: python experiments/main.py\n",
]


def _filtered(*lines: str) -> tuple[str, list[str]]:
    before: list[str] = []
    return "".join(job_lines([*PREAMBLE, *PROLOGUE, *lines], before)), before


@pytest.mark.parametrize("word", ["succeeded", "failed"])
def test_only_the_job_is_heard(word: str) -> None:
    last = [
        _ray("WebSocket closed for job acdis-1 with close code 1000", "sdk.py"),
        _ray(RULE, level="ERR"),
        _ray(f"Job 'acdis-1' {word}", level="ERR"),
        _ray(RULE, level="ERR"),
        _ray("Status message: exit code 1, last available logs:"),
        "one\n",
    ]
    said, before = _filtered("one\n", f"{RULE}\n", "two\n", *last)
    assert said == f"one\n{RULE}\ntwo\n"
    assert before == PREAMBLE


def test_each_line_comes_as_soon_as_it_is_there() -> None:
    source = iter([*PREAMBLE, *PROLOGUE, "one\n"])
    assert next(job_lines(source, [])) == "one\n"


def test_a_submission_that_fails_is_kept_whole() -> None:
    before: list[str] = []
    assert list(job_lines(["ConnectionError: no\n", "such host\n"], before)) == []
    assert before == ["ConnectionError: no\n", "such host\n"]


def test_what_ray_did_not_pass_on_is_found_in_the_log() -> None:
    assert rest("", "all of it\n") == "all of it\n"
    assert rest("", "".join(PROLOGUE) + "all of it\n") == "all of it\n"
    assert rest("one\ntwo\n", "one\ntwo\nthree\n") == "three\n"
    assert rest("one\n\n", "one\ntwo\n") == "two\n"
    assert rest("one\ntwo\n", "one\ntwo\n").strip() == ""
    assert rest("one\n", "another\n") == ""
    assert rest("one\n", "") == ""
