"""Everything at once: load, swaps, killed workers, a registry that goes and comes; and the log is what was answered.

The server is one that others reach: with tokens, whose start is costly enough to be had once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from serving_world import counted, promote_version, serving, shipper_pid, shipper_pids, wait_for, worker_pids

from perennial.serving.settings import new_token
from perennial.workspace import Workspace

pytestmark = pytest.mark.process
PATH = "/models/colours/invocations"
GOOD: dict[str, Any] = {"a": 1.0, "b": 2.0, "empty": None, "colour": "red", "code": "7"}
ORIGIN = "https://app.example.org"
COUNTED = {"by token"} | {f"counted-{number}-{row}" for number in range(40) for row in range(3)}
THREADS = 4


def _soak(workspace: Workspace, seconds: float, pause_seconds: float) -> None:
    answered: dict[str, tuple[float, int]] = {}
    problems: list[str] = []
    lost: list[str] = []
    until = time.monotonic() + seconds
    enough = threading.Event()

    def ask(client: Any, number: int) -> None:
        own = httpx.Client(base_url=client.base_url, headers=client.headers, timeout=30)
        count = 0
        while not enough.is_set():
            count += 1
            rows = 1 + count % 7
            names = [f"{number}-{count}-{row}" for row in range(rows)]
            cells = [[count / 9, None, None, "red" if row % 2 else "mauve", str(row)] for row in range(rows)]
            try:
                answer = own.post(PATH, json={"inputs": cells, "ids": names})
            except httpx.TransportError as error:
                lost.append(repr(error))
                continue
            time.sleep(0.005)
            if answer.status_code != 200:
                problems.append(answer.text)
                continue
            body = answer.json()
            answered.update({n: (s, body["version"]) for n, s in zip(names, body["predictions"], strict=True)})
        own.close()

    database, away = workspace.home / "mlflow.db", workspace.home / "mlflow.away"
    kills = swaps = 0
    with beyond_this_machine(workspace) as client:
        _tokens_are_demanded(client)
        _named_origins_may_ask(client)
        _workers_are_counted_together(client)
        threads = [threading.Thread(target=ask, args=(client, number)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        rows = counted(client, "perennial_rows_total")
        while time.monotonic() < until or swaps < 3:
            promote_version(workspace, "colours", 1 + (swaps + 1) % 3)
            swaps += 1
            time.sleep(pause_seconds / 2)
            if swaps % 3 == 1:  # the others in peace
                wait_for(lambda: len(worker_pids(client.process)) == 2)
                os.kill(worker_pids(client.process)[0], signal.SIGKILL)
                kills += 1
            if swaps == 1:
                os.kill(shipper_pid(client.process), signal.SIGKILL)
            database.rename(away)
            time.sleep(pause_seconds / 2)
            away.rename(database)
        wait_for(lambda: len(worker_pids(client.process)) == 2)
        wait_for(lambda: shipper_pids(client.process))
        enough.set()
        for thread in threads:
            thread.join()
        assert counted(client, "perennial_rows_total") >= rows, "the dead workers' rows are counted still"
        client.process.send_signal(signal.SIGTERM)
        assert client.process.wait(60) == 0

    assert not problems, problems[:3]
    assert len(answered) > 50
    assert len(lost) <= THREADS * kills
    assert len({version for _, version in answered.values()}) >= 2
    log = workspace.store.read("colours", "predictions", columns=["id", "score", "version"]).to_pylist()
    logged = {row["id"]: (row["score"], row["version"]) for row in log}
    assert len(logged) == len(log)
    assert {name: logged.get(name) for name in answered} == answered
    # What was logged and not answered was in a worker's hands when it was killed.
    assert len(set(logged) - set(answered) - COUNTED) <= 7 * len(lost)
    assert not list((workspace.home / "serving" / "spool").glob("*/*/*.jsonl"))


@contextmanager
def beyond_this_machine(workspace: Workspace) -> Iterator[Any]:
    """Two workers behind tokens; the client has one that lets it do everything."""
    token, digest = new_token()
    predict, predict_digest = new_token()
    settings = {"TOKENS": f"admin:{digest},predict:{predict_digest}", "CORS_ORIGINS": ORIGIN}
    environment = {f"PERENNIAL_SERVING_{name}": value for name, value in settings.items()}
    with serving(workspace, workers=2, arguments=("--host", "0.0.0.0"), **environment) as client:
        client.predict = {"authorization": f"Bearer {predict}"}
        client.headers["authorization"] = f"Bearer {token}"
        yield client


def _tokens_are_demanded(client: Any) -> None:
    body = {"instances": [GOOD], "ids": ["by token"]}
    assert httpx.post(f"{client.base_url}{PATH}", json=body).status_code == 401
    assert client.post(PATH, json=body, headers=client.predict).status_code == 200
    assert client.get("/metrics", headers=client.predict).status_code == 403


def _named_origins_may_ask(client: Any) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
    assert client.options(PATH, headers=asked).headers["access-control-allow-origin"] == ORIGIN


def _workers_are_counted_together(client: Any) -> None:
    before = counted(client, "perennial_rows_total")
    for number in range(40):
        ids = [f"counted-{number}-{row}" for row in range(3)]
        with httpx.Client(base_url=client.base_url, headers=client.headers) as fresh:
            assert fresh.post(PATH, json={"instances": [GOOD] * 3, "ids": ids}).status_code == 200
    assert counted(client, "perennial_rows_total") - before == 120


def test_a_short_soak(workspace: Workspace) -> None:
    _soak(workspace, 0, 1.5)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_long_soak(workspace: Workspace) -> None:
    _soak(workspace, 180, 10)
