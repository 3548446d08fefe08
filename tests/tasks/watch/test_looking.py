"""Watching a real champion: its own lock, real receivers, a real pip-audit; each version is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import small_model
from small_model import day

from perennial.cli import main
from perennial.definition import ModelDefinition
from perennial.workspace import Workspace
from tasks.watch.looking import look_around, version_lock

pytestmark = [pytest.mark.slow, pytest.mark.process]
API: dict[str, Any] = {
    "openapi": "3.0.3",
    "paths": {"/rows": {"get": {"responses": {"200": {"content": {"application/json": {"schema": {
        "type": "object", "required": ["ink"], "properties": {"ink": {"type": "number"}},
    }}}}}}}},
}  # fmt: skip


class Web:
    """Answers on loopback: a path to a status and a JSON body; POST asks the path's function."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {}
        self.asked: list[tuple[str, str | None]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self, sent: Any) -> None:
                web.asked.append((self.path, self.headers.get("Authorization")))
                page = web.pages.get(self.path)
                body = json.dumps(page(sent) if callable(page) else page).encode()
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def home(make_workspace: Callable[[Path], Workspace], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A model with a champion of day 10; its source has rows up to day 13."""
    workspace = make_workspace(tmp_path_factory.mktemp("watch"))
    definition = small_model.define(workspace)
    small_model.add(workspace, definition, small_model.rows(0, 10), as_of=day(10), history=True)
    small_model.retrain(workspace, definition, as_of=day(10))
    small_model.write_source(workspace, small_model.rows(0, 13))
    return workspace


def define(workspace: Workspace, **watch: Any) -> ModelDefinition:
    return small_model.define(workspace, watch=watch)


def test_a_definition_that_names_nothing_is_not_looked_at(home: Workspace) -> None:
    assert look_around(home, small_model.define(home), at=day(13)) == []


def test_a_vulnerable_pin_in_the_champions_lock_is_found_offline(home: Workspace, tmp_path: Path) -> None:
    champion = home.registry.champion("digits")
    assert champion is not None
    pinned = version_lock(home, champion)["pillow"]
    shutil.rmtree(home.settings.model_folders[0] / "advisories", ignore_errors=True)
    folder = home.settings.model_folders[0] / "advisories"
    folder.mkdir()
    definition = define(home, source=False, packages={"advisories": "advisories/*.json"})
    (unseen,) = look_around(home, definition, at=day(13))
    assert unseen.title == "the watch could not look at its packages"
    assert unseen.to_do == "Correct watch.packages.advisories"
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999"}]}]
    affected = {"package": {"ecosystem": "PyPI", "name": "Pillow"}, "ranges": ranges}
    record = {"id": "TEST-1", "summary": "overflow", "affected": [affected]}
    (folder / "one.json").write_text(json.dumps(record))
    (found,) = look_around(home, definition, at=day(13))
    assert found.grave
    assert found.detail == f"version 1 of digits is served with pillow {pinned}, named by TEST-1: overflow"
    assert found.to_do.startswith("Raise it in the lock (fixed in 999)")


def test_pip_audit_asks_a_service(home: Workspace, web: Web) -> None:
    def query(asked: Any) -> Any:
        if asked["package"]["name"] != "numpy":
            return {}
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999"}]}]
        return {"vulns": [{
            "id": "PYSEC-2099-1", "summary": "bad sums", "aliases": [], "published": "2099-01-01T00:00:00Z",
            "modified": "2099-01-01T00:00:00Z",
            "affected": [{"package": {"ecosystem": "PyPI", "name": "numpy"}, "ranges": ranges, "versions": []}],
        }]}  # fmt: skip

    web.pages["/query"] = query
    definition = define(home, source=False, packages={"service": "osv", "osv_url": f"{web.address}/query"})
    (found,) = look_around(home, definition, at=day(13))
    assert found.key == "watch:package:numpy"
    assert found.marks == ("PYSEC-2099-1",)
    web.server.shutdown()
    web.server.server_close()
    (unseen,) = look_around(home, definition, at=day(13))
    assert "pip-audit got no answer" in unseen.detail


def test_what_an_index_offers_no_more_or_withdrew_is_told(home: Workspace, web: Web) -> None:
    champion = home.registry.champion("digits")
    assert champion is not None
    for name, version in version_lock(home, champion).items():
        files = [{"filename": f"{name.replace('-', '_')}-{version}-py3-none-any.whl", "yanked": name == "scipy"}]
        web.pages[f"/simple/{name}/"] = {"files": [] if name == "numpy" else files}
    definition = define(home, source=False, packages={"index": f"{web.address}/simple"})
    gone, withdrawn = look_around(home, definition, at=day(13))
    assert (gone.title, gone.grave) == ("packages can't be installed any more", True)
    assert gone.detail.startswith("numpy ")
    assert (withdrawn.title, withdrawn.grave) == ("packages were withdrawn", False)
    assert withdrawn.detail.startswith("scipy ")


def test_a_changed_source_is_told_until_a_model_has_learned_from_it_and_each_version_is_kept(home: Workspace) -> None:
    definition = define(home, source=True)
    assert look_around(home, definition, at=day(2)) == []  # fewer rows are no other contract
    assert look_around(home, definition, at=day(11)) == []
    assert look_around(home, definition, at=day(12)) == []
    changed = small_model.rows(0, 13)
    changed["ink_11"] = changed["ink_11"].astype(str)
    small_model.write_source(home, changed.drop(columns="shade"))
    for moment in (12.5, 13):
        found = {item.key: item.grave for item in look_around(home, definition, at=day(moment))}
        assert found == {"watch:source:gone: shade": True, "watch:source:type: ink_11": True}
    assert list(home.store.frame("digits", "watched")["subject"]) == ["source", "source"]
    small_model.write_source(home, small_model.rows(0, 13))


def test_a_breaking_document_is_told_by_the_command_with_what_to_do(
    home: Workspace, web: Web, prefect_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = home.settings
    for name in ("home", "models", "expectations"):
        monkeypatch.setenv(f"PERENNIAL_{name.upper()}", str(getattr(settings, name)))
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", prefect_url)
    small_model.define(home)
    assert main(["watch", "digits"]) == 1
    assert "digits has nothing to watch. Write `watch: {source: true}` into it" in capsys.readouterr().err
    small_model.define(
        home, alerts={}, watch={"source": False, "openapi": f"{web.address}/api.json", "openapi_token_env": "API_TOKEN"}
    )
    monkeypatch.setenv("API_TOKEN", "s3cret-s3cret")
    web.pages["/api.json"] = API
    assert main(["watch"]) == 0
    assert capsys.readouterr().out == "digits: as it was\n"
    assert web.asked[-1] == ("/api.json", "Bearer s3cret-s3cret")
    schema = API["paths"]["/rows"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    schema["properties"]["ink"] = {"type": "string"}
    assert main(["watch", "digits", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["told"] is True
    assert told["findings"][0]["grave"] is True
    assert told["findings"][0]["detail"] == "GET /rows: ink was number and is string"
    assert main(["watch"]) == 0
    assert "!! the API changed in a way that breaks: GET /rows: ink was number and is string" in capsys.readouterr().out
    assert len(home.store.frame("digits", "alerts")) == 1  # told once
