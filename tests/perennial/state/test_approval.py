"""A person's word on a challenger: promoted once, refused, expired, overtaken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perennial.errors import ConflictError, NotFoundError
from perennial.state import approval
from perennial.state.registry import Version
from perennial.workspace import Workspace

WEEKS = timedelta(days=14)


def version(workspace: Workspace, key: str, **tags: str) -> Version:
    """A registered version without a model that anybody would load."""
    registry = workspace.registry
    run = registry.run_for("toy", key, name=key, tags={})
    registry.client.log_text(run, key, "model/weights.txt")
    return registry.register("toy", training_key=key, run_id=run, source=f"runs:/{run}/model", tags=tags)


def approve(workspace: Workspace, number: int | None = None, **changes: Any) -> Any:
    now = datetime.now(UTC)
    arguments: dict[str, Any] = {"by": "ada", "reason": "looks right", "at": now, "expires": WEEKS} | changes
    return approval.approve(workspace.registry, "toy", number, **arguments)


def test_approving_promotes_and_says_who(workspace: Workspace) -> None:
    first = version(workspace, "one")
    approval.ask(workspace.registry, first)
    assert [item.number for item in approval.pending(workspace.registry, "toy")] == [first.number]
    reign = approve(workspace)
    assert (reign.version, reign.action, reign.by, reign.reason) == (first.number, "approve", "ada", "looks right")
    assert approval.pending(workspace.registry, "toy") == []
    with pytest.raises(NotFoundError, match="no version of toy waits for approval"):
        approve(workspace)


def test_refusing_keeps_the_champion_and_is_final(workspace: Workspace) -> None:
    first = version(workspace, "one")
    approval.ask(workspace.registry, first)
    approval.refuse(workspace.registry, "toy", None, by="ada", reason="wrong week")
    refused = workspace.registry.version("toy", first.number)
    assert (refused.tag("approval"), refused.tag("approval.reason")) == ("refused", "wrong week")
    approval.ask(workspace.registry, refused)
    assert approval.pending(workspace.registry, "toy") == []
    assert workspace.registry.reign("toy") is None


def test_a_version_that_waited_too_long_is_judged_anew(workspace: Workspace) -> None:
    approval.ask(workspace.registry, version(workspace, "one"))
    with pytest.raises(ConflictError, match="waited longer"):
        approve(workspace, at=datetime.now(UTC) + timedelta(days=15))
    assert approval.pending(workspace.registry, "toy") == []


def test_a_version_judged_against_a_former_champion_is_not_let_in(workspace: Workspace) -> None:
    first, second = version(workspace, "one"), version(workspace, "two", beaten_version="")
    for item in (first, second):
        approval.ask(workspace.registry, item)
    approve(workspace, first.number)
    with pytest.raises(ConflictError, match="was judged against none, champion is 1 now"):
        approve(workspace, second.number)


def test_a_version_that_does_not_wait_is_named(workspace: Workspace) -> None:
    approval.ask(workspace.registry, version(workspace, "one"))
    with pytest.raises(NotFoundError, match=r"version 7 of toy waits for approval \(waiting: 1\)"):
        approve(workspace, 7)
