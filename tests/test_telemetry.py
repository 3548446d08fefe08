"""No dependency phones home: loop and servers run with every connection watched, and none leaves the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_model import RAW, SUITE, day, rows
from yaml import safe_dump

from perennial import doctor
from perennial.settings import PROJECT_ROOT

# Python runs this in every process of ours: it writes down who is called, and refuses whoever is not on this machine.
WATCH = """
import ipaddress, os, sys

def _watch(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else ""
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    local = host in (None, "", "localhost", os.uname().nodename)
    if not local:
        try:
            local = ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
        except ValueError:
            pass
    with open(os.environ["WATCH_LOG"], "a") as log:
        log.write(f"{'local' if local else 'ABROAD'} {event} {host}\\n")
    if not local:
        raise OSError(f"watched: {host}")

sys.addaudithook(_watch)
"""
LOOP = """
import os, sys
from perennial.cli import main
from perennial.servers import mlflow_service, prefect_server, Child, free_port
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


@pytest.mark.slow
def test_nothing_leaves_the_machine(tmp_path: Path, mlflow_database: Path) -> None:
    for name in ("home", "models", "expectations", "watch"):
        (tmp_path / name).mkdir()
    (tmp_path / "home" / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    rows(0, 20).to_parquet(tmp_path / "models" / "rows.parquet")
    (tmp_path / "models" / "digits.yaml").write_text(safe_dump(RAW))
    (tmp_path / "expectations" / "digits.json").write_text(json.dumps(SUITE))
    log = tmp_path / "calls.log"
    bare = {
        name: value for name, value in os.environ.items()
        if name not in doctor._TELEMETRY and not name.startswith(("PERENNIAL_", "PREFECT_"))
    }  # fmt: skip
    environment = {
        **bare, "PYTHONPATH": os.pathsep.join([str(tmp_path / "watch"), str(PROJECT_ROOT)]), "WATCH_LOG": str(log),
        "PERENNIAL_HOME": str(tmp_path / "home"), "PERENNIAL_MODELS": str(tmp_path / "models"),
        "PERENNIAL_EXPECTATIONS": str(tmp_path / "expectations"),
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", LOOP, day(10).isoformat(), day(13).isoformat()], cwd=PROJECT_ROOT, env=environment,
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    calls = log.read_text().splitlines()
    assert any(line.startswith("local socket.connect 127.0.0.1") for line in calls), "the watch saw nothing"
    assert sorted({line for line in calls if line.startswith("ABROAD")}) == []
