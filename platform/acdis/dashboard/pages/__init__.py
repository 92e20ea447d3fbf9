"""The pages. To add one: a module here with a `router`, its template, and its line in `PAGES`.

A page reads what `views.site(request)` gives and answers with `views.page`, or with `views.of_spec` where it
shows one spec. Its state (spec, row, sorting) stands in the query, so that the address can be shared.
Blocking reads belong into plain `def` endpoints, which FastAPI runs in threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from acdis.dashboard.pages import cases, curves, overview, run, subsets, table


@dataclass(frozen=True)
class Page:
    """A line of the navigation.

    Attributes:
        path: below `/acdis`.
        of_spec: whether the page shows one spec: links to it carry `?spec=`.
    """

    title: str
    path: str
    router: Any
    of_spec: bool = True


PAGES = (
    Page("Overview", "/", overview.router, of_spec=False),
    Page("Table", "/table", table.router),
    Page("Subsets", "/subsets", subsets.router),
    Page("Cases", "/cases", cases.router),
    Page("Curves", "/curves", curves.router),
    Page("Run", "/run", run.router),
)
