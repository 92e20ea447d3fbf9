"""How a page answers: templates with everything escaped, JSON without NaN, words for figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from acdis.cells.time_left import clock
from acdis.dashboard.results import Results
from acdis.dashboard.state import Site
from acdis.report import phrases
from acdis.report.facts import PHANTOM_WARNING, SpecFacts
from acdis.version import __version__

HERE = Path(__file__).parent
#: Longest name, label or reason that a page shows.
LONGEST = 200
#: Characters that could end a script element or a line of it.
_HARMLESS = {ord(character): f"\\u{ord(character):04x}" for character in "<>&'\u2028\u2029"}


def site(request: Request) -> Site:
    """What the page reads."""
    site: Site = request.app.state.site
    return site


def results(request: Request) -> Results:
    """Tables of specs."""
    results: Results = request.app.state.results
    return results


def page(request: Request, template: str, status: int = 200, /, **context: Any) -> HTMLResponse:
    """A template of `templates/` as a page."""
    text = _TEMPLATES.get_template(template).render(_common(request) | context)
    return HTMLResponse(text, status)


def of_spec(request: Request, name: str, spec: SpecFacts, **context: Any) -> HTMLResponse:
    """The page of one spec: `templates/<name>.html`, with `static/<name>.js`."""
    return page(
        request,
        f"{name}.html",
        title=spec.title,
        spec=spec,
        script=name,
        warning=PHANTOM_WARNING if spec.phantoms else "",
        trouble=site(request).trouble(),
        **context,
    )


def choose(request: Request, title: str, path: str) -> HTMLResponse:
    """For a page of one spec that was asked for without one."""
    return page(request, "choose.html", title=title, target=path, specs=site(request).known().specs)


def part(request: Request, template: str, /, **context: Any) -> str:
    """A template that is a piece of a page."""
    return _TEMPLATES.get_template(template).render(_common(request) | context)


def data(tree: Any, status: int = 200) -> Response:
    """JSON; what is not finite becomes null."""
    return Response(_json(tree), status, media_type="application/json")


def short(text: Any, most: int = LONGEST) -> str:
    """At most so many characters, the last one `…` where there were more; no control characters."""
    cleaned = str(text)[: most + 1]
    if not cleaned.isprintable():
        cleaned = "".join(character if character.isprintable() else " " for character in cleaned)
    return cleaned if len(cleaned) <= most else cleaned[: most - 1] + "…"


def _common(request: Request) -> dict[str, Any]:
    root = request.scope.get("root_path", "").rstrip("/")
    return {
        "root": root,
        "mlflow": root.rpartition("/")[0] + "/",
        "pages": request.app.state.pages,
        "path": request.scope["path"].removeprefix(root) or "/",
        "version": __version__,
        "chosen_spec": request.query_params.get("spec", "")[:LONGEST],
    }


def _json(tree: Any) -> str:
    return json.dumps(_finite(tree), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _finite(tree: Any) -> Any:
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else None
    if isinstance(tree, dict):
        return {str(key): _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    if hasattr(tree, "tolist"):
        return _finite(tree.tolist())
    return tree


def _for_script(tree: Any) -> Markup:
    """JSON inside `<script type="application/json">`: nothing in it can end the element."""
    return Markup(_json(tree).translate(_HARMLESS))


def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "data": _for_script,
        "short": short,
        "clock": clock,
        "hours": phrases.hours,
        "query": urlencode,
    }
    return made


_TEMPLATES = _templates()
