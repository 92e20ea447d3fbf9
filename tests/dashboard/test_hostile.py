"""Names, tags and figures from anybody: nothing of them runs, nothing outside is read, nothing is written."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from acdis.dashboard.pages import PAGES
from acdis.dashboard.store import MlflowStore, StoreAwayError
from acdis.report import spec_outline

BAD = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' onmouseover=alert(3) {{ 7*7 }} \u2028"
)
LONG = "x" * 10_000
ADDRESSES = [
    *(page.path + ("?spec=small" if page.of_spec else "") for page in PAGES),
    "/overview.json",
    "/table.json?spec=small",
    "/table?spec=small&sort=-WT&q=one",
    "/table/report.csv?spec=small",
    "/subsets?spec=small&row=fast&against=slow",
    "/cases?spec=small&row=fast&row=slow&measure=hd95&region=ET&subset=T2",
    "/curves?spec=small&row=fast&band=ci&show=train/",
]


class Reader(HTMLParser):
    """Collects what could run a script, and where links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.dangers: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "script" and known.get("type") != "application/json":
            self.scripts.append(known.get("src") or "inline")
        if tag in ("iframe", "object", "embed", "base", "style"):
            self.dangers.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.dangers.append(f"{name}={value}")
            if name in ("href", "src", "action", "data-source"):
                self.links.append(value or "")


def check(text: str) -> None:
    """Nothing on a page runs but our own files."""
    found = Reader(text)
    assert all(each.startswith("/acdis/static/") for each in found.scripts), found.scripts
    assert not found.dangers
    for link in found.links:
        assert link.startswith(("/", "#", "data:,")), link
        assert not link.startswith("//"), link


def _store(lab: Any) -> sqlite3.Connection:
    return sqlite3.connect(lab.base / "mlflow.db")


@pytest.fixture
def spoiled(own_lab: Any) -> Any:
    """Every name that a run or a file can bring is hostile, or 10 kB long."""
    (file,) = spec_outline.files(own_lab.base)
    (spec,) = json.loads(file.read_text())
    spec |= {"title": BAD, "source": BAD, "excluded": {BAD: 3}, "overrides": [BAD]}
    spec["rows"][0] |= {"label": BAD, "note": BAD}
    spec["rows"][1] |= {"label": LONG, "note": LONG}
    spec["rows"][2] |= {"id": BAD, "label": "\x00\x07 bell"}
    file.write_text(json.dumps([spec]))
    own_lab.cell("plain", 2).update(reason=BAD + LONG)
    with _store(own_lab) as store:
        store.execute("UPDATE tags SET value = ? WHERE key = 'acdis.title'", (BAD,))
        store.execute("UPDATE tags SET value = ? WHERE key = 'acdis.git_commit'", (BAD,))
        store.execute("UPDATE tags SET value = ? WHERE key = 'acdis.roles'", (f"{BAD}/{BAD}/1, ///, x/y/-1",))
        store.execute("UPDATE runs SET name = ?", (BAD[:200],))
    return own_lab


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_script_from_names(spoiled: Any, address: str) -> None:
    answer = spoiled.client().get("/acdis" + address)
    assert answer.status_code == 200
    if answer.headers["content-type"].startswith("text/html"):
        check(answer.text)
        assert LONG not in answer.text
    elif answer.headers["content-type"].startswith("application/json"):
        check(answer.json()["html"])
    assert "49" not in answer.text.split("{{")[0][-3:]  # {{ 7*7 }} stays text


@pytest.mark.parametrize(
    "address",
    [
        "/table?spec=",
        "/subsets?spec=small&row=",
        "/table?spec=small&q=",
        "/x/",
        "/run?cell=",
        "/cases?spec=small&row=",
    ],
)
@pytest.mark.parametrize("value", [BAD, LONG, "\x00", "%", "../../etc/passwd", "𝕏" * 50])
def test_no_script_from_addresses(client: Any, address: str, value: str) -> None:
    from urllib.parse import quote

    answer = client.get("/acdis" + address + quote(value))
    assert answer.status_code in (200, 404)
    check(answer.text)
    assert "Traceback" not in answer.text


def test_headers(client: Any) -> None:
    for address in (*ADDRESSES, "/static/style.css", "/nothing"):
        headers = client.get("/acdis" + address).headers
        policy = dict(each.split(" ", 1) for each in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_only_reading(client: Any, method: str) -> None:
    assert client.request(method, "/acdis/").status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "static/../app.py",
        "static/%2e%2e/app.py",
        "static/..%2f..%2f..%2fpyproject.toml",
        "static//etc/passwd",
        "static/vendor/%2e%2e/%2e%2e/store.py",
        "table/report.../../x?spec=small",
    ],
)
def test_no_file_outside(client: Any, path: str) -> None:
    answer = client.get("/acdis/" + path)
    assert answer.status_code == 404
    assert "import" not in answer.text


