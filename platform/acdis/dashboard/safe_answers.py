"""What every answer of ours goes through: headers that keep scripts out, and errors without a traceback."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from acdis.dashboard import views
from acdis.dashboard.state import NotThereError
from acdis.dashboard.store import StoreAwayError
from acdis.errors import UserError

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}
_METHODS = ("GET", "HEAD")
log = logging.getLogger(__name__)


class Guard:
    """ASGI: refuses what is not reading, sets `HEADERS`, and answers for pages that fail."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = False

        async def guarded(message: Any) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                kept = [(name, value) for name, value in message["headers"] if name.lower() not in HEADERS]
                kept += HEADERS.items()
                message = message | {"headers": [*kept, (b"cache-control", _keeping(scope["path"]))]}
            await send(message)

        request = Request(scope, receive)
        try:
            if scope["method"] in _METHODS:
                await self._app(scope, receive, guarded)
            else:
                await _said(request, 405, "Read only", "These pages only show.")(scope, receive, guarded)
        except Exception:  # whatever a page runs into, nobody outside sees more than this
            log.exception("the page %r failed", scope.get("path"))
            if began:
                raise
            message = (
                "This page failed; the server's log says why. Load it again, or report it with that log."
            )
            await _said(request, 500, "Something went wrong", message)(scope, receive, guarded)


def _keeping(path: str) -> bytes:
    """How long a browser may keep an answer: what is below `vendor/` has its version in its path."""
    if "/static/vendor/" in path:
        return b"public, max-age=31536000, immutable"
    return b"no-cache" if "/static/" in path else b"no-store"


def install(app: FastAPI) -> None:
    """The guard, and pages for what users and cells can cause."""
    app.add_middleware(Guard)
    for kind, status, title in (
        (NotThereError, 404, "Not there"),
        (StoreAwayError, 503, "MLflow's store cannot be read"),
        (UserError, 422, "This cannot be shown"),
    ):
        app.add_exception_handler(kind, _handler(status, title))
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _wrong)


def _handler(status: int, title: str) -> Any:
    async def handle(request: Request, error: Exception) -> HTMLResponse:
        return _said(request, status, title, str(error))

    return handle


async def _http(request: Request, error: Any) -> HTMLResponse:
    missing = error.status_code == 404
    title, hint = ("Not there", "There is no such page.") if missing else ("Refused", "That cannot be done.")
    return _said(request, error.status_code, title, hint)


async def _wrong(request: Request, error: Any) -> HTMLResponse:
    names = sorted({str(problem["loc"][-1]) for problem in error.errors()})
    hint = f"The address has a wrong or missing value for: {', '.join(names)}."
    return _said(request, 422, "The address is wrong", hint)


def _said(request: Request, status: int, title: str, message: str) -> HTMLResponse:
    return views.page(request, "message.html", status, title=title, message=views.short(message, 500))
