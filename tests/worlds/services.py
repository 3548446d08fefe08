"""Throwaway servers for tests: PostgreSQL in a folder, S3, a proxy that breaks it, MLflow. No tests.

They listen on loopback, on free ports, and end with the test session. What the machine lacks is said in a skip;
`tests/system-packages.sh` installs it, and with CI=true a skip counts as a failure (see conftest.py).
"""

from __future__ import annotations

import http.client
import http.server
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from perennial.operate.asking import healthy
from perennial.operate.servers import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret-key", "AWS_REGION": "us-east-1"}


def _postgres_binary(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
        found = str(versions[-1]) if versions else None
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is not installed; tests/system-packages.sh installs it")
    return found


class Postgres:
    """A cluster of its own, run by `nobody` where we are root, whom it refuses."""

    def __init__(self, password: str | None = None) -> None:
        # Not among the session's folders: pytest takes from those what `nobody` needs.
        self._folder, self.port = Path(tempfile.mkdtemp(prefix="perennial-postgres-")), free_port()
        self._as: list[str] = []
        if os.geteuid() == 0:
            self._as = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            shutil.chown(self._folder, 65534, 65534)
        self.password = password
        more = ["-A", "trust"]
        secret = self._folder / "password"
        if password:
            secret.write_text(password)
            if self._as:
                shutil.chown(secret, 65534, 65534)
            more = ["-A", "scram-sha-256", f"--pwfile={secret}"]
        self._run("initdb", "-U", "test", *more, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        secret.unlink(missing_ok=True)
        self.start()

    def start(self) -> None:
        """Start it under a guard: it ends with this process, however that ends."""
        options = ("listen_addresses=127.0.0.1", f"unix_socket_directories={self._folder}", "fsync=off")
        command = [*self._as, _postgres_binary("postgres"), "-D", str(self._folder / "data"), "-p", str(self.port)]
        self._server = guarded(
            [*command, *(word for option in options for word in ("-c", option))], self._folder / "log"
        )
        wait_for(self._accepts, 60, "PostgreSQL")

    def _accepts(self) -> bool:
        """Whether it takes connections: it listens while it is still starting up, and refuses until it has."""
        ask = [_postgres_binary("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "--quiet"]
        return subprocess.run(ask, cwd="/").returncode == 0

    def stop(self, how: str = "immediate") -> None:
        self._run("pg_ctl", "-m", how, "-w", "stop")
        end(self._server)

    def close(self) -> None:
        """Stop it and remove all of it."""
        if (self._folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder)

    def database(self, name: str, template: str = "template1") -> str:
        """Make a database, perhaps as a copy of another that nobody may be using; its address without a scheme."""
        import sqlalchemy

        where = f"test{':' + self.password if self.password else ''}@127.0.0.1:{self.port}"
        engine = sqlalchemy.create_engine(f"postgresql+pg8000://{where}/postgres", isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            others = sqlalchemy.text("select pg_terminate_backend(pid) from pg_stat_activity where datname = :name")
            connection.execute(others, {"name": template})
            connection.execute(sqlalchemy.text(f'create database "{name}" template "{template}"'))
        engine.dispose()
        return f"{where}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, _postgres_binary(program), "-D", str(self._folder / "data"), *arguments]
        # Its server keeps what it inherits: a pipe would never end.
        with (self._folder / f"{program}.out").open("wb") as out:
            done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {(self._folder / f'{program}.out').read_text()[-1000:]}")


# moto's own command finds out anew at each request that S3 is asked, and drops the connection after it.
_S3 = """
import sys
from moto.server import create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple

class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass

run_simple("127.0.0.1", int(sys.argv[1]), create_backend_app("s3"), threaded=True, request_handler=Quiet)
"""


class S3:
    """An S3-compatible server (moto) in a process of its own."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("moto.server", reason="moto is not installed: make setup")
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._server = guarded([sys.executable, "-c", _S3, str(port)], folder / "s3.log", **KEYS)
        wait_for(lambda: _listens(port), 60, "the S3 server")

    def bucket(self, name: str) -> str:
        """Make a bucket; its URL."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.address, aws_access_key_id="test", aws_secret_access_key="test",
            region_name="us-east-1",
        )  # fmt: skip

    def stop(self) -> None:
        end(self._server)


# `mlflow server` takes half a minute of processor time on an empty cache; its application alone takes a few seconds.
_MLFLOW = """
import sys
from mlflow.server import app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
"""


@contextmanager
def mlflow_application(database: Path, artifacts: Path, folder: Path) -> Iterator[str]:
    """MLflow's application on a small server, as `mlflow server` runs it on a large one; its address.

    Args:
        database: The SQLite file of its registry.
        artifacts: Where it keeps the artifacts that it serves.
        folder: For its log.
    """
    port = free_port()
    environment = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{database}", "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true", "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(artifacts),
        "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    log, url = folder / "mlflow.log", f"http://127.0.0.1:{port}"
    server = guarded([sys.executable, "-c", _MLFLOW, str(port)], log, **environment)
    try:
        deadline = time.monotonic() + 120
        while not healthy(f"{url}/health"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "MLflow's application did not answer"
            time.sleep(0.1)
        yield url
    finally:
        end(server)


class FaultProxy:
    """Stands before the S3 server and breaks what passes, as `fault` says; counts what it broke.

    Faults: `""` none; `refuse` answers writes with 503; `deny` with 403; `slow` waits `delay_seconds`; `half` hands on
    the first half of a write's body and drops the connection; `mute` carries a write out and drops its answer;
    `down` drops every connection.
    """

    def __init__(self, target: str, delay_seconds: float = 0.5) -> None:
        self.fault, self.delay_seconds, self.broken, self.budget = "", delay_seconds, 0, 10**9
        self.only = ""
        self._target = urlparse(target)
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # Clients hang up on what is broken for them: no news.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = _body(request)
        writes = request.command in ("PUT", "POST") and "?delete" not in request.path
        fault = self.fault if self.only in request.path and self.broken < self.budget else ""
        if fault == "slow":
            time.sleep(self.delay_seconds)
        elif fault == "down" or (fault == "half" and writes):
            self.broken += 1
            if fault == "half":
                self._forward(request, body, send_bytes=len(body) // 2)
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        elif fault in ("refuse", "deny") and writes:
            self.broken += 1
            request.send_response(503 if fault == "refuse" else 403)
            request.send_header("content-length", "0")
            request.end_headers()
            return
        status, headers, content = self._forward(request, body)
        if fault == "mute" and writes:
            self.broken += 1
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        request.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                request.send_header(name, value)
        length = len(content) if request.command != "HEAD" else dict(headers).get("content-length", "0")
        request.send_header("content-length", str(length))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    def _forward(
        self, request: http.server.BaseHTTPRequestHandler, body: bytes, send_bytes: int | None = None
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(str(self._target.hostname), self._target.port, timeout=30)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "transfer-encoding"}
        headers["Content-Length"] = str(len(body))
        connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in {k: v for k, v in headers.items() if k.lower() != "content-length"}.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        if send_bytes is not None:
            connection.send(body[:send_bytes])
            connection.close()
            return 0, [], b""
        connection.send(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, [(name.lower(), value) for name, value in answer.getheaders()], content


def _body(request: http.server.BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in request.headers.get("transfer-encoding", ""):
        return request.rfile.read(int(request.headers.get("content-length") or 0))
    parts = []
    while size := int(request.rfile.readline().split(b";")[0], 16):
        parts.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(parts)


def guarded(command: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A server that ends with this process, however that ends."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "perennial.operate.guard", "5", *command], cwd="/",
            env={**os.environ, **environment},
            stdin=subprocess.PIPE, stdout=out, stderr=out,
        )  # fmt: skip


def end(server: subprocess.Popen[bytes]) -> None:
    if server.stdin:
        server.stdin.close()
    server.wait(60)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        time.sleep(0.05)
