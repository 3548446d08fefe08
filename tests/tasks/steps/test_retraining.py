"""A whole retraining: judged on rows that nobody trained on, registered and promoted once, however often it dies."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from copies import copy_workspace
from small_model import RAW, World, add, day, define, merge, retrain, rows

from perennial.definition import ModelDefinition
from perennial.errors import ConflictError, DataError
from perennial.model.truth import Classes
from perennial.settings import PROJECT_ROOT
from perennial.state.tables import ROW_ID
from perennial.workspace import Workspace
from tasks.backtest.past import load_past
from tasks.check.complaints.complaint import Complaint
from tasks.check.history import acceptance_row
from tasks.learning.fitting import predict_score, training_key
from tasks.steps import retrain as retraining
from tasks.steps.monitor import run_check
from tasks.steps.score import load_version

pytestmark = pytest.mark.slow

ELEC2 = PROJECT_ROOT.parent / "shared" / "data" / "elec2" / "elec2.parquet"


def facts(workspace: Workspace) -> tuple[list[int], list[tuple[int, int]], int]:
    """Versions, the history's lines, runs."""
    registry = workspace.registry
    runs = registry.client.search_runs([registry.experiment_id("digits")])
    lines = [(line.sequence, line.version) for line in registry.history("digits")]
    return [version.number for version in registry.versions("digits")], lines, len(runs)


def test_the_first_model_is_promoted_and_has_learned_from_everything(trained: World) -> None:
    training, prepared = trained.training, trained.training.prepared
    assert training.judged.report.verdict == "promote"
    assert prepared.champion is None
    assert training.judged.champion is None
    split = prepared.split
    assert training.final.trained_rows == len(split.train) + len(split.validation) + len(split.holdout)
    assert training.final.trained_until == prepared.frame["when"].max().to_pydatetime()
    # Label delay is a day: what happened later was not known.
    assert training.final.trained_until <= day(9)
    assert prepared.frame["when"].iloc[split.holdout].min() > prepared.frame["when"].iloc[split.validation].max()
    champion = trained.workspace.registry.champion("digits")
    assert champion == training.version
    assert training.reign
    assert (training.reign.at, training.reign.by, training.reign.decision_id) == (day(10), "test", "first")


def test_the_same_moment_again_is_the_same_training(trained: World, tmp_path: Path) -> None:
    workspace, first = copy_workspace(trained.workspace, tmp_path), trained.training
    definition = workspace.definition("digits")
    before = facts(workspace)
    assert before == ([1], [(1, 1)], 1)
    # Later rows and corrections change nothing about what was known on day 10.
    add(workspace, definition, rows(10, 14), as_of=day(14))
    again = retrain(workspace, definition, as_of=day(10), decision_id="first")
    assert again.prepared.key == first.prepared.key
    assert again.tuning.parameters == first.tuning.parameters
    assert again.version == first.version
    np.testing.assert_array_equal(again.judged.challenger, first.judged.challenger)
    assert facts(workspace) == before
    assert len([row for row in workspace.ledger("digits").rows() if row["kind"] == "outcome"]) == 1
    # A restart while later another champion reigned changes nothing about that one.
    later = retrain(workspace, definition, as_of=day(14))
    assert later.prepared.key != first.prepared.key
    assert later.prepared.champion == first.version


def test_a_next_one_is_judged_beside_the_champion_on_new_rows(workspace: Workspace) -> None:
    definition = define(workspace, gate={"minimum_rows": 20})
    add(workspace, definition, rows(0, 6), as_of=day(6), history=True)
    first = retrain(workspace, definition, as_of=day(6))
    add(workspace, definition, rows(6, 16), as_of=day(16))
    second = retrain(workspace, definition, as_of=day(16))
    assert second.prepared.champion == first.version
    assert second.prepared.split.holdout_from > first.final.trained_until
    holdout = second.prepared.rows(second.prepared.split.holdout)
    features = holdout[[*definition.features.columns]]
    champion = load_version(workspace.registry, first.version, definition)
    assert second.judged.champion is not None
    np.testing.assert_allclose(second.judged.champion, predict_score(champion, features, "classification"))
    assert second.version.number == 2
    outcomes = [row for row in workspace.ledger("digits").rows() if row["kind"] == "outcome"]
    assert [row["gate_verdict"] for row in outcomes] == ["promote", second.judged.report.verdict]
    losses = {name: table["brier"] for name, table in second.judged.report.metrics.items()}
    assert outcomes[1]["gain"] == pytest.approx(losses["champion"] - losses["challenger"])
    assert second.judged.report.verdict == "promote"
    assert second.version.tag("beaten_version") == "1"


