"""What mkdocs takes from elsewhere than docs/: the README and its like, notebooks, references made from code.

`mkdocs.yml` names this file. Nothing here is written to disk: pages are handed to mkdocs as they are made.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "platform"))

#: Files of the checkout that are pages of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}
#: Pages made from docstrings: title, what stands first, and modules.
MODULES = {
    "reference/python.md": (
        "One import",
        "All that a notebook needs; [From Python](../python.md) shows it at work.",
        [
            "acdis.api",
            "acdis.prediction.predict",
            "acdis.training.events",
            "acdis.vocabulary",
            "acdis.errors",
        ],
    ),
    "reference/methods.md": (
        "Methods and networks",
        "What a method must have, and the parts that methods share.",
        [
            "acdis.methods.base",
            "acdis.networks.unet",
            "acdis.networks.afeb",
            "acdis.networks.mfsb",
            "acdis.networks.rfm",
            "acdis.networks.modalities",
        ],
    ),
    "reference/losses.md": (
        "Losses",
        "Pure functions of tensors.",
        [
            "acdis.losses.segmentation",
            "acdis.losses.consistency",
            "acdis.losses.synthesis",
            "acdis.losses.regions",
        ],
    ),
    "reference/evaluation.md": (
        "Scores and statistics",
        "From labels to scores, and from scores to verdicts.",
        [
            "acdis.evaluation.metrics",
            "acdis.evaluation.lesionwise",
            "acdis.evaluation.records",
            "acdis.evaluation.statistics",
            "acdis.evaluation.mrmc",
        ],
    ),
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```)", re.S | re.M)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in docs/."""
    from mkdocs.structure.files import File

    made = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in PAGES.items()}
    made |= {page: modules(*what) for page, what in MODULES.items()}
    made |= {"reference/command-line.md": command_line(), "reference/experiment.md": experiment()}
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        made[f"notebooks/{path.stem}.md"] = notebook(path)
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links as GitHub reads them, from a file of the checkout to another, become the site's."""
    source = {made: source for source, made in PAGES.items()}.get(
        page.file.src_uri, f"docs/{page.file.src_uri}"
    )
    parts = FENCE.split(markdown)  # code stays as it is
    return "".join(
        part if n % 2 else relinked(part, source, page.file.src_uri) for n, part in enumerate(parts)
    )


def relinked(text: str, source: str, page: str) -> str:
    """Links of the checkout's file `source`, which is the site's `page`.

    What is in the checkout and not in the site loses its link, and keeps its words; what is nowhere stays as
    it is, for mkdocs to refuse.
    """

    def link(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        path, sharp, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return found.group()
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if inside == "docs":
            return words
        there = PAGES.get(inside) or (inside.removeprefix("docs/") if inside.startswith("docs/") else None)
        if there is not None:
            there = re.sub(r"\.ipynb$", ".md", there)
            return (
                f"{mark}[{words}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{sharp}{anchor})"
            )
        return words if (ROOT / inside).exists() else found.group()

    return LINK.sub(link, text)


def notebook(path: Path) -> str:
    """Its texts and code; it stands beside the page as a file to run."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    title, *rest = parts[0].split("\n", 1)
    download = (
        f'[Run it as a notebook](https://jupyter.org/): <a href="../{path.name}" download>{path.name}</a>'
    )
    return "\n\n".join([title, download, *rest, *parts[1:]]) + "\n"


def modules(title: str, first: str, names: list[str]) -> str:
    """A page of docstrings."""
    return "\n\n".join([f"# {title}", first, *(f"::: {name}" for name in names)]) + "\n"


def command_line() -> str:
    """Every command with its options, as `--help` has them."""
    import typer

    from acdis.cli import app

    parts = [
        "# Command line",
        "`acdis VERB …`, in a checkout `python experiments/main.py VERB …`. Exit codes: 0 done; 2 the "
        "input is wrong (one line); 1 anything else.",
    ]
    return "\n\n".join(parts + list(_commands(typer.main.get_command(app), "acdis"))) + "\n"


def _commands(command: Any, name: str) -> Any:
    for part, below in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(below, f"{name} {part}")
    if hasattr(command, "commands"):
        return
    yield f"## {name}\n\n{command.help or ''}"
    rows = ["| | | |", "|---|---|---|"]
    for each in command.params:
        words = ", ".join(f"`{word}`" for word in each.opts) if each.param_type_name == "option" else ""
        words = words or f"`{each.metavar or each.name.upper()}`"
        default = (
            each.default
            if isinstance(each.default, (str, int, float)) and each.default is not False
            else None
        )
        rows.append(
            _row(words, getattr(each, "help", None) or "", f"`{default}`" if default is not None else "")
        )
    if len(rows) > 2:
        yield "\n".join(rows)


def experiment() -> str:
    """Every key of an experiment file, and every method's options."""
    from acdis import methods
    from acdis.config import Experiment

    parts = ["# Experiment files", "`key.path=value` on the command line sets any of them."]
    parts += _keys(Experiment, "", "the top")
    for name in methods.names():
        parts += _keys(
            import_module(f"acdis.methods.{name}").Options, "method.options.", f"method.name={name}"
        )
    return "\n\n".join(parts) + "\n"


def _keys(model: Any, before: str, title: str) -> list[str]:
    from pydantic import BaseModel

    rows, below = ["| key | default | |", "|---|---|---|"], []
    for name, field in model.model_fields.items():
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        for kind in kinds:
            if issubclass(kind, BaseModel):
                below += _keys(kind, f"{before}{name}.", f"{before}{name}")
        if kinds and issubclass(kinds[0], BaseModel):
            continue
        default = "" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
        rows.append(_row(f"`{before}{name}`", default, field.description or ""))
    own = [
        f"## {title}",
        *([model.__doc__.strip().split("\n\n")[0]] if model.__doc__ else []),
        "\n".join(rows),
    ]
    return (own if len(rows) > 2 else []) + below


def _row(*columns: str) -> str:
    return "| " + " | ".join(" ".join(each.split()).replace("|", "\\|") for each in columns) + " |"
