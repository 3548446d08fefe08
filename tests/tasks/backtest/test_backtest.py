"""A backtest decides as the live path does, measures what it says, and refuses where it can't tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import backtest_world
import numpy as np
import pandas as pd
import pytest
from backtest_world import day

from perennial.definition import ModelDefinition, Monitoring, Triggers
from perennial.errors import DataError
from perennial.state.tables import ROW_ID
from perennial.workspace import Workspace
from tasks.backtest import run as backtest_run
from tasks.backtest.advice import advise
from tasks.backtest.comparison import BASELINES, Backtest, run_backtest
from tasks.backtest.fits import Order, carry_out
from tasks.backtest.past import Past, load_past
from tasks.backtest.policies import Candidate, make_candidates
from tasks.backtest.run import backtest_model
from tasks.backtest.trainings import Trainings
from tasks.backtest.walker import Walker
from tasks.check.decision import Decision
from tasks.check.history import read_history
from tasks.rows.frames import labelled_rows
from tasks.rows.labels import label_frame
from tasks.steps import recalibrate as recalibrating
from tasks.steps import retrain as retraining
from tasks.steps.describe import describe, with_twin
from tasks.steps.ingest import ingest_batch
from tasks.steps.monitor import gather_inputs, record_decision, run_check
from tasks.steps.register import register_training
from tasks.steps.score import load_version, require_champion, score_unscored
from tasks.steps.trial.probation import check_newcomer, end_probation

pytestmark = pytest.mark.slow
WEEK = timedelta(days=7)


def live(
    workspace: Workspace, definition: ModelDefinition, frame: pd.DataFrame, moments: list[datetime]
) -> list[dict[str, Any]]:
    """The live path, step by step, as flows.replay takes it: the decisions after the first training."""
    time, target = definition.data.time, definition.data.target
    backtest_world.ingest_past(workspace, definition, frame[frame[time] < moments[0]], as_of=moments[0])
    retrain(workspace, definition, moments[0], None)
    decisions = []
    for before, as_of in pairwise(moments):
        new = frame[(frame[time] >= before) & (frame[time] < as_of)].drop(columns=target).reset_index(drop=True)
        suite = backtest_world.suite(workspace)
        ingest_batch(workspace.store, definition, new, suite, source="week", as_of=as_of)
        due = frame[frame[time] + definition.data.label_delay <= as_of]
        label_frame(workspace.store, definition, due, as_of=as_of, author="test")
        champion = require_champion(workspace.registry, definition.name, as_of=as_of)
        pipeline = load_version(workspace.registry, champion, definition)
        score_unscored(workspace.store, definition, pipeline, version=champion.number, as_of=as_of)
        if newcomer := check_newcomer(workspace, definition, as_of=as_of):
            end_probation(workspace, definition, newcomer, as_of=as_of)
        decision = run_check(workspace, definition, as_of=as_of)
        record_decision(workspace, decision)
        decisions.append(decision.to_dict())
        if decision.verdict == "retrain":
            retrain(workspace, definition, as_of, decision.decision_id)
        elif decision.verdict == "recalibrate":
            recalibrate(workspace, definition, decision)
    return decisions


def retrain(workspace: Workspace, definition: ModelDefinition, as_of: datetime, decision_id: str | None) -> None:
    """The steps of flows.retrain; what is only looked at is left out of the run."""
    prepared = retraining.prepare(workspace, definition, as_of=as_of)
    tuning = retraining.search(workspace, prepared)
    challenger = retraining.train(prepared, tuning)
    judged = retraining.judge_challenger(workspace, prepared, challenger)
    record = describe(prepared, tuning, challenger, judged, seconds={}, decision_id=decision_id)
    if judged.report.verdict == "promote":
        record = with_twin(record, retraining.refit(prepared, tuning))
    version = register_training(workspace.registry, replace(record, figures={}, tables={}, curves={}))
    made: dict[str, Any] = {"by": "test", "decision_id": decision_id}
    retraining.promote(workspace, prepared, version, judged.report, **made)
    retraining.record_outcome(workspace, prepared, judged, version=version.number, **made)


def recalibrate(workspace: Workspace, definition: ModelDefinition, decision: Decision) -> None:
    found = recalibrating.fit_map(workspace, definition, as_of=decision.as_of)
    report = recalibrating.judge_map(found)
    made: dict[str, Any] = {"decision_id": decision.decision_id}
    record = recalibrating.describe_map(workspace, found, report, decision_id=decision.decision_id)
    version = register_training(workspace.registry, replace(record, figures={}))
    recalibrating.promote_map(workspace, found, version, report, by="test", **made)
    recalibrating.record_recalibration(workspace, found, report, by="test", version=version.number, **made)


def close(found: Any, wanted: Any, where: str = "") -> None:
    """The same, numbers to nine digits: rows scored in other batches differ in the last ones."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key in wanted:
            close(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted), where
        for number, item in enumerate(wanted):
            close(found[number], item, f"{where}[{number}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12), where
    else:
        assert found == wanted, where


class TestLive:
    def test_the_own_policy_decides_as_the_live_path_did(self, workspace: Workspace) -> None:
        definition = backtest_world.define(workspace)
        frame = backtest_world.rows(84, shift=42)
        moments = [day(28 + 7 * number) for number in range(6)]
        wanted = live(workspace, definition, frame, moments)
        verdicts = [decision["verdict"] for decision in wanted]
        # Or the comparison would prove little; a champion that is beaten answers by a map of the newest rows.
        assert {"hold", "recalibrate", "retrain"} <= set(verdicts)
        assert ("recalibrate", "retrain") in pairwise(verdicts)
        reigns = workspace.registry.history("shop")
        assert {reign.action for reign in reigns} == {"promote", "recalibrate"}
        # The last decision is worth a check only if a window follows it.
        rest = frame[frame["when"] >= moments[-1]].reset_index(drop=True)
        ingest_batch(workspace.store, definition, rest, backtest_world.suite(workspace), source="rest", as_of=day(84))
        past = load_past(workspace.store, definition)
        candidates = make_candidates(definition, every=WEEK)[:1]
        found = run_backtest(past, candidates, every=WEEK, start=moments[0], until=moments[-1] + WEEK)
        told = [json.loads(json.dumps(decision.to_dict())) for decision in found.decisions["own"]]
        assert [decision["verdict"] for decision in told] == verdicts
        for own, other in zip(told, wanted, strict=True):
            close(own, json.loads(json.dumps(other)), other["as_of"])
        self.check_moments(workspace, definition, moments)
        self.check_steps(workspace, definition, moments)

    def test_where_windows_have_few_rows_it_judges_by_the_same_ones(self, workspace: Workspace) -> None:
        definition = backtest_world.define(workspace, monitoring={"minimum_rows": 200})
        frame = backtest_world.rows(84, shift=42)
        moments = [day(28 + 7 * number) for number in range(5)]
        wanted = live(workspace, definition, frame, moments)
        assert [decision["evidence"]["mature_windows"] for decision in wanted] == [1, 2, 1, 2]
        rest = frame[frame["when"] >= moments[-1]].reset_index(drop=True)
        ingest_batch(workspace.store, definition, rest, backtest_world.suite(workspace), source="rest", as_of=day(84))
        past, candidates = load_past(workspace.store, definition), make_candidates(definition, every=WEEK)[:1]
        found = run_backtest(past, candidates, every=WEEK, start=moments[0], until=moments[-1] + WEEK)
        for own, other in zip(found.decisions["own"], wanted, strict=True):
            close(json.loads(json.dumps(own.to_dict())), json.loads(json.dumps(other)), other["as_of"])

    def check_steps(self, workspace: Workspace, definition: ModelDefinition, moments: list[datetime]) -> None:
        """Rows and labels came once a week: between the weeks' checks they are stale and mostly unlabelled."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backtest_run, "make_candidates", lambda *given, **more: make_candidates(*given, **more)[:1])
            found = backtest_run.backtest_model(workspace, definition, until=moments[1])
        assert {(moment - moments[0]) % WEEK for moment in found.moments} == {timedelta(0)}
        alone = run_backtest(
            load_past(workspace.store, definition), make_candidates(definition, every=WEEK)[:1], every=WEEK,
            until=moments[1],
        )  # fmt: skip
        assert (alone.moments[0] - moments[0]) % WEEK != timedelta(0), "or this test shows nothing"

    def check_moments(self, workspace: Workspace, definition: ModelDefinition, moments: list[datetime]) -> None:
        """What a moment knows is what the tables tell of it, also after labels were corrected later."""
        frame = backtest_world.rows(84, shift=42)
        corrected = frame[frame["when"] < day(40)].tail(50).assign(sales=-1.0)
        label_frame(workspace.store, definition, corrected, as_of=day(60), author="test")
        past = load_past(workspace.store, definition)
        for as_of in (moments[2], moments[-1]):
            moment = past.at(as_of)
            data = labelled_rows(workspace.store, definition, as_of=as_of).frame
            own = moment.labelled_frame.rename(columns={"when": "_time", "sales": "_truth"})
            pd.testing.assert_frame_equal(own[data.columns], data)
            assert (data["_truth"] == -1).sum() == (50 if as_of >= day(60) else 0)
            champion = require_champion(workspace.registry, "shop", as_of=as_of)
            inputs = gather_inputs(workspace, definition, champion, as_of=as_of)
            assert moment.labelled_since(datetime.fromisoformat(champion.tag("trained_from"))) == inputs.labelled_rows
            window = moment.window(as_of - WEEK)
            ordered = inputs.window.sort_values("_time", ignore_index=True)
            pd.testing.assert_frame_equal(window, ordered[window.columns])
            assert replace(moment.freshness(as_of - WEEK), example="") == replace(inputs.freshness, example="")


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> Workspace:
    """Four months of a shop's imported past, shifted after the first half."""
    workspace = make_workspace(tmp_path_factory.mktemp("shop"))
    definition = backtest_world.define(workspace)
    backtest_world.ingest_past(workspace, definition, backtest_world.rows(126, shift=49), as_of=day(126))
    return workspace


@pytest.fixture(scope="session")
def shop_past(shop: Workspace) -> Past:
    return load_past(shop.store, shop.definition("shop"))


@pytest.fixture(scope="session")
def found(shop_past: Past) -> Backtest:
    told: list[tuple[int, int]] = []
    candidates = make_candidates(shop_past.definition, every=WEEK, taken=tuple(BASELINES))
    done = run_backtest(
        shop_past, candidates, every=WEEK, start=day(28), progress=lambda done, total, note: told.append((done, total))
    )
    assert told[0] == (0, 14)
    assert told[-1] == (14, 14)
    return done


class TestMeasure:
    def test_never_keeps_nothing_and_always_everything(self, found: Backtest) -> None:
        assert found.result("never").kept == 0
        assert found.result("always").kept == 1
        assert (found.result("never").retrains, found.result("always").retrains) == (0, 12)
        assert found.result("every 4th").retrains == 3
        assert 0 < found.result("every 8th").kept < found.result("every 4th").kept < 1

    def test_the_loss_is_that_of_the_rows_between_the_moments(self, found: Backtest, shop_past: Past) -> None:
        assert found.windows == 13
        assert found.moments[-1] == day(119)  # of the last week labels lack: they come two days later
        assert found.rows == 91 * backtest_world.ROWS_A_DAY
        never = found.result("never")
        assert never.loss == pytest.approx(np.mean(never.window_losses))
        assert max(never.window_losses[:3]) < 1.5 < min(never.window_losses[3:])

    def test_after_the_shift_the_remedies_come_and_gain(self, found: Backtest) -> None:
        for name, verdict in (("own", "recalibrate"), ("quality", "retrain")):
            result = found.result(name)
            later = [action for action in result.actions if action.as_of > day(49)]
            first = next(action for action in later if action.verdict == verdict)
            assert first.as_of <= day(70), name
            assert first.told, name
            assert 0.5 < result.kept < 1.1, name  # maps may bring more than always-retraining without them
            assert 0 < result.retrains < 12
            assert result.cpu_seconds > 0
        assert found.result("maps only").retrains == 0
        assert found.result("maps only").recalibrations > 0
        assert found.result("quality").recalibrations == 0

    def test_each_trigger_is_a_policy_with_and_without_maps(self, found: Backtest) -> None:
        names = [item.name for item in found.results]
        assert names[:5] == ["never", "always", "every 4th", "every 8th", "own"]
        for trigger in ("quality", "drift", "growth", "schedule 30d", "estimate"):
            assert {trigger, f"{trigger} + maps"} <= set(names)
        assert "own with estimate" in names
        for trigger in ("quality", "drift", "growth", "estimate"):
            policy = found.result(trigger).policy
            assert policy is not None
            assert [name for name, on in policy.triggers if on] == [trigger]

    def test_fits_are_shared(self, found: Backtest) -> None:
        asked = sum(item.retrains + item.promoted for item in found.results)
        assert found.fits < asked

    @pytest.mark.parametrize("limit", [None, 5.0])
    def test_a_row_is_timed_where_the_gate_limits_that_time(self, shop_past: Past, limit: float | None) -> None:
        definition = shop_past.definition
        gate = definition.gate.model_copy(update={"latency_ms": limit})
        limited = definition.model_copy(update={"gate": gate})
        truth = shop_past.at(day(28)).truth[:200]
        made = carry_out(shop_past, Order(limited, np.arange(200), truth, {}, first=200, last=210, timed=0))
        assert (made.latency_ms is None) == (limit is None)
        assert len(made.scores) == 10

    def test_jobs_change_nothing(self, shop_past: Past) -> None:
        runs = [
            run_backtest(
                shop_past, make_candidates(shop_past.definition, every=WEEK)[:2], every=WEEK, start=day(63),
                until=day(84), jobs=jobs,
            )
            for jobs in (1, 3)
        ]  # fmt: skip
        assert [(r.name, r.loss, r.actions) for r in runs[0].results] == [
            (r.name, r.loss, r.actions) for r in runs[1].results
        ]


class TestDoubt:
    def test_the_other_answer_to_doubt_is_told_beside_the_own(self, found: Backtest) -> None:
        other = found.result("own, doubt promotes")
        assert (other.kind, other.policy) == ("doubt", None)
        assert other.retrains > 0
        assert found.advice.name != other.name
        assert "gate.doubt: promote, the own policy saves" in found.advice.doubt
        assert f"with {other.promoted} promotions for {found.result('own').promoted}" in found.advice.doubt

    def test_it_is_the_gates_own_answer_turned_round(self, shop_past: Past) -> None:
        definition = shop_past.definition
        turned = definition.model_copy(update={"gate": definition.gate.model_copy(update={"doubt": "promote"})})
        assert make_candidates(turned, every=WEEK)[-1].doubt == "keep"

    def test_a_newcomer_that_is_surely_worse_is_rolled_back(self, shop_past: Past) -> None:
        """Of one that answers three too much, in a world where nothing else happens."""
        walker = begun(shop_past)
        good = walker.champion
        wrong = replace(good.fit, scores=good.fit.scores + 3)
        walker.champion = replace(good, number=7, fit=wrong, since=day(28), decision_id="d", former=good)
        walker.bases[7] = 7
        for number in (28, 35, 42):
            walker.step(shop_past.at(day(number)))
            if walker.champion.number == good.number:
                break
        undone = next(action for action in walker.actions if action.verdict == "roll back")
        assert undone.as_of == day(35), "five days of labels are enough"
        assert "it is surely worse" in undone.told + undone.reason
        row = next(row for row in walker.ledger if row["kind"] == "rollback")
        assert (row["version"], row["former"], row["decision_id"]) == (7, good.number, "d")
        assert read_history(walker.ledger, day(50)).undone == {"d"}

    def test_a_good_newcomer_stays(self, shop_past: Past) -> None:
        walker = begun(shop_past)
        good = walker.champion
        wrong = replace(good, fit=replace(good.fit, scores=good.fit.scores + 3))
        walker.champion = replace(good, number=7, since=day(28), former=wrong)
        walker.bases[7] = 7
        for number in (28, 35, 42):
            walker.step(shop_past.at(day(number)))
        assert [action for action in walker.actions if action.verdict == "roll back"] == []


def begun(past: Past) -> Walker:
    """The own policy after its first training, with all that may follow switched off."""
    quiet = Monitoring(
        recalibrate=False, triggers=Triggers(quality=False, growth=False, drift=False, schedule=False), window=WEEK
    )
    walker = Walker(Candidate("own", "own", quiet), past, Trainings(past, None, None, WEEK))
    walker.begin(past.at(day(28)))
    return walker


class TestMaps:
    @pytest.mark.parametrize(("sigmas", "maps"), [(50.0, False), (1.0, True)])
    def test_maps_hold_no_retraining_back_for_ever(self, shop_past: Past, sigmas: float, maps: bool) -> None:
        """Quality alone may ask. No map is sure enough to be asked for, or those let in don't mend enough."""
        definition = shop_past.definition
        changed = definition.model_copy(
            update={
                "gate": definition.gate.model_copy(update={"minimum_rows": 50, "holdout_window": timedelta(days=14)}),
                "monitoring": definition.monitoring.model_copy(
                    update={
                        "triggers": Triggers(growth=False, drift=False, schedule=False),
                        "recalibration_strength": 1.0,
                        "recalibration_sigmas": sigmas,
                        "quality_sigmas": 2.0,
                    }
                ),
            }
        )
        past = replace(shop_past, definition=changed)
        candidates = make_candidates(changed, every=WEEK)[:1]
        own = run_backtest(past, candidates, every=WEEK, start=day(42), until=day(91)).result("own")
        assert any(action.verdict == "recalibrate" for action in own.actions) is maps
        retrained = [action for action in own.actions if action.verdict == "retrain"]
        assert day(49) < retrained[0].as_of <= day(77)
        assert own.kept > 0.3


class TestTuning:
    def test_each_fit_is_tuned_and_remembered(self, shop: Workspace, shop_past: Past, tmp_path: Path) -> None:
        definition = shop_past.definition
        tuning = definition.training.tuning.model_copy(update={"trials": 2, "workers": 1})
        tuned = definition.model_copy(update={"training": definition.training.model_copy(update={"tuning": tuning})})
        past = replace(shop_past, definition=tuned)
        runs, trials = [], []
        for _ in range(2):
            candidates = make_candidates(tuned, every=WEEK)[:1]
            found = run_backtest(past, candidates, every=WEEK, start=day(56), until=day(70), tuning_folder=tmp_path)
            runs.append([(item.name, item.loss) for item in found.results])
            trials.append((tmp_path / "tuning.journal").read_text().count('"user_attrs"'))
        assert runs[0] == runs[1]
        assert trials[0] == trials[1] >= 2 * 2  # two trials for each moment's training, none in the second run

    def test_what_is_not_replayed_is_told(self, shop: Workspace) -> None:
        definition = shop.definition("shop")
        changed = definition.model_copy(
            update={
                "retraining": definition.retraining.model_copy(update={"schedule": "0 3 1 * *"}),
                "gate": definition.gate.model_copy(update={"approval": "human"}),
            }
        )
        found = backtest_model(shop, changed, start=day(56), until=day(70))
        assert [note.partition(" ")[0] for note in found.notes] == ["trainings", "gate.approval"]


class TestKnownWhen:
    def test_labels_count_from_when_they_are_known(self, workspace: Workspace) -> None:
        """The same rows with later labels: the shift is seen that much later."""
        seen = {}
        for delay in ("2d", "16d"):
            alone = {"triggers": {"growth": False, "drift": False}, "recalibrate": False}
            definition = backtest_world.define(workspace, data={"label_delay": delay}, monitoring=alone)
            path = Path(workspace.settings.home_path) / f"tables-{delay}"
            store = replace_store(workspace, path)
            frame = backtest_world.rows(126, shift=63)
            backtest_world.ingest_past(store, definition, frame, as_of=day(126))
            past = load_past(store.store, definition)
            found = run_backtest(
                past, make_candidates(definition, every=WEEK)[:1], every=WEEK, start=day(49), until=day(105)
            )
            actions = found.result("own").actions
            seen[delay] = actions[0].as_of
            truth = past.at(day(70)).truth
            known = past.times <= int((day(70) - timedelta(days=int(delay[:-1]))).timestamp() * 1e6)
            assert (np.isfinite(truth) == known).all()
        assert day(63 + 2) <= seen["2d"] <= day(84)
        assert seen["16d"] >= max(day(63 + 16), seen["2d"] + WEEK)

    def test_truth_of_the_future_changes_no_decision_before(self, shop: Workspace, shop_past: Past) -> None:
        """Turn every label that is known after a moment upside down: what was decided until then stays."""
        cut = day(91)
        late = shop_past.label_moments > int(cut.timestamp() * 1e6)
        other = replace(shop_past, label_truth=np.where(late, -50.0, shop_past.label_truth))
        candidates = make_candidates(shop_past.definition, every=WEEK)[:1]
        first, second = (
            run_backtest(each, candidates, every=WEEK, start=day(70), until=day(105)) for each in (shop_past, other)
        )
        until = [decision for decision in first.decisions["own"] if decision.as_of <= cut]
        assert len(until) == 3
        assert until == [decision for decision in second.decisions["own"] if decision.as_of <= cut]
        assert first.decisions["own"] != second.decisions["own"]


class TestAdvice:
    def test_the_fewest_trainings_near_the_best(self, found: Backtest) -> None:
        advice = found.advice
        assert advice.name is not None
        best = min((item for item in found.results if item.policy), key=lambda item: item.loss)
        chosen = found.result(advice.name)
        assert advice.best == best.name
        assert chosen.kept >= best.kept - 0.05
        near = [item for item in found.results if item.policy and item.kept >= best.kept - 0.05]
        assert chosen.retrains == min(item.retrains for item in near)
        low, high = advice.shortfall_interval
        assert low <= advice.shortfall <= high

    def test_too_few_windows_are_told_in_numbers(self, shop_past: Past) -> None:
        short = run_backtest(
            shop_past, make_candidates(shop_past.definition, every=WEEK)[:1], every=WEEK, start=day(56), until=day(91)
        )
        assert short.advice.name is None
        assert short.advice.reason == (
            "5 windows of 7d are too few to tell policies apart: 12 are needed, that is 7 more (49d)"
        )

    def test_a_gain_that_may_be_nothing_is_not_shared_out(self, found: Backtest) -> None:
        generator = np.random.default_rng(0)
        window = np.repeat(np.arange(20), 30)
        losses = {item.name: generator.normal(1, 0.1, len(window)) for item in found.results}
        advice = advise(found.results, losses, window, WEEK)
        assert advice.name is None
        assert "there is no sure gain of which a policy could keep a share" in advice.reason


class TestRefusals:
    def test_a_history_that_is_too_short(self, shop_past: Past) -> None:
        with pytest.raises(DataError) as caught:
            run_backtest(shop_past, make_candidates(shop_past.definition, every=WEEK), every=WEEK, start=day(112))
        assert str(caught.value).startswith(
            "shop has labelled rows from 2024-01-01 00:00 to 2024-05-04 00:00; after the first training at 2024-04-22 "
            "00:00 that is 1 windows of 7d, and 2 are the least."
        )

    def test_a_start_before_a_model_can_be_trained(self, shop_past: Past) -> None:
        with pytest.raises(DataError, match=r"training\.minimum_rows is 100"):
            run_backtest(shop_past, make_candidates(shop_past.definition, every=WEEK), every=WEEK, start=day(5))

    def test_tables_without_labels(self, workspace: Workspace) -> None:
        definition = backtest_world.define(workspace)
        with pytest.raises(DataError, match="shop has 0 ingested rows and no labels"):
            load_past(workspace.store, definition)

    def test_rows_that_were_all_ingested_today(self, workspace: Workspace) -> None:
        definition = backtest_world.define(workspace)
        suite = backtest_world.suite(workspace)
        frame = backtest_world.rows(60, shift=None)
        ingest_batch(workspace.store, definition, frame, suite, source="file", as_of=day(200))
        with pytest.raises(DataError, match="at no moment until"):
            run_backtest(load_past(workspace.store, definition), make_candidates(definition, every=WEEK), every=WEEK)

    def test_an_id_of_the_past_is_one_row(self, shop_past: Past) -> None:
        assert shop_past.frame[ROW_ID].is_unique


def test_a_real_set(workspace: Workspace) -> None:
    """New South Wales' electricity: a classification with trees, whose loss is measured per row."""
    path = Path(__file__).parents[4] / "shared" / "data" / "elec2" / "elec2.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    frame = pd.read_parquet(path).head(9000)
    frame["row"] = [f"e{number:05}" for number in range(len(frame))]
    frame["when"] = pd.date_range(backtest_world.START, periods=len(frame), freq="30min").as_unit("us")
    numeric = ["period", "nswdemand", "vicprice", "vicdemand", "transfer"]
    raw = {
        **backtest_world.RAW, "task": "classification",
        "data": backtest_world.RAW["data"] | {"target": "y"},
        "features": {"numeric": numeric},
        "training": {"estimator": "hist_gradient_boosting", "parameters": {"max_iter": 20}},
        "gate": {},
    }  # fmt: skip
    definition = backtest_world.define(workspace, json.dumps(raw))
    backtest_world.ingest_past(workspace, definition, frame, as_of=day(188))
    past = load_past(workspace.store, definition)
    found = run_backtest(past, make_candidates(definition, every=WEEK)[:1], every=4 * WEEK, start=day(56))
    never, always = found.result("never"), found.result("always")
    assert (found.loss, found.windows) == ("log_loss", 4)
    assert never.loss < always.loss < 0.693  # so early, always retraining brings nothing: of nothing there is no share
    assert np.isnan(never.kept)
    assert np.isnan(always.kept)
    assert sum(found.result("own").checks.values()) == 3
    assert found.advice.name is None


def replace_store(workspace: Workspace, tables: Path) -> Workspace:
    """The same workspace over other tables."""
    return Workspace(workspace.settings.model_copy(update={"tables": str(tables)}))
