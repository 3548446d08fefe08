"""Each change of champion writes a card, into the run and the description; what a card fails of undoes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import small_model
from small_model import World, day

from perennial.cards.writing import HTML_FILE, read_card, write_card
from perennial.cli import main
from perennial.errors import NotFoundError
from perennial.state import approval
from perennial.workspace import Workspace

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def asked(make_workspace: Callable[[Path], Workspace], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A model whose only version waits for a person."""
    workspace = make_workspace(tmp_path_factory.mktemp("cards"))
    definition = small_model.define(workspace, gate={"approval": "human"}, card={"text": "Ask the **inks**."})
    small_model.add(workspace, definition, small_model.rows(0, 10), as_of=day(10), history=True)
    small_model.retrain(workspace, definition, as_of=day(10))
    return workspace


def test_a_promotion_writes_the_card_into_the_run_and_the_description(trained: World) -> None:
    registry = trained.workspace.registry
    version = registry.version("digits", 1)
    text = read_card(registry, version)
    for told in ("# digits, version 1", "Champion since", "| **brier** |", "shade = dark", "## Calibration",
                 "segments of single columns", "## Data", "(decision `first`)"):  # fmt: skip
        assert told in text, told
    described = registry.client.get_model_version("digits", "1").description
    assert described.startswith("# digits, version 1")
    assert len(described) <= 5000
    assert "<table>" in read_card(registry, version, HTML_FILE)


def test_an_approval_writes_it_too_and_a_later_text_is_kept(asked: Workspace) -> None:
    registry = asked.registry
    with pytest.raises(NotFoundError, match=r"has no card\. Write it: `perennial card digits --version 1 --write`"):
        read_card(registry, registry.version("digits", 1))
    expires = asked.definition("digits").gate.approval_expires
    approval.approve(registry, "digits", None, by="ada", reason="fine", at=NOW, expires=expires)
    text = read_card(registry, registry.version("digits", 1))
    assert "approve by ada: fine" in text
    assert "Ask the **inks**." in text
    changed = small_model.define(asked, card={"text": "Ask *nobody*."})
    assert changed.hash != asked.definition("digits").model_copy(update={"positive": "1"}).hash
    assert "Ask *nobody*." in write_card(registry, changed, registry.version("digits", 1), at=NOW)


def test_what_people_write_is_no_part_of_what_a_training_is(asked: Workspace) -> None:
    plain, worded = (small_model.define(asked, card=card) for card in ({}, {"text": "words"}))
    assert plain.hash == worded.hash


def test_a_card_that_fails_undoes_no_promotion_and_is_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    definition = small_model.define(workspace)
    small_model.add(workspace, definition, small_model.rows(0, 10), as_of=day(10), history=True)
    monkeypatch.setenv("STORE_TOKEN", "hunter2hunter2")

    def away(*_: object) -> None:
        raise OSError("the bucket says no to hunter2hunter2")

    monkeypatch.setattr("perennial.cards.writing.render_card", away)
    with caplog.at_level(logging.WARNING):
        trained = small_model.retrain(workspace, definition, as_of=day(10))
    assert trained.reign is not None
    assert workspace.registry.aliases("digits")["champion"] == 1
    told = "version 1 of digits is champion and has no card: OSError: the bucket says no to ***. Write it:"
    assert told in caplog.text
    with pytest.raises(NotFoundError, match="has no card"):
        read_card(workspace.registry, trained.version)


def test_the_command_shows_saves_and_rewrites_it(
    trained: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = trained.workspace.settings
    monkeypatch.setenv("PERENNIAL_HOME", str(settings.home))
    monkeypatch.setenv("PERENNIAL_MODELS", settings.models)
    assert main(["card", "digits"]) == 0
    assert capsys.readouterr().out.startswith("# digits, version 1")
    assert main(["card", "digits", "--write", "--html", str(tmp_path / "card.html")]) == 0
    assert "<h1>digits, version 1</h1>" in (tmp_path / "card.html").read_text(encoding="utf-8")
    assert main(["card", "digits", "--version", "7"]) == 1
    assert "digits has no version 7" in capsys.readouterr().err
