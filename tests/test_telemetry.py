"""No dependency phones home: loop and servers run with every connection watched, and none leaves the machine.

The short form is in tests/flows/test_remote_loop.py: the loop there is watched too. Here nothing but the defaults is
set, and MLflow's server runs as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_model import RAW, SUITE, day, rows
from watching import abroad, watch
from yaml import safe_dump

from perennial.operate import doctor
from perennial.settings import PROJECT_ROOT

pytestmark = pytest.mark.process
LOOP = """
import os, sys
from perennial.cli import main
from perennial.operate.servers import mlflow_service, prefect_server, Child, free_port
from perennial.settings import load_settings
at, later = sys.argv[1:]
settings = load_settings()
with prefect_server(settings) as url:
    os.environ["PERENNIAL_PREFECT_API_URL"] = url
    for arguments in (["ingest", "digits", "--as-of", at], ["retrain", "digits", "--as-of", at],
                      ["ingest", "digits", "--as-of", later], ["check", "digits", "--as-of", later]):
        assert main(arguments) == 0, arguments
server = Child(mlflow_service(settings, free_port()), settings.home_path / "logs")
try:
    server.wait_until_ready()
finally:
    server.stop()
"""


def test_each_switch_is_set_by_the_package_itself() -> None:
    code = f"import json, os, perennial; print(json.dumps({{n: os.environ.get(n) for n in {list(doctor._TELEMETRY)}}}))"
    bare = {name: value for name, value in os.environ.items() if name not in doctor._TELEMETRY}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, env=bare, capture_output=True, text=True, check=True
    )
    found = json.loads(run.stdout)
    assert {name: found[name] in off for name, off in doctor._TELEMETRY.items()} == dict.fromkeys(
        doctor._TELEMETRY, True
    )


def test_the_watch_sees_and_refuses(tmp_path: Path) -> None:
    environment = watch(tmp_path / "watch")
    code = """
import urllib.request
for address in ("http://127.0.0.1:9", "http://example.com"):
    try:
        urllib.request.urlopen(address)
    except OSError as error:
        print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    assert "watched: example.com" in run.stdout
    assert abroad(environment) == ["ABROAD socket.getaddrinfo example.com"]


@pytest.mark.long
def test_nothing_leaves_the_machine(tmp_path: Path, mlflow_database: Path) -> None:
    for name in ("home", "models", "expectations"):
        (tmp_path / name).mkdir()
    (tmp_path / "home" / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    rows(0, 20).to_parquet(tmp_path / "models" / "rows.parquet")
    (tmp_path / "models" / "digits.yaml").write_text(safe_dump(RAW))
    (tmp_path / "expectations" / "digits.json").write_text(json.dumps(SUITE))
    watched = watch(tmp_path / "watch")
    bare = {
        name: value for name, value in os.environ.items()
        if name not in doctor._TELEMETRY and not name.startswith(("PERENNIAL_", "PREFECT_"))
    }  # fmt: skip
    environment = {
        **bare, **watched, "PYTHONPATH": os.pathsep.join([watched["PYTHONPATH"], str(PROJECT_ROOT)]),
        "PERENNIAL_HOME": str(tmp_path / "home"), "PERENNIAL_MODELS": str(tmp_path / "models"),
        "PERENNIAL_EXPECTATIONS": str(tmp_path / "expectations"),
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", LOOP, day(10).isoformat(), day(13).isoformat()], cwd=PROJECT_ROOT, env=environment,
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert abroad(watched) == []
