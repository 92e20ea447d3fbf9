"""The command line: verbs, exit codes, and errors of one line."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from acdis import __version__, cli
from acdis.errors import UserError


def _main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["acdis", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["train", "--help"], 0),
        (["data", "prepare", "-h"], 0),
        (["trian", "x.yaml"], 2),
        (["train"], 2),
        (["train", "--nothing"], 2),
        (["data", "phantom", "out", "--cases", "0"], 2),
        (["train", "nothing.yaml"], 2),
        (["evaluate", "nothing"], 2),
        (["data", "check", "nothing"], 2),
        (["ablate"], 2),
        (["ablate", "nothing.yaml"], 2),
        (["ablate", "nothing.yaml", "--seeds", "0,0"], 2),
        (["ablate", "nothing.yaml", "--seeds", "one"], 2),
        (["ablate", "nothing.yaml", "--rows", "a,,b"], 2),
        (["ablate", "nothing.yaml", "--max-concurrent", "0"], 2),
        (["submit"], 2),
        (["submit", "--help"], 0),
        (["up", "--help"], 0),
        (["down"], 0),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
) -> None:
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert _main(monkeypatch, *words) == code
    assert "Traceback" not in capsys.readouterr().err


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == __version__


def test_help_shows_the_verbs_that_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _main(monkeypatch, "--help")
    said = capsys.readouterr().out
    assert all(verb in said for verb in ("train", "evaluate", "data", "ablate", "report", "reproduce"))


def _verbs() -> list[str]:
    """All commands and groups by their words, the whole command among them as none."""
    found, left = [], [("", typer.main.get_command(cli.app))]
    while left:
        words, command = left.pop()
        found.append(words)
        left += [(f"{words} {name}".strip(), each) for name, each in getattr(command, "commands", {}).items()]
    return sorted(found)


@pytest.mark.parametrize("verb", _verbs())
def test_every_help_ends_with_examples_that_are_understood(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert _main(monkeypatch, *verb.split(), "--help") == 0
    said = capsys.readouterr().out.partition("Examples:")[2]
    lines = [line.split() for line in said.splitlines() if line.strip()]
    assert lines
    root = Path(cli.__file__).parents[2]
    for line in lines:
        assert line[:2] == ["python", "experiments/main.py"]
        words = line[2:]
        assert " ".join(words).startswith(verb.removesuffix(" tables"))
        for word in words:
            if word.endswith(".yaml"):
                assert (root / word).exists(), word
        ran: list[Any] = []
        monkeypatch.setattr(cli, "_run", lambda verb, *rest, ran=ran: ran.append(verb))
        assert _main(monkeypatch, *words) == 0, line
        assert len(ran) == 1, line


def test_the_help_of_report_names_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _main(monkeypatch, "report", "--help")
    assert "report figures --help" in capsys.readouterr().out


def _raising(error: BaseException) -> Any:
    def verb(*_: Any) -> None:
        raise error

    return verb


def test_what_a_verb_raises_becomes_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import acdis.verbs.train
    from acdis.cluster.train import TrainingFailed

    for error, code, said in (
        (UserError("seed: no"), 2, "error: seed: no\n"),
        (TrainingFailed("the loss became NaN"), 1, "failed: the loss became NaN\n"),
        (KeyboardInterrupt(), 1, "stopped; the same command goes on where it stopped\n"),
    ):
        monkeypatch.setattr(acdis.verbs.train, "train", _raising(error))
        assert _main(monkeypatch, "train", "x.yaml") == code
        assert capsys.readouterr().err == said


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import acdis.verbs.train

    monkeypatch.setattr(acdis.verbs.train, "train", _raising(RuntimeError("a bug")))
    monkeypatch.setattr(sys, "argv", ["acdis", "train", "x.yaml"])
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()


def test_without_a_verb_three_lines_say_what_there_is_and_nothing_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import acdis.verbs.reproduce

    asked: list[Any] = []
    monkeypatch.setattr(acdis.verbs.reproduce, "reproduce", lambda *words: asked.append(words))
    assert _main(monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert asked == []
    named = {name for line in lines for name in line.split("`")[1::2]}
    assert {name.split()[0] for name in named} == {"reproduce", "train", "ablate", "submit"}
    assert _main(monkeypatch, "reproduce", "seed=1", "--seeds", "0,2", "--max-concurrent", "3") == 0
    assert asked == [(None, ["seed=1"], [0, 2], 3)]


def test_what_is_submitted_is_the_verb_with_all_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import acdis.verbs.head

    asked: list[list[str]] = []

    def submit(base: Path, command: list[str]) -> int:
        asked.append(command)
        return 7

    monkeypatch.setenv("ACDIS_HOME", str(tmp_path))
    monkeypatch.setattr(acdis.verbs.head, "submit_job", submit)
    words = ["ablate", "ablations/table2.yaml", "--seeds", "0,1", "-h", "a.b=c d"]
    assert _main(monkeypatch, "submit", *words) == 7
    assert asked == [["python", "experiments/main.py", *words]]


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import acdis.verbs.train

    full = OSError(errno.ENOSPC, "No space left on device", "/somewhere/state.json")
    monkeypatch.setattr(acdis.verbs.train, "train", _raising(full))
    assert _main(monkeypatch, "train", "x.yaml") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: /somewhere/state.json: cannot be written (No space left on device); free space"


def test_main_takes_the_checkouts_package_whatever_is_installed(checkout: Path, tmp_path: Path) -> None:
    fake = tmp_path / "acdis"
    fake.mkdir()
    (fake / "__init__.py").write_text("raise ImportError('the installed one')")
    script = checkout / "experiments" / "main.py"
    done = subprocess.run(
        [sys.executable, str(script), "--version"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, __version__), done.stderr


def test_help_and_errors_import_nothing_heavy() -> None:
    code = (
        "import sys; from acdis import cli\n"
        "sys.argv = ['acdis', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'monai', 'ray', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_checkouts_environment_is_found_by_a_python_that_lacks_it(checkout: Path, tmp_path: Path) -> None:
    """README's commands work as they are printed after `make demo`; without `.venv` one line helps."""
    (tmp_path / "experiments").mkdir()
    script = tmp_path / "experiments" / "main.py"
    script.write_bytes((checkout / "experiments" / "main.py").read_bytes())
    bare = [sys.executable, "-I", "-S", str(script), "--version"]
    done = subprocess.run(bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "`make install`" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "found: $@"\n')
    python.chmod(0o755)
    done = subprocess.run(bare, capture_output=True, text=True, check=True)
    assert done.stdout == f"found: {script} --version\n"
