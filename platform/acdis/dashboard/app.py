"""MLflow's server with our pages beside it: `mlflow server --app-name acdis`, or `acdis-basic-auth`.

MLflow's own UI and API stay as they are; `/acdis` is put before its catch-all route.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import Any

from acdis.errors import UserError
from acdis.tracking import moved, sqlite_path

#: Where our pages are, below the server's prefix.
PLACE = "/acdis"


def create_app() -> Any:
    """For `--app-name acdis`: no login, as MLflow has none then."""
    _needs_uvicorn()
    from mlflow.server.fastapi_app import app

    return attach(app)


def create_protected_app() -> Any:
    """For `--app-name acdis-basic-auth`: MLflow's users and login, for our pages as well."""
    _needs_uvicorn()
    from mlflow.server.auth import create_app as mlflow_app

    from acdis.dashboard.login import Login

    app = mlflow_app()
    return attach(app, lambda pages, site: Login(pages, app, site))


def attach(app: Any, protect: Any = lambda pages, site: pages) -> Any:
    """Put our pages into MLflow's FastAPI application.

    Args:
        protect: wraps our pages (an ASGI application, and the site) in one that lets only some see them.
    """
    from starlette.routing import Mount, Route

    from acdis.dashboard import disk_log
    from acdis.dashboard.leash import follow
    from acdis.dashboard.read_ahead import warm
    from acdis.dashboard.settings import from_environment
    from acdis.dashboard.state import Site

    follow()
    settings = from_environment()
    disk_log.install(settings.base)
    _lead_here(settings.uri)
    site = Site(settings)
    place, ours = settings.prefix + PLACE, pages(site)
    app.router.routes.insert(0, Mount(place, protect(ours, site)))
    app.router.routes.insert(0, Route(place, _to_the_overview))
    threading.Thread(target=warm, args=(site, ours.state.results), name="acdis-warm", daemon=True).start()
    return app


def _lead_here(uri: str) -> None:
    """A store whose home has moved leads to its artifacts again; one that cannot be changed stays."""
    path = sqlite_path(uri)
    if path is not None and path.exists() and moved.is_writable(path):
        with contextlib.suppress(sqlite3.Error):  # MLflow says what is wrong with it
            moved.rewrite(path)


def pages(site: Any) -> Any:
    """Our pages alone, an ASGI application."""
    from fastapi import FastAPI
    from starlette.staticfiles import StaticFiles

    from acdis.dashboard import safe_answers
    from acdis.dashboard.pages import PAGES
    from acdis.dashboard.results import Results
    from acdis.dashboard.views import HERE

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.site, app.state.results, app.state.pages = site, Results(site), PAGES
    for page in PAGES:
        app.include_router(page.router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    safe_answers.install(app)
    return app


async def _to_the_overview(request: Any) -> Any:
    """`/acdis` is `/acdis/`."""
    from starlette.responses import RedirectResponse

    return RedirectResponse(request.scope["path"] + "/")


def _needs_uvicorn() -> None:
    if os.environ.get("_MLFLOW_SGI_NAME", "uvicorn") != "uvicorn":
        raise UserError(
            "mlflow server: our pages need uvicorn; leave out --gunicorn-opts and --waitress-opts"
        )
