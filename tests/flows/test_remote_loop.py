"""The whole loop with its databases on PostgreSQL and its tables and artifacts on S3.

It outlives what fails on the way: in the middle of the retraining PostgreSQL is killed for some seconds, then Prefect's
server. It leaves no secret anywhere: one is planted in every place that one can be configured in, then everything that
the loop wrote is searched. And it calls nobody outside this machine: every connection is watched.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import psutil
import pytest
import services
import sqlalchemy
import watching
from small_model import RAW, SUITE, day, merge, rows
from yaml import safe_dump

from perennial.cli import main
from perennial.errors import PerennialError
from perennial.operate.backup import backup, check_restored, restore
from perennial.operate.doctor import examine
from perennial.operate.servers import Child, free_port, prefect_service, prepare_home, use_prefect
from perennial.serving.settings import new_token
from perennial.settings import PROJECT_ROOT, Settings
from perennial.state.storage import Objects
from perennial.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.waits, pytest.mark.postgres, pytest.mark.s3, pytest.mark.timeout(600)]
SECRETS = {
    "database": "planted-database-pw",
    "s3": "planted-s3-secret-key",
    "session": "planted-session-token",
    "prefect": "planted-prefect-auth",
    "api": "",  # made below
}


@dataclass
class Remote:
    """The installation, its servers, and everything that its commands printed."""

    settings: Settings
    postgres: services.Postgres
    s3: services.S3
    databases: list[str]
    bucket: str
    printed: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    watched: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory, s3: services.S3) -> Iterator[Remote]:
    """An installation whose every part is elsewhere, behind passwords."""
    folder = tmp_path_factory.mktemp("remote")
    postgres = services.Postgres(SECRETS["database"])
    databases = [postgres.database(name) for name in ("registry", "orchestration", "source")]
    bucket = s3.bucket(f"remote-{uuid.uuid4().hex}")
    token, digest = new_token()
    SECRETS["api"] = token
    for name in ("models", "expectations"):
        (folder / name).mkdir()
    environment = {
        **services.KEYS,
        "AWS_ENDPOINT_URL": s3.address,
        "AWS_SECRET_ACCESS_KEY": SECRETS["s3"],
        "AWS_SESSION_TOKEN": SECRETS["session"],
        "PERENNIAL_HOME": str(folder / "home"),
        "PERENNIAL_MODELS": str(folder / "models"),
        "PERENNIAL_EXPECTATIONS": str(folder / "expectations"),
        "PERENNIAL_TABLES": f"{bucket}/tables",
        "PERENNIAL_ARTIFACTS": f"{bucket}/artifacts",
        "PERENNIAL_TRACKING_URI": f"postgresql://{databases[0]}",
        "PERENNIAL_SERVING_TOKENS": f"admin:{digest}",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{databases[1]}",
        "PREFECT_SERVER_API_AUTH_STRING": f"admin:{SECRETS['prefect']}",
        "PREFECT_API_AUTH_STRING": f"admin:{SECRETS['prefect']}",
        "DIGITS_URL": f"postgresql+pg8000://{databases[2]}",
    }
    watched = watching.watch(folder / "watch")
    watching.watch_this_process()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PERENNIAL_")]:
            patch.delenv(name)
        for name, value in {**environment, **watched}.items():
            patch.setenv(name, value)
        yield Remote(Settings(), postgres, s3, databases, bucket, watched=watched)
    postgres.close()


@pytest.fixture(scope="module")
def done(remote: Remote) -> Remote:
    """The installation after rows came in, a model was trained, judged, promoted, served and checked."""
    define(remote)
    home, service = prepare_home(remote.settings), prefect_service(remote.settings, free_port())
    servers = [Child(service, home / "logs")]
    try:
        servers[0].wait_until_ready()
        with use_prefect(remote.settings, f"{service.address}/api"), pytest.MonkeyPatch.context() as patch:
            patch.setenv("PERENNIAL_PREFECT_API_URL", f"{service.address}/api")
            remote.arguments += command_lines()
            assert main(["ingest", "digits", "--as-of", day(10).isoformat()]) == 0
            with broken_servers(remote, servers):
                assert main(["retrain", "digits", "--as-of", day(10).isoformat()]) == 0
            assert main(["ingest", "digits", "--as-of", day(13).isoformat()]) == 0
            assert main(["check", "digits", "--as-of", day(13).isoformat()]) == 0
            from flows.score import score

            score("digits", as_of=day(13))
            serve_one(remote)
            remote.printed.append(json.dumps([item.__dict__ for item in examine(remote.settings)]))
            wrong = remote.databases[0].replace("/registry", "/none")
            patch.setenv("DIGITS_URL", f"postgresql+pg8000://{wrong}")
            remote.printed.append(refused(["ingest", "digits", "--as-of", day(14).isoformat()]))
            patch.setenv("PERENNIAL_TRACKING_URI", f"postgresql://{wrong}")
            remote.printed.append(refused(["doctor"]))
    finally:
        for server in servers:
            server.stop()
    return remote


@contextmanager
def broken_servers(remote: Remote, servers: list[Child]) -> Iterator[None]:
    """Kill PostgreSQL as the training starts, and Prefect's server as the gate does; both come back after a while."""
    from tasks.steps import retrain as retraining

    timers: list[threading.Timer] = []

    def later(seconds: float, what: Callable[[], object]) -> None:
        timers.append(threading.Timer(seconds, what))
        timers[-1].start()

    def stop_database() -> None:
        remote.postgres.stop()
        later(2, remote.postgres.start)

    def stop_server() -> None:
        leader = psutil.Process(servers[-1].pid)
        processes = [leader, *leader.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)
        later(1, lambda: servers.append(Child(servers[0].service, remote.settings.home_path / "logs")))

    with pytest.MonkeyPatch.context() as patch:
        for step, fault in (("train", stop_database), ("judge_challenger", stop_server)):
            patch.setattr(retraining, step, failing(remote, step, fault))
        yield
    for timer in timers:
        timer.join()


