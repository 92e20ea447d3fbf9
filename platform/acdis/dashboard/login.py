"""Who may see our pages: MLflow is asked, with the visitor's own credentials."""

from __future__ import annotations

import json
from typing import Any

from starlette.concurrency import run_in_threadpool

from acdis import files
from acdis.dashboard import runs
from acdis.dashboard.state import Site
from acdis.dashboard.store import StoreAwayError

#: MLflow answers with the experiments that this visitor may read; without a login it answers 401.
_QUESTION = "/api/2.0/mlflow/experiments/search"
_PAGE = 1000
_FORBIDDEN = (
    b"Your user may not read every experiment that is shown here. Ask an administrator of this MLflow server "
    b"for READ on the experiments of ACDIS."
)


class Login:
    """ASGI: lets in who may read all experiments that hold runs of ours."""

    def __init__(self, pages: Any, mlflow: Any, site: Site) -> None:
        self._pages, self._mlflow, self._site = pages, mlflow, site

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        status, headers, body = await self._asked(scope)
        if status == 200:
            if await run_in_threadpool(self._shown) <= {
                int(experiment["experiment_id"]) for experiment in body.get("experiments", ())
            }:
                await self._pages(scope, receive, send)
                return
            status, headers, said = 403, [(b"content-type", b"text/plain")], _FORBIDDEN
        else:
            said = b"Log in with a user of this MLflow server." if status == 401 else b"MLflow refuses this."
            kept = (b"www-authenticate", b"location")
            headers = [header for header in headers if header[0].lower() in kept]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    def _shown(self) -> frozenset[int]:
        try:
            return runs.experiments(self._site.store)
        except StoreAwayError:
            return frozenset()

    async def _asked(self, scope: Any) -> tuple[int, list[tuple[bytes, bytes]], dict[str, Any]]:
        """MLflow's answers to the visitor's search for experiments, all pages of it."""
        experiments: list[Any] = []
        token = ""
        while True:
            question = {"max_results": _PAGE} | ({"page_token": token} if token else {})
            status, headers, body = await self._call(scope, json.dumps(question).encode())
            try:
                answer = files.json_of(body) if status == 200 else {}
            except ValueError:
                return 502, [], {}
            experiments += answer.get("experiments", ())
            token = answer.get("next_page_token", "")
            if status != 200 or not token:
                return status, headers, {"experiments": experiments}

    async def _call(self, scope: Any, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        kept = (b"authorization", b"cookie", b"host")
        headers = [header for header in scope["headers"] if header[0].lower() in kept]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        path = self._site.settings.prefix + _QUESTION
        kept_keys = ("type", "asgi", "http_version", "scheme", "client", "server")
        inner = {key: scope[key] for key in kept_keys} | {
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "root_path": "",
            "state": {},
        }
        answer: dict[str, Any] = {"status": 500, "headers": [], "body": b""}

        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return waiting.pop() if waiting else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer["status"], answer["headers"] = message["status"], list(message["headers"])
            elif message["type"] == "http.response.body":
                answer["body"] += message.get("body", b"")

        await self._mlflow(inner, receive, send)
        return answer["status"], answer["headers"], answer["body"]