def test_what_a_complaint_refuses_is_not_learned_until_somebody_accepts_it(workspace: Workspace) -> None:
    definition = define(workspace)
    add(workspace, definition, rows(0, 8), as_of=day(8), history=True)
    plain = retraining.prepare(workspace, definition, as_of=day(8))
    column = Complaint("range of ink_11", "ink_11", "why", day(4), day(2), day(3), state="confirmed")
    whole = Complaint("clock shifted", None, "why", day(4), day(3), day(4), state="confirmed", firing=False)
    evidence = {"complaints": [column.to_dict(), whole.to_dict()]}
    decision = {"decision_id": "why", "as_of": day(8).isoformat(), "verdict": "hold", "evidence": evidence}
    workspace.ledger("digits").record(decision, recorded_at=day(8))
    prepared = retraining.prepare(workspace, definition, as_of=day(8))
    assert len(prepared.frame) == len(plain.frame) - len(rows(3, 4))
    refused = prepared.learned["when"].between(day(2), day(3), inclusive="left")
    assert prepared.learned["ink_11"].isna().equals(refused)
    assert prepared.frame["ink_11"].notna().all()
    assert prepared.key != plain.key
    accepted = acceptance_row("why", day(8), by="Ada", reason="new pens")
    workspace.ledger("digits").accept(accepted, recorded_at=day(8))
    assert retraining.prepare(workspace, definition, as_of=day(8)).key == plain.key


def test_a_worse_challenger_is_kept_out_and_on_record(workspace: Workspace) -> None:
    good = define(workspace)
    add(workspace, good, rows(0, 12), as_of=day(12), history=True)
    first = retrain(workspace, good, as_of=day(12))
    noise = rows(12, 22)
    noise["even"] = np.random.default_rng(0).permutation(noise["even"].to_numpy())
    # The challenger learns from shuffled truth only; the window's newest rows, which judge, are as they are.
    noise.loc[noise["when"] >= day(19), "even"] = rows(19, 22)["even"].to_numpy()
    add(workspace, good, noise, as_of=day(23))
    worse = define(workspace, training={"window": "60d"}, gate={"holdout_window": "18d"})
    second = retrain(workspace, worse, as_of=day(23))
    assert second.judged.report.verdict == "keep"
    assert second.reign is None
    assert second.final.trained_rows == len(second.prepared.split.train) + len(second.prepared.split.validation)
    assert second.version.number == 2
    assert second.version.tag("gate.verdict") == "keep"
    champion = workspace.registry.champion("digits")
    assert champion == first.version
    aliases = workspace.registry.client.get_registered_model("digits").aliases
    assert {name: int(number) for name, number in aliases.items()} == {"champion": 1, "challenger": 2}