def failing(remote: Remote, step: str, fault: Callable[[], None]) -> Callable[..., Any]:
    """The step of that name, before which something breaks."""
    from tasks.steps import retrain as retraining

    plain = getattr(retraining, step)

    @wraps(plain)
    def run(*arguments: Any, **more: Any) -> Any:
        remote.broken.append(step)
        fault()
        return plain(*arguments, **more)

    return run


def refused(arguments: list[str]) -> str:
    """What a command that fails prints."""
    told = io.StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        assert main(arguments) == 1
    return told.getvalue()


def define(remote: Remote) -> None:
    raw = merge(RAW, {"gate": {"minimum_rows": 50}})
    query = 'select * from digits where "when" >= :start and "when" < :end'
    raw["data"] = raw["data"] | {"source": {"sql": query, "url_env": "DIGITS_URL"}}
    models, expectations = remote.settings.model_folders[0], remote.settings.expectation_folders[0]
    (models / "digits.yaml").write_text(safe_dump(raw), encoding="utf-8")
    (expectations / "digits.json").write_text(json.dumps(SUITE), encoding="utf-8")
    engine = sqlalchemy.create_engine(os.environ["DIGITS_URL"])
    rows(0, 20).to_sql("digits", engine, index=False)
    engine.dispose()


def serve_one(remote: Remote) -> None:
    """Start the API, ask it once, and end it, so that it ships what it logged."""
    port, log = free_port(), remote.settings.home_path / "logs" / "api.log"
    with log.open("wb") as out:
        api = subprocess.Popen(
            [sys.executable, "-m", "perennial.cli", "serve", "--port", str(port)], cwd=PROJECT_ROOT, stdout=out,
            stderr=out,
            env={**os.environ, "PERENNIAL_SERVING_LINGER_SECONDS": "1", "PERENNIAL_SERVING_REGISTRY_SECONDS": "1"},
        )  # fmt: skip
        try:
            services.wait_for(lambda: b"perennial api ready" in log.read_bytes(), 120, "the API")
            services.wait_for(lambda: "digits" in health(port)["models"], 60, "the model")
            row = json.loads(rows(12, 13).drop(columns=["row", "when", "even"]).head(1).to_json(orient="records"))
            body = json.dumps({"dataframe_records": row, "ids": ["asked"]}).encode()
            answer = post(f"http://127.0.0.1:{port}/models/digits/invocations", body)
            assert len(json.loads(answer)["predictions"]) == 1
            remote.arguments += command_lines()
            # The registry goes away: the API says so, answers on, and recovers by itself.
            remote.postgres.stop()
            services.wait_for(lambda: "registry does not answer" in str(health(port)["problems"]), 60, "the notice")
            assert len(json.loads(post(f"http://127.0.0.1:{port}/models/digits/invocations", body))["predictions"]) == 1
            remote.postgres.start()
            services.wait_for(lambda: health(port)["problems"] == [], 60, "the recovery")
        finally:
            api.send_signal(signal.SIGTERM)
            assert api.wait(60) == 0


