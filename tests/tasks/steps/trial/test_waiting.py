"""Doubt is settled by later rows: who waits is looked at again, and wins or is given up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import doubtful_model
import pytest
import small_model
from copies import copy_workspace
from doubtful_model import CHALLENGER_AT, CHAMPION_AT, LATER_AT

from perennial.state.approval import pending
from perennial.state.registry import CHALLENGER
from perennial.workspace import Workspace
from tasks.check.history import read_history
from tasks.gate.probation import probation_length, waiting_length
from tasks.steps.trial.probation import check_newcomer
from tasks.steps.trial.realise import record_gains
from tasks.steps.trial.waiting import look_again, settle, waiting_outcome

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def crowned(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> Workspace:
    """Rows up to the second training with their labels, and the champion of the first."""
    made = make_workspace(tmp_path_factory.mktemp("crowned"))
    definition = doubtful_model.define(made)
    doubtful_model.fill(made, definition, until=18)
    assert small_model.retrain(made, definition, as_of=CHAMPION_AT).reign
    return made


@pytest.fixture(scope="module")
def in_doubt(crowned: Workspace, tmp_path_factory: pytest.TempPathFactory) -> small_model.World:
    """The rest of the rows with their labels, and a challenger in doubt."""
    made = copy_workspace(crowned, tmp_path_factory.mktemp("in-doubt"))
    definition = doubtful_model.define(made)
    doubtful_model.fill(made, definition, since=18)
    return small_model.World(made, definition, small_model.retrain(made, definition, as_of=CHALLENGER_AT))


def test_a_challenger_in_doubt_wins_on_rows_that_neither_has_seen(in_doubt: small_model.World, tmp_path: Path) -> None:
    workspace, trained = copy_workspace(in_doubt.workspace, tmp_path), in_doubt.training
    definition, registry = workspace.definition("digits"), workspace.registry
    assert trained.judged.report.verdict == "wait"
    assert trained.reign is None
    version = registry.version("digits", trained.version.number)
    assert (version.tag("gate.verdict"), version.tag("waiting")) == ("wait", "for evidence")
    assert registry.client.get_registered_model("digits").aliases[CHALLENGER] == version.number
    assert int(version.tag("trained_rows")) == len(trained.prepared.frame), "the twin has learned from the holdout too"
    assert look_again(workspace, definition, as_of=CHALLENGER_AT) is None, "its own moment knows nothing of it yet"

    early = look_again(workspace, definition, as_of=small_model.day(19.1))
    assert early is not None
    assert early.verdict == "wait"
    assert settle(workspace, definition, early, as_of=small_model.day(19.1)) is None
    report = look_again(workspace, definition, as_of=LATER_AT)
    assert report is not None
    assert (report.verdict, report.version, report.former) == ("promote", 2, 1)
    shadow = workspace.store.frame("digits/shadow", "predictions")
    assert len(shadow) == len(shadow.drop_duplicates(["id", "version"])), "each row is scored once by each"
    assert look_again(workspace, definition, as_of=LATER_AT) == report
    assert len(workspace.store.frame("digits/shadow", "predictions")) == len(shadow)

    reign = settle(workspace, definition, report, as_of=LATER_AT)
    assert reign is not None
    assert (reign.version, reign.previous, reign.action, reign.by) == (2, 1, "promote", "evidence")
    assert registry.version("digits", 2).tag("waiting") == "won"
    assert waiting_outcome(workspace, "digits", as_of=small_model.day(25)) is None
    (row,) = [row for row in workspace.ledger("digits").rows() if row["kind"] == "settlement"]
    assert (row["gate_verdict"], row["version"], row["former"]) == ("promote", 2, 1)
    assert "improves" in row["reasons"][0]

    on_probation = check_newcomer(workspace, definition, as_of=small_model.day(25))
    assert on_probation is not None
    assert on_probation.verdict == "stay"
    over = LATER_AT + probation_length(definition)
    assert record_gains(workspace, definition, as_of=over) == []
    (gain,) = record_gains(workspace, definition, as_of=over + definition.monitoring.window)
    assert gain["gain"] > 0
    assert record_gains(workspace, definition, as_of=over + definition.monitoring.window) == []
    history = read_history(workspace.ledger("digits").rows(), over + 2 * definition.monitoring.window)
    assert history.gains[-1] == pytest.approx(gain["gain"])


def test_a_challenger_of_which_no_label_tells_is_given_up_when_its_time_is_up(
    crowned: Workspace, tmp_path: Path
) -> None:
    workspace = copy_workspace(crowned, tmp_path)
    definition = doubtful_model.define(workspace)
    doubtful_model.fill(workspace, definition, since=18, labelled=False)
    small_model.retrain(workspace, definition, as_of=CHALLENGER_AT)
    report = look_again(workspace, definition, as_of=LATER_AT)
    assert report is not None
    assert (report.verdict, report.rows) == ("wait", 0)
    late = CHALLENGER_AT + waiting_length(definition) + definition.monitoring.window
    report = look_again(workspace, definition, as_of=late)
    assert report is not None
    assert report.verdict == "give up"
    assert settle(workspace, definition, report, as_of=late) is None
    assert workspace.registry.champion("digits").number == 1  # type: ignore[union-attr]
    assert workspace.registry.version("digits", 2).tag("waiting") == "given up"
    after = read_history(workspace.ledger("digits").rows(), late + definition.monitoring.window)
    assert after.waiting is None
    assert after.fruitless == 1


def test_a_winner_waits_for_a_person_where_one_is_asked(in_doubt: small_model.World, tmp_path: Path) -> None:
    """Asked only now, or before the training: what was judged is the same."""
    workspace = copy_workspace(in_doubt.workspace, tmp_path)
    definition = doubtful_model.define(workspace, approval="human")
    assert in_doubt.training.judged.report.verdict == "wait"
    report = look_again(workspace, definition, as_of=LATER_AT)
    assert report is not None
    assert settle(workspace, definition, report, as_of=LATER_AT) is None
    assert [version.number for version in pending(workspace.registry, "digits")] == [2]
    assert waiting_outcome(workspace, "digits", as_of=small_model.day(25)) is None


def test_the_status_names_who_waits_for_evidence(in_doubt: small_model.World, tmp_path: Path) -> None:
    from perennial.commands.lifecycle.records import describe_status

    workspace = copy_workspace(in_doubt.workspace, tmp_path)
    assert in_doubt.training.judged.report.verdict == "wait"
    assert describe_status(workspace, "digits")["in_doubt"] == "2"
    newer = small_model.retrain(workspace, workspace.definition("digits"), as_of=small_model.day(22))
    assert workspace.registry.version("digits", 2).tag("waiting") == "replaced"
    waits = newer.judged.report.verdict == "wait"
    assert describe_status(workspace, "digits")["in_doubt"] == ("3" if waits else "")
    found = waiting_outcome(workspace, "digits", as_of=small_model.day(23))
    assert (found["version"] if found else None) == (3 if waits else None)
