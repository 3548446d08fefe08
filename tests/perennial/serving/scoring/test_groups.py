"""Tests of who gets which treatment: stable shares, the control group, canary and shadow, what is logged of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from serving_world import LocalClient, copy_home, definition_of, promote_version, records, rows_of

from perennial.definition import ModelDefinition
from perennial.model.features import feature_frame
from perennial.serving.scoring.groups import Ids, in_share
from perennial.serving.service import Service
from perennial.serving.settings import ServingSettings, Tokens
from perennial.serving.web.app import Api
from perennial.workspace import Workspace
from tasks.learning.fitting import predict_score
from tasks.steps.score import load_version

FEATURES = ("a", "b", "empty", "colour", "code")


@given(
    name=st.text(), salt=st.text(st.characters(exclude_categories=["Cs"])), small=st.floats(0, 1), large=st.floats(0, 1)
)
def test_a_share_is_stable_and_grows_without_dealing_anew(name: str, salt: str, small: float, large: float) -> None:
    small, large = min(small, large), max(small, large)
    assert in_share(name, small, salt, "x") == in_share(name, small, salt, "x")
    assert in_share(name, small, salt, "x") <= in_share(name, large, salt, "x")
    assert not in_share(name, 0.0, salt, "x")
    assert in_share(name, 1.0, salt, "x")


def test_shares_are_met_and_purposes_and_salts_are_independent() -> None:
    names = [f"id-{number}" for number in range(20_000)]
    picked = np.array([[in_share(name, 0.1, *key) for name in names] for key in (("s", "a"), ("s", "b"), ("t", "a"))])
    assert np.all(np.abs(picked.mean(axis=1) - 0.1) < 0.01)
    assert np.all(np.abs(np.corrcoef(picked) - np.eye(3)) < 0.05)


def test_own_ids_are_never_given_twice() -> None:
    makers = [Ids() for _ in range(50)]
    made = [name for maker in makers for name in maker.take(20) + maker.take(1)]
    assert len(set(made)) == len(made)


def test_a_share_may_be_written_in_percent() -> None:
    definition = ModelDefinition.model_validate(definition_of(serving={"canary": "10%", "control_group": 0.02}))
    assert definition.serving.canary == pytest.approx(0.1)
    assert definition.serving.control_group == pytest.approx(0.02)


@pytest.fixture
def grouped(world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[tuple[LocalClient, Workspace]]:
    """A champion (2), its candidate (the previous one, 1), canary, shadow, control group, sampling, redaction."""
    workspace = copy_home(world, tmp_path / "home")
    serving: dict[str, Any] = {
        "control_group": 0.3, "canary": "25%", "shadow": 1.0, "candidate": "previous", "log_share": 0.8,
        "redact": ["colour", "color"],
    }  # fmt: skip
    (workspace.home / "models" / "colours.yaml").write_text(yaml.safe_dump(definition_of(serving=serving)))
    promote_version(workspace, "colours", 2)
    service = Service(workspace, ServingSettings(ship_seconds=30))
    with LocalClient(Api(service, Tokens(""))) as client:
        # A column that is not hidden because its name is misspelt must be found in time.
        assert [r.facts["redact"] for r in caplog.records if "serving.redact" in r.message] == [["color"]]  # type: ignore[attr-defined]
        yield client, workspace


def test_canary_shadow_and_control_group_are_scored_marked_and_logged_apart(
    grouped: tuple[LocalClient, Workspace],
) -> None:
    client, workspace = grouped
    frame = rows_of(300, 11)
    answer = client.post("/models/colours/invocations", json={"instances": records(frame, "row", *FEATURES)}).json()
    again = client.post("/models/colours/invocations", json={"instances": records(frame, "row", *FEATURES)}).json()

    assert answer["version"] == 2
    assert 0.15 < np.mean(np.array(answer["versions"]) == 1) < 0.35
    assert 0.2 < np.mean(answer["control"]) < 0.4
    assert (answer["versions"], answer["control"]) == (again["versions"], again["control"])
    wanted = {number: _scores(workspace, frame, number) for number in (1, 2)}
    by_row = [wanted[version][row] for row, version in enumerate(answer["versions"])]
    np.testing.assert_allclose(answer["predictions"], by_row, atol=1e-9)

    assert client.get("/models/colours").json()["log"] == {"share": 0.8, "redacted": ["colour"]}
    client.service._shadow.put(None)
    client.service._shadow_thread.join(10)
    client.service.spool.seal()
    client.service.shipper.ship()
    log = workspace.store.frame("colours", "predictions")
    assert log["id"].is_unique
    assert 0.7 < len(log) / 300 < 0.9
    versions = dict(zip(frame["row"], answer["versions"], strict=True))
    assert all(versions[name] == version for name, version in zip(log["id"], log["version"], strict=True))
    assert set(log["role"]) == {"champion", "canary"}
    control = dict(zip(frame["row"], answer["control"], strict=True))
    assert all((group == "control") == control[name] for name, group in zip(log["id"], log["group"], strict=True))
    np.testing.assert_allclose(log["propensity"], np.where(log["group"] == "control", 0.3, 0.7))
    assert "colour" not in json.loads(log["inputs"].iloc[0])
    shadow = workspace.store.frame("colours/shadow", "predictions")
    assert set(shadow["version"]) == {1}
    assert set(shadow["id"]) == {name for name, version in versions.items() if version == 2}
    scores = dict(zip(frame["row"], wanted[1], strict=True))
    np.testing.assert_allclose(shadow["score"], [scores[name] for name in shadow["id"]], atol=1e-9)


def _scores(workspace: Workspace, frame: Any, number: int) -> np.ndarray:
    definition = workspace.definition("colours")
    pipeline = load_version(workspace.registry, workspace.registry.version("colours", number), definition)
    return predict_score(pipeline, feature_frame(frame, definition.features), "classification")


def test_the_manifest_names_who_may_be_a_candidate(world: Path, tmp_path: Path) -> None:
    workspace = copy_home(world, tmp_path / "home")
    promote_version(workspace, "colours", 2)
    manifest = json.loads((workspace.home / "live" / "colours.json").read_text())
    assert manifest["version"] == 2
    assert manifest["previous"]["version"] == 1
    assert manifest["challenger"]["version"] == 3
    assert manifest["gate_verdict"] == "promote"
