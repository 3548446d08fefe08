"""The backtest as a flow run: its artifacts on the run's page."""

from __future__ import annotations

from pathlib import Path

import backtest_world
import pytest
from backtest_world import day

from perennial.workspace import Workspace

pytestmark = pytest.mark.slow


def test_the_artifacts_hold_the_table_and_the_picture(
    workspace: Workspace, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = backtest_world.define(workspace)
    backtest_world.ingest_past(workspace, definition, backtest_world.rows(63, shift=35), as_of=day(63))
    for name in ("home", "models", "expectations"):
        monkeypatch.setenv(f"PERENNIAL_{name.upper()}", str(getattr(workspace.settings, name)))
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from flows.backtest import backtest

    result = backtest("shop", start=day(28), every="7d", jobs=1)
    assert result["windows"] == 4
    assert result["written"] == []
    assert result["recommendation"]["policy"] is None
    keys = ArtifactFilter(key=ArtifactFilterKey(any_=["backtest-shop", "backtest-policies-shop"]))
    with get_client(sync_client=True) as client:
        found = {str(item.key): str(item.data) for item in client.read_artifacts(artifact_filter=keys)}
    assert "| never | 0.00 |" in found["backtest-shop"]
    assert "data:image/png;base64," in found["backtest-shop"]
    assert '"policy": "own"' in found["backtest-policies-shop"]
    assert Path(result["picture"]).read_bytes().startswith(b"\x89PNG")
