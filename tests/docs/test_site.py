"""The site of the documentation, without mkdocs: its pages, where links lead, what is made from code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from acdis.config import Experiment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "site" / "hook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _nav(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    for below in tree if isinstance(tree, list) else tree.values() if isinstance(tree, dict) else ():
        yield from _nav(below)


def test_every_page_is_in_the_navigation_once(hook: ModuleType) -> None:
    """A new page of docs/ wants a line in mkdocs.yml: tutorial, how-to, reference or explanation."""
    told = list(_nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    made = {*hook.PAGES.values(), *hook.MODULES, "reference/command-line.md", "reference/experiment.md"}
    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert sorted(told) == sorted(pages | made | notebooks)


@pytest.mark.parametrize(
    ("written", "source", "page", "becomes"),
    [
        ("[a](docs/data.md#x)", "README.md", "index.md", "[a](data.md#x)"),
        ("![a](docs/figures/figure1.png)", "README.md", "index.md", "![a](figures/figure1.png)"),
        ("[a](CONTRIBUTING.md)", "README.md", "index.md", "[a](contributing.md)"),
        ("[a](../benchmarks/README.md)", "docs/data.md", "data.md", "[a](benchmarks.md)"),
        ("[a](../experiments/phantom.yaml)", "docs/data.md", "data.md", "a"),
        ("[a](../data.md)", "docs/notebooks/first-cell.md", "notebooks/first-cell.md", "[a](../data.md)"),
        ("[a](notebooks/first-cell.ipynb)", "docs/python.md", "python.md", "[a](notebooks/first-cell.md)"),
        ("[a](docs/)", "README.md", "index.md", "a"),
        ("[a](https://ray.io) [b](#c)", "README.md", "index.md", "[a](https://ray.io) [b](#c)"),
        ("[a](../nowhere.py)", "docs/data.md", "data.md", "[a](../nowhere.py)"),
    ],
)
def test_links_of_the_checkout_become_the_sites(
    hook: ModuleType, written: str, source: str, page: str, becomes: str
) -> None:
    assert hook.relinked(written, source, page) == becomes


def test_every_command_with_its_options_is_described(hook: ModuleType) -> None:
    said = hook.command_line()
    source = (ROOT / "platform" / "acdis" / "cli.py").read_text()
    commands = re.findall(
        r'@(?:(data|report)_)?app\.command\(\s*(?:"(\w+)")?.*?\)\ndef (\w+)\(', source, re.S
    )
    assert len(commands) > 15
    for room, given, function in commands:
        name = given or function.removeprefix(f"{room}_")
        assert re.search(rf"^## acdis {f'{room} ' if room else ''}{name}$", said, re.M), name
    options = set(re.findall(r'"(--[a-z0-9-]+)"', source)) - {"--version", "--help"}
    assert options - set(re.findall(r"`(--[a-z0-9-]+)`", said)) == set()


def test_every_key_of_an_experiment_is_described(hook: ModuleType) -> None:
    said = hook.experiment()
    for part in Experiment.model_fields:
        assert f"`{part}" in said
    for key in ("data.phantoms.cases", "data.split.train", "training.learning_rate", "scaling.min_workers"):
        assert f"| `{key}` |" in said
    assert "method.name=imfuse" in said
    assert said.count("| `method.options.base_width` |") > 5


def test_pages_of_docstrings_name_modules_that_are_there(hook: ModuleType) -> None:
    for _, _, names in hook.MODULES.values():
        for name in names:
            place = ROOT / "platform" / name.replace(".", "/")
            assert place.with_suffix(".py").is_file() or (place / "__init__.py").is_file(), name


def test_what_is_made_from_code_imports_nothing_heavy() -> None:
    program = (
        "import sys, runpy\nspace = runpy.run_path('docs/site/hook.py')\n"
        "space['command_line'](), space['experiment']()\n"
        "print([name for name in ('torch', 'monai', 'ray', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
