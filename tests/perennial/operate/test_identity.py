"""An address on disk is a claim: only a server that proves to be this home's is used, and doctor and deploy say so."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from stand_in import served_by

from perennial.cli import main
from perennial.errors import ServiceError
from perennial.operate import doctor, servers
from perennial.operate.identity import not_of_home, note_of, prefect_claim, publish_prefect, running_prefect
from perennial.operate.servers import free_port, prefect_server, prepare_home
from perennial.settings import Settings

pytestmark = pytest.mark.process


@contextmanager
def stand_in(home: Path | None, wrong: dict[str, Any] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Something that answers as a healthy Prefect server of a home does, or without one as any web server may.

    Yields:
        Its /api address, and what it is asked.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            found = {"/api/health": "true", "/api/admin/version": '"3.8.8"'}
            if home:
                found["/api/admin/settings"] = json.dumps(wrong or {"home": str(home / "prefect")})
            body = found.get(self.path, "<html>hello</html>").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with served_by(Handler) as address:
        yield f"{address}/api", asked


@pytest.fixture
def mine(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path / "mine")
    prepare_home(settings)
    return settings


def test_none_has_run(mine: Settings) -> None:
    assert prefect_claim(mine).url is None
    assert running_prefect(mine) is None


def test_the_published_one_is_this_home_s_and_no_other_s(mine: Settings, tmp_path: Path) -> None:
    with stand_in(mine.home_path) as (url, _):
        publish_prefect(mine, url)
        assert running_prefect(mine) == url
        shutil.copytree(mine.home_path, tmp_path / "copy")
        copy = Settings(home=tmp_path / "copy")
        assert running_prefect(copy) is None, "its note is a copy too"
        assert running_prefect(Settings(home=tmp_path / "other")) is None
        # `up` was killed, its note stayed, and the other home's server has the port by now.
        claim = prefect_claim(copy)
    assert claim.foreign
    assert claim.refuted == f"at {url} answers the server of {mine.home_path}, not that of {copy.home_path}"


@pytest.mark.parametrize("wrong", [None, {"else": 1}, {"home": None}])
def test_what_answers_everything_proves_nothing(mine: Settings, wrong: dict[str, Any] | None) -> None:
    with stand_in(mine.home_path if wrong else None, wrong) as (url, _):
        publish_prefect(mine, url)
        claim = prefect_claim(mine)
    assert claim.foreign
    assert "does not prove to be the server of" in claim.refuted


def test_a_stale_or_broken_note(mine: Settings) -> None:
    note = publish_prefect(mine, f"http://127.0.0.1:{free_port()}/api")
    assert (prefect_claim(mine).foreign, running_prefect(mine)) == (False, None)
    for text in ("{", "[]", '{"url": null}'):
        note.write_text(text)
        assert running_prefect(mine) is None
        assert str(note) in prefect_claim(mine).refuted


def test_an_address_that_was_given_is_taken(mine: Settings, tmp_path: Path) -> None:
    with stand_in(tmp_path / "elsewhere") as (url, _):
        assert running_prefect(mine.model_copy(update={"prefect_api_url": url})) == url


def test_one_that_listens_and_does_not_answer_is_waited_for_and_gets_no_second_beside_it(
    mine: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        publish_prefect(mine, url)
        claim = prefect_claim(mine, 0.3)
        assert (claim.url, claim.busy, claim.foreign) == (url, True, False)
        assert "listens and gives no answer" in claim.refuted
        monkeypatch.setattr(servers, "prefect_claim", partial(prefect_claim, seconds=0.3))
        with pytest.raises(ServiceError, match=r"it is busy, or hangs\. Wait and try again"), prefect_server(mine):
            pass
        given = mine.model_copy(update={"prefect_api_url": url})
        assert prefect_claim(given, 0.3).busy
    gone = prefect_claim(mine, 0.3)
    assert (gone.busy, "no server answers" in gone.refuted) == (False, True)


class TestAnotherHomesServer:
    """Two checkouts on the default port: the first one's `up` was killed, the second one's runs there."""

    @pytest.fixture
    def asked(self, mine: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        monkeypatch.setenv("PERENNIAL_HOME", str(mine.home_path))
        with stand_in(tmp_path / "theirs") as (url, asked):
            publish_prefect(mine, url)
            yield asked

    def test_deploy_touches_nothing_there(
        self, mine: Settings, asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["deploy"]) == 1
        told = capsys.readouterr().err
        assert f"answers the server of {tmp_path / 'theirs'}, not that of {mine.home_path}" in told
        assert "PERENNIAL_PREFECT_PORT" in told
        assert set(asked) == {"/api/health", "/api/admin/settings"}

    def test_doctor_says_whose_it_is(self, mine: Settings, asked: list[str], tmp_path: Path) -> None:
        (found,) = [item for item in doctor.examine(mine) if item.check == "prefect"]
        assert found.status == "warning"
        assert f"answers the server of {tmp_path / 'theirs'}" in found.detail
        assert "PERENNIAL_PREFECT_PORT" in found.remedy
        assert set(asked) == {"/api/health", "/api/admin/settings"}

    def test_the_runner_does_not_start(
        self, mine: Settings, asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from deployments import runner

        monkeypatch.setattr(runner, "_keep_temporary_files_in", lambda _folder: None)
        url = json.loads(note_of(mine).read_text())["url"]
        with temporary_settings({PREFECT_API_URL: url}):
            assert runner.main() == 1
        assert "not that of" in capsys.readouterr().err
        assert set(asked) == {"/api/health", "/api/admin/settings"}


@pytest.mark.slow
def test_a_real_server_tells_whose_it_is(prefect_url: str, prefect_settings: Settings, tmp_path: Path) -> None:
    """What is relied on of Prefect's inside: its settings are told, and its home is among them."""
    assert not_of_home(prefect_url, prefect_settings.home_path) == ""
    assert "not that of" in not_of_home(prefect_url, tmp_path)
    publish_prefect(prefect_settings, prefect_url)
    try:
        with prefect_server(prefect_settings) as url:
            assert url == prefect_url
    finally:
        note_of(prefect_settings).unlink()
