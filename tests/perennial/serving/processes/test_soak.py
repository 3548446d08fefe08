"""Everything at once: load, swaps, killed workers, a registry that goes and comes; and the log is what was answered."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import httpx
import pytest
from serving_world import promote_version, serving, worker_pids

from perennial.workspace import Workspace

pytestmark = pytest.mark.process
PATH = "/models/colours/invocations"
THREADS = 4


def _soak(workspace: Workspace, seconds: float, pause_seconds: float) -> None:
    answered: dict[str, tuple[float, int]] = {}
    problems: list[str] = []
    lost: list[str] = []
    until = time.monotonic() + seconds
    enough = threading.Event()

    def ask(client: Any, number: int) -> None:
        own = httpx.Client(base_url=client.base_url, timeout=30)
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
            if answer.status_code != 200:
                problems.append(answer.text)
                continue
            body = answer.json()
            answered.update({n: (s, body["version"]) for n, s in zip(names, body["predictions"], strict=True)})
        own.close()

    database, away = workspace.home / "mlflow.db", workspace.home / "mlflow.away"
    kills = swaps = 0
    with serving(workspace, workers=2) as client:
        threads = [threading.Thread(target=ask, args=(client, number)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        while time.monotonic() < until or swaps < 3:
            promote_version(workspace, "colours", 1 + (swaps + 1) % 3)
            swaps += 1
            time.sleep(pause_seconds / 2)
            os.kill(worker_pids(client.process)[0], signal.SIGKILL)
            kills += 1
            database.rename(away)
            time.sleep(pause_seconds / 2)
            away.rename(database)
        enough.set()
        for thread in threads:
            thread.join()
        client.process.send_signal(signal.SIGTERM)
        assert client.process.wait(60) == 0

    assert not problems, problems[:3]
    assert len(lost) <= THREADS * kills
    assert len({version for _, version in answered.values()}) >= 2
    log = workspace.store.read("colours", "predictions", columns=["id", "score", "version"]).to_pylist()
    logged = {row["id"]: (row["score"], row["version"]) for row in log}
    assert len(logged) == len(log)
    assert {name: logged.get(name) for name in answered} == answered
    # What was logged and not answered was in a worker's hands when it was killed.
    assert len(set(logged) - set(answered)) <= 7 * len(lost)


def test_a_short_soak(workspace: Workspace) -> None:
    _soak(workspace, 6, 2)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_long_soak(workspace: Workspace) -> None:
    _soak(workspace, 180, 10)