def health(port: int) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/health", headers=_authorised())
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def post(url: str, body: bytes) -> bytes:
    request = urllib.request.Request(url, body, {**_authorised(), "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: bytes = answer.read()
    return content


def _authorised() -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS['api']}"}


def command_lines() -> list[str]:
    """What anybody on the machine can see of our processes."""
    mine = psutil.Process()
    return [" ".join(process.cmdline()) for process in mine.children(recursive=True) if process.is_running()]


def test_the_loop_ran_on_servers(done: Remote, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace(done.settings)
    assert [line.version for line in workspace.registry.history("digits")] == [1]
    assert len(workspace.store.read("digits", "batches")) == 936
    assert "asked" in set(workspace.store.frame("digits", "predictions")["id"]), "the API's log was shipped"
    champion = workspace.registry.champion("digits")
    assert champion
    assert workspace.registry.client.get_run(champion.run_id).info.artifact_uri.startswith(f"{done.bucket}/artifacts")
    assert not (done.settings.home_path / "mlflow.db").exists()
    assert not (done.settings.home_path / "tables").exists()
    runs = table_texts(done.postgres, done.databases[1], ["flow_run"])
    assert sum("Completed" in text for text in runs) >= 5, "Prefect's runs are on PostgreSQL"
    assert main(["status", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["champion"] == 1


def test_the_retraining_outlived_its_database_and_its_server(done: Remote) -> None:
    assert done.broken == ["train", "judge_challenger"], "nothing was broken: the test shows nothing"
    workspace = Workspace(done.settings)
    registry = workspace.registry
    assert [version.number for version in registry.versions("digits")] == [1]
    assert [(line.version, line.action) for line in registry.history("digits")] == [(1, "promote")]
    assert len(registry.client.search_runs([registry.experiment_id("digits")])) == 1
    outcomes = [row for row in workspace.ledger("digits").rows() if row["kind"] == "outcome"]
    assert [row["version"] for row in outcomes] == [1]
    # Prefect's page may lack steps of the time that its server was away: the ledger has what counts.
    runs = [text for text in table_texts(done.postgres, done.databases[1], ["flow_run"]) if "retrain digits" in text]
    assert len(runs) == 1
    assert "Completed" in runs[0]


def test_nobody_outside_was_called(done: Remote) -> None:
    assert watching.abroad(done.watched) == []


def test_doctor_finds_it_whole(done: Remote) -> None:
    found = json.loads(done.printed[0])
    assert [item for item in found if item["status"] == "error"] == []
    details = {item["check"]: item["detail"] for item in found}
    assert details["registry"].startswith("postgresql+pg8000://test:***@127.0.0.1")
    assert details["tables"].endswith("refuses a second writer")
    assert details["artifacts"].endswith("reads and writes")


def test_backup_and_restore_of_what_is_elsewhere(done: Remote, tmp_path: Path) -> None:
    made = backup(done.settings, tmp_path / "saved")
    assert made.registry == "postgres"
    assert any("Prefect's database" in line for line in made.left_out)
    name = uuid.uuid4().hex
    bucket, database = done.s3.bucket(f"back-{name}"), done.postgres.database(f"back-{name}")
    elsewhere = {
        "home": tmp_path / "home", "tables": f"{bucket}/tables", "artifacts": f"{bucket}/artifacts",
        "tracking_uri": f"postgresql://{database}",
    }  # fmt: skip
    target = done.settings.model_copy(update=elsewhere)
    restored = restore(target, tmp_path / "saved")
    assert check_restored(target, restored.tables) == ["digits: version 1 is champion, its files are whole"]
    before, after = Workspace(done.settings), Workspace(target)
    assert after.registry.history("digits") == before.registry.history("digits")
    assert after.ledger("digits").rows() == before.ledger("digits").rows()
    assert after.store.read("digits", "predictions").equals(before.store.read("digits", "predictions"))
    champion = after.registry.champion("digits")
    assert champion
    assert after.registry.client.get_run(champion.run_id).info.artifact_uri.startswith(f"{bucket}/artifacts")
    more = {"home": tmp_path / "other", "tables": f"{bucket}/t2", "artifacts": f"{bucket}/a2"}
    again = target.model_copy(update=more)
    with pytest.raises(PerennialError, match=r"pg_restore failed: .*already exists"):
        restore(again, tmp_path / "saved")
    done.printed += [path.read_text() for path in (tmp_path / "saved").glob("*.json")]


def test_errors_hide_secrets(done: Remote) -> None:
    assert any("the query of DIGITS_URL failed" in text for text in done.printed)
    assert any("the registry's database refuses" in text for text in done.printed)
    done.printed.append(repr(done.settings))


def test_no_secret_is_anywhere(done: Remote) -> None:
    places: dict[str, str] = {}
    for number, text in enumerate([*done.printed, *done.arguments]):
        places[f"printed {number}"] = text
    for path in done.settings.home_path.rglob("*"):
        if path.is_file():
            places[str(path)] = path.read_bytes().decode("latin-1")
    bucket = Objects(done.bucket)
    for entry in bucket.entries():
        places[entry.name] = (bucket.get(entry.name) or b"").decode("latin-1")
    # Parquet may be compressed: as text again.
    store = Workspace(done.settings).store
    tables = {name.split("/")[1] for entry in bucket.entries("tables/digits") for name in [entry.name[7:]]}
    for table in tables - {"shadow"}:
        places[f"table {table}"] = store.frame("digits", table).to_csv()
    for database in done.databases:
        for number, text in enumerate(table_texts(done.postgres, database)):
            places[f"{database.rpartition('/')[2]} row {number}"] = text
    assert len(places) > 100
    assert any("Completed" in text for text in places.values()), "the search sees nothing"
    found = {
        f"{kind} in {place}" for place, text in places.items() for kind, secret in SECRETS.items() if secret in text
    }
    assert found == set()


def table_texts(postgres: services.Postgres, database: str, only: list[str] | None = None) -> list[str]:
    """Every row of every table, as text."""
    engine = sqlalchemy.create_engine(f"postgresql+pg8000://{database}")
    found: list[str] = []
    with engine.connect() as connection:
        names = only or sqlalchemy.inspect(engine).get_table_names()
        for name in names:
            found += [str(row[0]) for row in connection.execute(sqlalchemy.text(f'select t::text from "{name}" t'))]
    engine.dispose()
    return found


def test_the_search_would_find_one(done: Remote, tmp_path: Path) -> None:
    (done.settings.home_path / "planted.txt").write_text(f"x {SECRETS['s3']} y")
    try:
        with pytest.raises(AssertionError, match=r"s3 in .*planted\.txt"):
            test_no_secret_is_anywhere(done)
    finally:
        (done.settings.home_path / "planted.txt").unlink()