@pytest.mark.parametrize("died_after", ["tune", "log", "register", "promote"])
def test_a_killed_training_goes_on_to_one_version_and_one_champion(
    workspace: Workspace, died_after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = define(workspace)
    add(workspace, definition, rows(0, 10), as_of=day(10), history=True)

    def die(*_arguments: Any, **_more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if died_after == "tune":
            patch.setattr(retraining, "train", die)
        elif died_after == "log":
            patch.setattr(type(workspace.registry), "register", die)
        elif died_after == "register":
            patch.setattr(retraining, "promote", die)
        else:
            patch.setattr(retraining, "record_outcome", die)
        with pytest.raises(KeyboardInterrupt):
            retrain(workspace, definition, as_of=day(10), pictures=died_after == "log")
    done = retrain(workspace, definition, as_of=day(10), pictures=died_after == "log")
    assert facts(workspace) == ([1], [(1, 1)], 1)
    assert done.prepared.champion is None
    assert len(done.tuning.trials) == definition.training.tuning.trials
    assert [row["version"] for row in workspace.ledger("digits").rows()] == [1]


def test_a_restart_with_other_results_is_not_refused_by_the_half_made_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search by seconds may end elsewhere the second time, and MLflow takes no other value for a parameter."""
    definition = define(workspace)
    add(workspace, definition, rows(0, 10), as_of=day(10), history=True)

    def die(*_arguments: Any, **_more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(workspace.registry), "register", die)
        with pytest.raises(KeyboardInterrupt):
            retrain(workspace, definition, as_of=day(10))
    search = retraining.search
    with monkeypatch.context() as patch:
        patch.setattr(retraining, "search", lambda *given: replace(search(*given), parameters={"C": 0.123}))
        retrain(workspace, definition, as_of=day(10))
    assert facts(workspace) == ([1], [(1, 1)], 1)
    version = workspace.registry.version("digits", 1)
    assert json.loads(version.tag("parameters"))["C"] == 0.123


def test_a_person_may_have_the_last_word(workspace: Workspace) -> None:
    definition = define(workspace, gate={"approval": "human"})
    add(workspace, definition, rows(0, 10), as_of=day(10), history=True)
    done = retrain(workspace, definition, as_of=day(10))
    assert done.judged.report.verdict == "promote"
    assert done.reign is None
    assert workspace.registry.version("digits", 1).tag("approval") == "pending"
    assert workspace.registry.champion("digits") is None


def test_a_champion_that_changed_meanwhile_is_not_overrun(workspace: Workspace) -> None:
    definition = define(workspace)
    add(workspace, definition, rows(0, 8), as_of=day(8), history=True)
    retrain(workspace, definition, as_of=day(8))
    add(workspace, definition, rows(8, 16), as_of=day(16))
    prepared = retraining.prepare(workspace, definition, as_of=day(16))
    tuning = retraining.search(workspace, prepared)
    judged = retraining.judge_challenger(workspace, prepared, retraining.train(prepared, tuning))
    other = retrain(workspace, define(workspace, training={"seed": 1}), as_of=day(16))
    workspace.registry.promote(other.version, action="promote", at=day(16), recorded_at=day(16), by="x", reason="y")
    report = replace(judged.report, verdict="promote")
    version = workspace.registry.version("digits", 1)
    mine = replace(version, number=99)
    with pytest.raises(
        ConflictError, match=r"version 2 became champion while version 99 was judged against 1. Retrain"
    ):
        retraining.promote(workspace, prepared, mine, report, by="x", decision_id=None)


def test_too_few_rows(workspace: Workspace) -> None:
    definition = define(workspace)
    add(workspace, definition, rows(0, 1.5), as_of=day(3), history=True)
    with pytest.raises(DataError, match=r"training\.minimum_rows is 100"):
        retraining.prepare(workspace, definition, as_of=day(3))
    with pytest.raises(DataError, match=r"has no ingested rows with labels yet"):
        retraining.prepare(workspace, define(workspace, name="letters"), as_of=day(3))


ESTIMATOR = """
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.pipeline import make_pipeline

class Careful(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.inner_ = LogisticRegression(max_iter=500).fit(X, y)
        self.classes_ = self.inner_.classes_
        return self
    def predict_proba(self, X):
        return 0.98 * self.inner_.predict_proba(X) + 0.01
    def predict(self, X):
        return self.inner_.predict(X)

def build(definition, parameters, seed):
    return make_pipeline(make_column_transformer(("passthrough", list(definition.features.numeric))), Careful())
"""


def test_a_teams_own_estimator_as_a_pickle_loads_elsewhere(workspace: Workspace) -> None:
    """In a process that has not loaded the team's file, and after that file was edited."""
    import subprocess
    import sys

    path = workspace.settings.model_folders[0] / "careful.py"
    path.write_text(ESTIMATOR)
    definition = define(
        workspace, training={"estimator": "careful.py:build", "allow_pickle": True, "tuning": {"trials": 0}}
    )
    add(workspace, definition, rows(0, 10), as_of=day(10), history=True)
    done = retrain(workspace, definition, as_of=day(10))
    assert done.judged.report.verdict == "promote"
    path.write_text(ESTIMATOR + "# edited\n")
    code = (
        "import sys; from pathlib import Path; from perennial.settings import Settings;"
        "from perennial.workspace import Workspace; from tasks.steps.score import load_version;"
        "w = Workspace(Settings(home=Path(sys.argv[1]), models=sys.argv[2], expectations=sys.argv[3]));"
        "d = w.definition('digits'); v = w.registry.champion('digits');"
        "print(type(load_version(w.registry, v, d)).__name__)"
    )
    settings = workspace.settings
    run = subprocess.run(
        [sys.executable, "-c", code, str(settings.home), settings.models, settings.expectations],
        capture_output=True, text=True, cwd=PROJECT_ROOT, timeout=120,
    )  # fmt: skip
    assert run.stdout.strip() == "Pipeline", run.stderr[-2000:]


@pytest.mark.skipif(not ELEC2.exists(), reason=f"needs {ELEC2}")
def test_real_prices(workspace: Workspace) -> None:
    """Will the price of electricity rise? Half-hourly data from New South Wales, two trainings, trees."""
    meta = json.loads((ELEC2.parent / "meta.json").read_text())
    frame = pd.read_parquet(ELEC2).head(6000)
    assert {"t", "y"} <= set(frame.columns), meta
    numeric = [name for name in frame.columns if name not in ("t", "y") and pd.api.types.is_numeric_dtype(frame[name])]
    definition = define(
        workspace,
        data={"id": "t", "time": "t", "target": "y", "label_delay": "1d"},
        features={"numeric": numeric, "categorical": []},
        training={"estimator": "hist_gradient_boosting", "parameters": {"max_iter": 30}},
        gate={"slices": [], "metric": "log_loss"},
    )
    path = workspace.settings.expectation_folders[0] / "digits.json"
    path.write_text(path.read_text().replace('"row"', '"t"').replace('"ink_11"', f'"{numeric[0]}"'))
    frame["t"] = pd.date_range("1996-05-07", periods=len(frame), freq="30min", tz="UTC").as_unit("us")
    moment = frame["t"].iloc[4000].to_pydatetime()
    add(workspace, definition, frame.head(4000), as_of=moment, history=True)
    first = retrain(workspace, definition, as_of=moment)
    assert first.reign
    later = frame["t"].iloc[-1].to_pydatetime() + timedelta(days=2)
    add(workspace, definition, frame.tail(2000), as_of=later)
    second = retrain(workspace, definition, as_of=later)
    assert second.prepared.champion == first.version
    assert second.judged.report.verdict in ("promote", "keep", "wait", "insufficient evidence")
    assert second.prepared.frame[ROW_ID].is_unique
    champion = workspace.registry.champion("digits", as_of=datetime.now(UTC))
    assert champion
    assert champion.number == (2 if second.judged.report.verdict == "promote" else 1)


def test_definitions_differ_in_their_key(trained: World) -> None:
    other = ModelDefinition.model_validate(merge(RAW, {"training": {"seed": 5}}))
    prepared = trained.training.prepared
    assert training_key(trained.definition, prepared.data.digest, day(10), 0) == prepared.key
    assert training_key(other, prepared.data.digest, day(10), 5) != prepared.key


def test_what_is_learned_from_is_coded_as_the_definition_says(workspace: Workspace) -> None:
    frame = rows(0, 6).assign(even=lambda made: made["even"].map({0: "no", 1: "yes"}))
    add(workspace, define(workspace), frame, as_of=day(6), history=True)
    turned = define(workspace, positive="no")
    with pytest.raises(DataError, match="coded with 1 for 'yes' and 0 for 'no'"):
        load_past(workspace.store, turned)
    prepared = retraining.prepare(workspace, turned, as_of=day(6))
    assert prepared.classes == Classes("yes", "no")
    learned = prepared.frame.merge(frame, on="when")
    assert (learned["even_x"] == (learned["even_y"] == "no")).all()
    assert np.isfinite(load_past(workspace.store, turned).label_truth).all()


def test_a_champion_is_not_turned_round(trained: World) -> None:
    turned = trained.definition.model_copy(update={"positive": "0"})
    with pytest.raises(ConflictError, match="versions of digits answer how likely '1' is and not '0'"):
        retraining.prepare(trained.workspace, turned, as_of=day(10))
    with pytest.raises(ConflictError, match="versions of digits answer how likely '1' is"):
        run_check(trained.workspace, turned, as_of=day(10))
    with pytest.raises(ConflictError, match="answers how likely '1' is"):
        load_version(trained.workspace.registry, trained.training.version, turned)
    same = trained.definition.model_copy(update={"classes": ("false", "true")})  # the same two, written otherwise
    assert load_version(trained.workspace.registry, trained.training.version, same) is not None


def test_a_training_judged_again_replaces_no_live_champion_by_itself(trained: World) -> None:
    """The same newest rows, which the champion has learned from meanwhile: told, and no evidence against it."""
    workspace, before = trained.workspace, trained.training
    prepared = retraining.prepare(workspace, trained.definition, as_of=day(10), again=True)
    assert prepared.champion is None
    ids = [item.frame[ROW_ID].iloc[item.split.holdout].tolist() for item in (prepared, before.prepared)]
    assert ids[0] == ids[1]
    kept = retraining.judged_again(workspace, before.judged, "digits", promote=False).report
    assert kept.verdict == "keep"
    told = f"judged again on {kept.rows:,} rows on which models of digits were chosen before: no evidence"
    assert kept.reasons[0] == f"version 1 stays, for --yes was not given; {told}"
    let = retraining.judged_again(workspace, before.judged, "digits", promote=True).report
    assert (let.verdict, let.reasons[0]) == ("promote", f"let in by a person over version 1; {told}")
    poor = replace(before.judged, report=replace(before.judged.report, verdict="keep"))
    assert retraining.judged_again(workspace, poor, "digits", promote=True).report.verdict == "keep"
    assert retraining.beating(workspace, prepared).champion == before.version