@pytest.mark.parametrize("name", ["../../secret", "..", "/etc", "a/../../secret", "\x00", ""])
def test_cells_outside_the_home_are_not_looked_at(own_lab: Any, name: str) -> None:
    """A roster that names a folder elsewhere, where a whole cell lies."""
    secret = own_lab.base.parent / "secret"
    os.rename(own_lab.cell("slow", 0).folder, secret)
    (file,) = spec_outline.files(own_lab.base)
    (spec,) = json.loads(file.read_text())
    spec["rows"][0]["cells"][0]["cell"] = name
    spec["rows"][0]["cells"][1]["evaluation"] = (
        "../../../secret/evaluations/" + spec["rows"][0]["cells"][0]["evaluation"]
    )
    file.write_text(json.dumps([spec]))
    answer = own_lab.client().get("/acdis/table.json?spec=small")
    assert answer.status_code == 200
    assert "1 of 3" in answer.json()["html"]


def test_nan_and_missing_metrics(own_lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from acdis.dashboard import results

    monkeypatch.setattr(results, "FEW_FILES", -1)  # figures from the store
    ids = {seed: _run(own_lab, own_lab.cell("fast", seed).name) for seed in (0, 1, 2)}
    with _store(own_lab) as store:
        change = (
            "UPDATE latest_metrics SET is_nan = 1, value = 0 WHERE run_uuid = ? AND key = 'dice/WT/FLAIR'"
        )
        store.execute(change, (ids[0],))
        store.execute("DELETE FROM latest_metrics WHERE run_uuid = ? AND key LIKE 'dice/%'", (ids[1],))
        change = "UPDATE latest_metrics SET value = 1.7e308 WHERE run_uuid = ? AND key = 'dice/ET/T2'"
        store.execute(change, (ids[2],))
        store.execute("UPDATE latest_metrics SET value = 9e999 WHERE key = 'hd95/ET/T2'")
    client = own_lab.client()
    page = client.get("/acdis/table?spec=small")
    assert page.status_code == 200
    assert "0 of 3" in page.text
    assert ">nan" not in page.text.casefold()
    assert client.get("/acdis/subsets?spec=small&metric=hd95").status_code == 200


def _run(lab: Any, cell: str) -> str:
    with _store(lab) as store:
        query = "SELECT run_uuid FROM tags WHERE key = 'acdis.cell' AND value = ?"
        return str(store.execute(query, (cell,)).fetchone()[0])


def test_a_run_deleted_while_shown(own_lab: Any) -> None:
    client = own_lab.client()
    run = _run(own_lab, own_lab.cell("fast", 0).name)
    assert run in client.get("/acdis/table?spec=small").text
    with _store(own_lab) as store:
        store.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = ?", (run,))
    assert run not in client.get("/acdis/table?spec=small").text
    with _store(own_lab) as store:
        store.execute("DELETE FROM latest_metrics")
        store.execute("DELETE FROM tags")
    for address in ADDRESSES:
        assert client.get("/acdis" + address).status_code == 200


def test_a_store_that_is_no_store(own_lab: Any) -> None:
    (own_lab.base / "mlflow.db").write_bytes(b"not a database at all" * 100)
    client = own_lab.client()
    for address in ADDRESSES:
        answer = client.get("/acdis" + address)
        assert answer.status_code == 200
        assert "Traceback" not in answer.text
    assert "cannot be read" in client.get("/acdis/").text


def test_passwords_stay_inside(lab: Any, caplog: pytest.LogCaptureFixture) -> None:
    uri = "postgresql://somebody:s3cret@127.0.0.1:1/none"
    with caplog.at_level(logging.DEBUG):
        text = lab.client(uri=uri).get("/acdis/").text
    assert "127.0.0.1:1/none" in text
    assert "s3cret" not in text + caplog.text


def test_a_failure_shows_no_traceback(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from acdis.dashboard.state import Site

    def fail(_: Site) -> None:
        raise RuntimeError("secret detail of /etc/somewhere")

    monkeypatch.setattr(Site, "known", fail)
    for address in ("/", "/table?spec=small", "/overview.json"):
        answer = client.get("/acdis" + address)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        assert "content-security-policy" in answer.headers


def _everything(folder: Path) -> Iterator[tuple[str, str, int]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns


def test_no_page_writes(own_lab: Any) -> None:
    before = list(_everything(own_lab.root))
    client = own_lab.client()
    for address in ADDRESSES:
        assert client.get("/acdis" + address).status_code == 200
    assert list(_everything(own_lab.root)) == before


def test_the_store_is_opened_read_only(own_lab: Any) -> None:
    store = MlflowStore(own_lab.uri)
    with pytest.raises(StoreAwayError):
        store.rows("UPDATE runs SET name = 'x'")
    with pytest.raises(StoreAwayError):
        store.rows("CREATE TABLE mine (a int)")
    assert store.rows("SELECT count(*) FROM runs WHERE name = 'x'")[0][0] == 0
