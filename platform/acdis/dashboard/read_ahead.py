"""Reading at the server's start, in the background, what the first visitor would wait for."""

from __future__ import annotations

import logging

from acdis.dashboard.results import Results
from acdis.dashboard.state import Site

log = logging.getLogger(__name__)


def warm(site: Site, results: Results) -> None:
    """Look at everything once. Whatever is wrong is said on the page that shows it."""
    try:
        for spec in site.known().specs.values():
            site.looks(spec)
        for name in site.known().specs:
            results.whole(name)
    except Exception:
        log.exception("reading ahead failed")
