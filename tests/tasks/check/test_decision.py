"""The verdict: pure, monotone, within cooldown and budget, and repair before everything."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from decision_world import START, WEEK, make_frame, make_inputs, make_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from perennial.definition import Monitoring, Triggers
from perennial.errors import DataError
from tasks.calibration.fit import carried_strength
from tasks.check.decision import CheckInputs, Decision, check, decide
from tasks.check.history import outcome_row, read_history, recalibration_row
from tasks.check.inputs import MOST_MATURE_WINDOWS, join_labels, mature_windows, suffice
from tasks.check.reference import Reference
from tasks.check.signal import Signal
from tasks.check.signals.maps import map_court, refit_map
from tasks.check.signals.quality import await_truth, in_flight
from tasks.check.text import render_markdown, render_text

FRAME = make_frame(30)
REFERENCE = make_reference(FRAME[FRAME["time"] < pd.Timestamp(START + 13 * WEEK)])
AS_OF = START + 20 * WEEK
CALM = Monitoring(growth=10, recalibration_sigmas=3)
NO_MAPS = Monitoring(growth=10, recalibrate=False)


def _inputs(**changes: Any) -> CheckInputs:
    return make_inputs(REFERENCE, FRAME, AS_OF, **changes)


def _worse(inputs: CheckInputs, by: float) -> CheckInputs:
    """Scores that lose `by` in logits against the truth, in the direction that no map of the score can mend."""
    mature = inputs.mature.merge(inputs.labels[["id", "truth"]], on="id")
    wrong = expit(logit(mature["score"]) - by * np.where(mature["truth"] == 1, 1, -1))
    return replace(inputs, mature=mature.assign(score=wrong).drop(columns="truth"))


def _row(verdict: str, at: datetime, fired: tuple[str, ...] = (), version: str = "1") -> dict[str, Any]:
    signals = [Signal(name, "drift", 2.0, 1.0, "", True, True, "").to_dict() for name in fired]
    given = Decision(f"{verdict} {at}", "world", at, version, "", "hold", (), (), (), {}, "").to_dict()
    return {**given, "verdict": verdict, "signals": signals}


def test_a_calm_world_holds_and_says_why() -> None:
    decision = check(_inputs(), CALM, as_of=AS_OF)
    assert decision.verdict == "hold"
    assert "within the limit" in decision.reasons[0]
    assert any("retrain, if growth were above 10" in text for text in decision.would_change)
    assert decision.evidence["coverage"] == 1.0
    assert len(decision.evidence["coverage_by_age"]) == 4


def test_the_same_check_is_the_same_decision_and_survives_json() -> None:
    first, second = (check(_inputs(), CALM, as_of=AS_OF) for _ in range(2))
    assert first == second
    assert Decision.from_dict(json.loads(json.dumps(first.to_dict(), allow_nan=False))).to_dict() == first.to_dict()
    assert check(_inputs(), Monitoring(growth=11), as_of=AS_OF).decision_id != first.decision_id
    assert check(_inputs(champion_version="2"), CALM, as_of=AS_OF).decision_id != first.decision_id


def test_reference_survives_json_and_decides_alike() -> None:
    stored = Reference.from_dict(json.loads(json.dumps(REFERENCE.to_dict(), allow_nan=False)))
    decision = check(replace(_inputs(), reference=stored), CALM, as_of=AS_OF)
    assert decision.to_dict() == check(_inputs(), CALM, as_of=AS_OF).to_dict()
    with pytest.raises(DataError, match="format"):
        Reference.from_dict({"format": 0})


def test_the_order_of_rows_is_of_no_account() -> None:
    inputs = _inputs()
    shuffled = replace(
        inputs,
        mature=inputs.mature.sample(frac=1, random_state=0, ignore_index=True),
        labels=inputs.labels.sample(frac=1, random_state=0, ignore_index=True),
    )
    assert check(shuffled, CALM, as_of=AS_OF).to_dict() == check(inputs, CALM, as_of=AS_OF).to_dict()


def test_what_comes_later_does_not_change_a_check_of_the_past() -> None:
    inputs = _inputs()
    wrong = inputs.labels.assign(truth=1 - inputs.labels["truth"], labelled_at=pd.Timestamp(AS_OF + WEEK))
    later = replace(
        inputs,
        labels=pd.concat([inputs.labels, wrong], ignore_index=True),
        ledger=(_row("retrain", AS_OF), _row("retrain", AS_OF + WEEK)),
    )
    assert check(later, CALM, as_of=AS_OF).to_dict() == check(inputs, CALM, as_of=AS_OF).to_dict()


def test_corrected_labels_count_once_they_are_known() -> None:
    inputs = _inputs()
    wrong = inputs.labels.assign(truth=1 - inputs.labels["truth"], labelled_at=pd.Timestamp(AS_OF))
    corrected = replace(inputs, labels=pd.concat([wrong, inputs.labels], ignore_index=True))
    loss = check(corrected, CALM, as_of=AS_OF).evidence["loss"]["mean"]
    assert loss > check(inputs, CALM, as_of=AS_OF).evidence["loss"]["mean"]


def test_fallen_quality_retrains() -> None:
    decision = check(_worse(_inputs(), 1.5), NO_MAPS, as_of=AS_OF)
    assert decision.verdict == "retrain"
    assert "above the limit" in decision.reasons[0]
    assert decision.would_change[0].startswith("hold, if loss were at most")


class TestFewRows:
    """Windows with fewer rows than a judgement needs are judged together, or nobody would ever be."""

    @staticmethod
    def thin(inputs: CheckInputs, rows: int = 40) -> CheckInputs:
        """So many mature rows a week."""
        week = ((pd.Timestamp(AS_OF) - inputs.mature["time"]) // WEEK).rename("week")
        return replace(inputs, mature=inputs.mature.groupby(week).head(rows).reset_index(drop=True))

    def test_a_fall_is_seen_on_several_windows(self) -> None:
        decision = check(self.thin(_worse(_inputs(), 1.5)), NO_MAPS, as_of=AS_OF)
        assert decision.verdict == "retrain"
        assert "on 120 mature rows of 3 windows, above the limit" in decision.reasons[0]
        assert decision.evidence["mature_windows"] == 3

    def test_ample_rows_are_those_of_one_window(self) -> None:
        decision = check(_worse(_inputs(), 1.5), NO_MAPS, as_of=AS_OF)
        assert decision.evidence["mature_windows"] == 1
        assert "windows" not in decision.reasons[0]

    def test_labels_that_are_late_are_waited_for(self) -> None:
        """Older rows would hide it."""
        inputs = _inputs()
        recent = inputs.mature["id"][inputs.mature["time"] >= pd.Timestamp(AS_OF - 2 * WEEK)]
        late = inputs.labels[~inputs.labels["id"].isin(recent.iloc[50:])]
        decision = check(replace(inputs, labels=late), NO_MAPS, as_of=AS_OF)
        assert not decision.evidence["judged"]
        assert decision.evidence["mature_windows"] == 1

    def test_older_rows_by_themselves_judge_nothing_again(self) -> None:
        inputs = self.thin(_worse(_inputs(), 1.5))
        old = inputs.mature[inputs.mature["time"] < pd.Timestamp(AS_OF - 2 * WEEK)].reset_index(drop=True)
        decision = check(replace(inputs, mature=old), NO_MAPS, as_of=AS_OF)
        assert not decision.evidence["judged"]
        assert decision.verdict == "hold"

    @given(st.lists(st.integers(0, 150), min_size=12, max_size=12), st.integers(1, 12), st.floats(0, 1))
    def test_no_more_is_read_than_it_takes(self, rows: list[int], least: int, labelled: float) -> None:
        policy = Monitoring(mature_windows=least)

        def count(windows: int) -> tuple[int, int]:
            return sum(rows[:windows]), int(sum(rows[:windows]) * labelled)

        windows = mature_windows(policy, count)
        assert least <= windows <= MOST_MATURE_WINDOWS
        if windows > least:
            assert not suffice(policy, *count(windows - 1))
        assert windows == MOST_MATURE_WINDOWS or suffice(policy, *count(windows)) or not sum(rows[:windows])


def test_a_fall_that_a_map_mends_is_not_retrained() -> None:
    inputs = _inputs()
    fired = _row("hold", AS_OF - timedelta(days=3), ("loss",))
    bent = inputs.mature.assign(score=expit(logit(inputs.mature["score"]) + 2))
    bent = replace(inputs, mature=bent, ledger=(fired,))
    policy = CALM.model_copy(update={"recalibration_strength": 1.0})
    decision = check(bent, policy, as_of=AS_OF)
    assert decision.verdict == "recalibrate"
    assert any("a new map would bring it to" in s.detail for s in decision.signals if s.fired)
    assert check(bent, NO_MAPS, as_of=AS_OF).verdict == "retrain"
    rested = replace(bent, ledger=(fired, _row("recalibrate", AS_OF - timedelta(days=2))))
    assert check(rested, policy, as_of=AS_OF).verdict == "retrain"


def _bent(*ledger: dict[str, Any]) -> tuple[CheckInputs, Monitoring]:
    """A fall of quality that a new map would mend, after this ledger."""
    inputs = _inputs()
    mature = inputs.mature.assign(score=expit(logit(inputs.mature["score"]) + 2))
    return replace(inputs, mature=mature, ledger=ledger), CALM.model_copy(update={"recalibration_strength": 1.0})


def _ago(days: float) -> datetime:
    return AS_OF - timedelta(days=days)


@pytest.mark.parametrize("verdict", ["keep", "insufficient evidence"])
def test_a_map_that_the_gate_refused_holds_no_retraining_back(verdict: Any) -> None:
    fired = _row("hold", _ago(7), ("loss",))
    mine, other = (recalibration_row(None, _ago(8), verdict, champion_version=version) for version in ("1", "0"))
    inputs, policy = _bent(fired, mine)
    decision = check(inputs, policy, as_of=AS_OF)
    assert decision.verdict == "retrain"
    assert "but one was tried" in decision.reasons[0]
    assert check(replace(inputs, ledger=(fired, other)), policy, as_of=AS_OF).verdict == "recalibrate"
    # A check of the time before the refusal goes on to say what it said then.
    later = recalibration_row(None, AS_OF, verdict, champion_version="1")
    assert check(replace(inputs, ledger=(fired, later)), policy, as_of=AS_OF).verdict == "recalibrate"
    let_in = recalibration_row(None, _ago(7.5), "promote", champion_version="1")
    assert check(replace(inputs, ledger=(fired, mine, let_in)), policy, as_of=AS_OF).verdict == "recalibrate"


@pytest.mark.parametrize("came_of_it", ["promote", None])
def test_a_map_in_force_under_which_quality_is_still_fallen_holds_no_retraining_back(came_of_it: Any) -> None:
    """Let in, or asked for and failed: there is no second chance within one fall."""
    asked = _row("recalibrate", _ago(8), ("loss",), version="0")
    rows = [recalibration_row(asked["decision_id"], _ago(8), came_of_it, champion_version="0")] if came_of_it else []
    inputs, policy = _bent(asked, *rows)
    inputs = replace(inputs, base_versions={"0": "1"})
    assert check(inputs, policy, as_of=AS_OF).verdict == "retrain"
    # A calm check between two falling ones starts no new fall, or maps could be asked for in turn for ever.
    calm = _row("hold", _ago(4), version="0")
    gap = replace(inputs, ledger=(_row("hold", _ago(10), ("loss",), version="0"), asked, *rows, calm))
    assert check(gap, policy, as_of=AS_OF).verdict == "retrain"
    # Another fall, long after one that a map mended, gets its map.
    quiet = [_row("hold", _ago(days), version="0") for days in (20, 15, 12)]
    again = replace(inputs, ledger=(*[row | {"as_of": _ago(30)} for row in (asked, *rows)], *quiet))
    again = replace(again, ledger=(*again.ledger, _row("hold", _ago(2), ("loss",))))
    assert check(again, policy, as_of=AS_OF).verdict == "recalibrate"


def test_a_score_that_a_map_mends_is_recalibrated() -> None:
    inputs = _inputs()
    bent = inputs.mature.assign(score=expit(0.8 * logit(inputs.mature["score"]) + 0.25))
    policy = CALM.model_copy(update={"quality_sigmas": 50.0})
    assert check(replace(inputs, mature=bent), policy, as_of=AS_OF).verdict == "recalibrate"
    never = policy.model_copy(update={"recalibrate": False})
    assert check(replace(inputs, mature=bent), never, as_of=AS_OF).verdict == "hold"


def test_few_labels_judge_nothing_and_say_so() -> None:
    inputs = _inputs()
    early = replace(_worse(inputs, 3), labels=inputs.labels[: len(inputs.labels) - 600])
    decision = check(early, CALM, as_of=AS_OF)
    assert not decision.evidence["judged"]
    assert any("are needed to judge" in s.detail for s in decision.signals if s.kind == "quality")
    assert decision.verdict != "retrain"


def _early(inputs: CheckInputs, costly_first: bool) -> CheckInputs:
    """The newer half of the mature week has a third of its labels: those that cost most, or least, came first."""
    mature = inputs.mature.merge(inputs.labels[["id", "truth"]], on="id")
    young = mature["time"] >= pd.Timestamp(AS_OF - 1.5 * WEEK)
    cost = np.abs(mature["truth"] - mature["score"]).where(young)
    first = cost.rank(ascending=not costly_first, pct=True) <= 1 / 3
    late = mature["id"][young & ~first]
    return replace(inputs, labels=inputs.labels[~inputs.labels["id"].isin(late)].reset_index(drop=True))


def test_labels_that_came_first_neither_trigger_nor_hide() -> None:
    """Coverage is above the least one, but the young rows' labels are a biased few: they are not judged by."""
    newest = _inputs().mature["time"] >= pd.Timestamp(AS_OF - 2 * WEEK)
    good = replace(_inputs(), mature=_inputs().mature[newest].reset_index(drop=True))
    policy = NO_MAPS.model_copy(update={"mature_windows": 1})
    wanted = {"good": ("hold", good, True), "bad": ("retrain", _worse(good, 1.5), False)}
    for name, (verdict, inputs, costly_first) in wanted.items():
        decision = check(_early(inputs, costly_first), policy, as_of=AS_OF)
        assert decision.evidence["coverage"] > policy.minimum_coverage, name
        assert decision.evidence["judged"], name
        assert decision.verdict == verdict, name
        full = check(inputs, policy, as_of=AS_OF).evidence["loss"]
        early = decision.evidence["loss"]
        assert early["rows"] < 0.6 * full["rows"], name
        assert early["mean"] == pytest.approx(full["mean"], rel=0.1), name
    biased = _early(good, costly_first=True)
    rows = refit_map(join_labels(biased, policy, AS_OF), map_court(biased, policy, None)).rows
    assert rows == check(biased, policy, as_of=AS_OF).evidence["loss"]["rows"]  # no map is fitted on them either


def test_labels_that_only_a_share_of_rows_ever_gets_are_judged_by() -> None:
    inputs = _inputs()
    kept = np.random.default_rng(0).random(len(inputs.labels)) < 0.6
    decision = check(replace(inputs, labels=inputs.labels[kept].reset_index(drop=True)), CALM, as_of=AS_OF)
    assert decision.evidence["judged"]
    assert decision.evidence["loss"]["rows"] == decision.evidence["mature_labels"]


def test_weeks_of_the_past_tell_how_many_labels_are_still_to_come() -> None:
    """Six in ten at every age of this week, nine in ten a week before: the rest of this week's are on their way."""
    inputs = _inputs()
    chance = np.random.default_rng(0).random(len(inputs.mature))
    newest = (inputs.mature["time"] >= pd.Timestamp(AS_OF - 2 * WEEK)).to_numpy()
    known = chance < np.where(newest, 0.6, 0.9)
    labels = inputs.labels[~inputs.labels["id"].isin(inputs.mature["id"][~known])].reset_index(drop=True)
    early = replace(inputs, mature=inputs.mature[newest].reset_index(drop=True), labels=labels)
    assert check(early, CALM, as_of=AS_OF).evidence["judged"]
    decision = check(replace(early, past=inputs.mature[~newest]), CALM, as_of=AS_OF)
    assert not decision.evidence["judged"]
    assert any("of an age at which all labels have come" in s.detail for s in decision.signals if s.kind == "quality")


def test_predictions_of_another_version_are_not_held_against_this_one() -> None:
    inputs = _worse(_inputs(), 3)
    decision = check(replace(inputs, mature=inputs.mature.assign(version="0")), CALM, as_of=AS_OF)
    assert not decision.evidence["judged"]


def test_versions_of_one_model_are_judged_together_under_the_map_in_force() -> None:
    inputs = _inputs()
    bent = expit(0.8 * logit(inputs.mature["score"]) + 0.25)
    old = replace(
        inputs, mature=inputs.mature.assign(version="0", score=bent, raw_score=bent), base_versions={"0": "1"}
    )
    whole = CALM.model_copy(update={"recalibration_strength": 1.0})
    mended = refit_map(join_labels(old, whole, AS_OF), map_court(old, whole, None))
    before = check(old, CALM, as_of=AS_OF)
    after = check(replace(old, recalibrator=mended), CALM, as_of=AS_OF)
    assert before.evidence["judged"]
    assert before.verdict == "recalibrate"
    assert after.verdict == "hold"
    assert after.evidence["loss"]["mean"] < before.evidence["loss"]["mean"]
    rested = replace(old, ledger=(_row("recalibrate", AS_OF - timedelta(days=2)),))
    assert check(rested, CALM, as_of=AS_OF).verdict == "hold"


def test_persistent_drift_acts_only_where_labels_cannot_judge() -> None:
    inputs = _inputs()
    moved = replace(inputs, window=inputs.window.assign(speed=inputs.window["speed"] + 8))
    ledger = tuple(_row("hold", AS_OF - days * timedelta(days=1), ("drift",)) for days in (2, 1))
    assert check(replace(moved, ledger=ledger), CALM, as_of=AS_OF).verdict != "retrain"
    blind = replace(moved, ledger=ledger, labels=inputs.labels[:0])
    assert check(blind, CALM, as_of=AS_OF).verdict == "retrain"
    always = CALM.model_copy(update={"drift_alone": "always"})
    assert check(replace(moved, ledger=ledger), always, as_of=AS_OF).verdict == "retrain"
    off = CALM.model_copy(update={"triggers": Triggers(drift=False)})
    assert check(blind, off, as_of=AS_OF).verdict != "retrain"


def test_training_rows_without_an_answer_are_no_missing_answers() -> None:
    """Out-of-sample answers are known of the newest training rows only: the others pad the profile."""
    training = FRAME[FRAME["time"] < pd.Timestamp(START + 13 * WEEK)]
    scores = training["chance"].where(training["time"] >= pd.Timestamp(START + 10 * WEEK)).to_numpy()
    decision = check(make_inputs(make_reference(training, scores=scores), FRAME, AS_OF), CALM, as_of=AS_OF)
    (answered,) = [signal for signal in decision.signals if signal.name.startswith("drift of (prediction)")]
    assert answered.name == "drift of (prediction)"
    assert "missing +0.0%" in answered.detail
    assert answered.value is not None
    assert answered.threshold is not None
    assert decision.evidence["drift"]["(prediction)"] == pytest.approx(answered.value / answered.threshold, abs=1e-5)
    ratios = list(decision.evidence["drift"].values())
    assert ratios == sorted(ratios, reverse=True)


def test_drift_of_one_check_waits_for_the_next() -> None:
    inputs = _inputs(labels=_inputs().labels[:0])
    moved = replace(inputs, window=inputs.window.assign(speed=inputs.window["speed"] + 8))
    assert check(moved, CALM.model_copy(update={"extreme": 100.0}), as_of=AS_OF).verdict == "hold"


def test_old_champion_is_retrained_by_schedule() -> None:
    policy = CALM.model_copy(update={"maximum_age": timedelta(days=30)})
    assert check(_inputs(), policy, as_of=AS_OF).verdict == "retrain"
    off = policy.model_copy(update={"triggers": Triggers(schedule=False)})
    assert check(_inputs(), off, as_of=AS_OF).verdict == "hold"


def test_grown_data_retrains_and_fruitless_tries_raise_the_bar() -> None:
    policy = Monitoring(growth=1.5, recalibrate=False)
    rows = REFERENCE.trained_rows
    grown = _inputs(labelled_rows=round(1.6 * rows))
    assert check(grown, policy, as_of=AS_OF).verdict == "retrain"
    tried = outcome_row("x", AS_OF - 3 * WEEK, "keep", gain=-0.01, champion_loss=0.5, trained_rows=round(1.5 * rows))
    assert check(replace(grown, ledger=(tried,)), policy, as_of=AS_OF).verdict == "hold"
    more = replace(grown, ledger=(tried,), labelled_rows=round(1.5 * 1.8 * rows))
    assert check(more, policy, as_of=AS_OF).verdict == "retrain"


def test_the_record_is_one_that_people_can_read() -> None:
    decision = check(_worse(_inputs(), 1.5), NO_MAPS, as_of=AS_OF)
    text, markdown = render_text(decision), render_markdown(decision)
    for part in ("RETRAIN", "world v1", "Why", "Signals", "What would have changed it", "Evidence", "Next"):
        assert part in text
    assert decision.decision_id in text
    assert "where the limit comes from" in markdown
    assert markdown.count("\n| ") >= 5
    assert max(map(len, text.splitlines())) < 200


def test_a_moment_without_a_zone_and_a_frame_without_its_columns_are_refused() -> None:
    with pytest.raises(DataError, match="time zone"):
        check(_inputs(), CALM, as_of=AS_OF.replace(tzinfo=None))
    with pytest.raises(DataError, match="lack labelled_at"):
        check(_inputs(labels=_inputs().labels.drop(columns="labelled_at")), CALM, as_of=AS_OF)


KINDS = ("quality", "drift", "growth", "schedule", "recalibration", "health")
MOMENT = datetime(2025, 1, 1, tzinfo=UTC)


@st.composite
def _signals(draw: st.DrawFn) -> tuple[Signal, ...]:
    made = []
    for kind in KINDS:
        if draw(st.booleans()):
            fired = draw(st.booleans())
            name = "drift" if kind == "drift" else kind
            persistent = fired and draw(st.booleans())
            made.append(Signal(name, kind, draw(st.floats(0, 10)), 1.0, "", fired, persistent, kind))  # type: ignore[arg-type]
    return tuple(made)


ledgers = st.lists(
    st.tuples(st.sampled_from(["hold", "retrain", "recalibrate", "repair"]), st.floats(0.01, 60)), max_size=12
)


def _history(rows: list[tuple[str, float]]) -> Any:
    made = [_row(verdict, MOMENT - timedelta(days=days)) for verdict, days in rows]
    return read_history([{**row, "decision_id": str(number)} for number, row in enumerate(made)], MOMENT)


@settings(max_examples=300, deadline=None)
@given(_signals(), ledgers, st.integers(0, 4), st.floats(0, 30), st.booleans())
def test_laws_of_the_verdict(
    signals: tuple[Signal, ...], rows: list[tuple[str, float]], budget: int, cooldown: float, blind: bool
) -> None:
    policy = Monitoring(retrains_per_month=budget, cooldown=timedelta(days=cooldown))
    found = decide(signals, policy, _history(rows), MOMENT, blind=blind)
    assert found == decide(signals, policy, _history(rows), MOMENT, blind=blind)
    broken = any(s.kind == "health" and s.persistent for s in signals)
    assert (found.verdict == "repair") == broken
    assert found.reasons
    retrained = [days for verdict, days in rows if verdict == "retrain"]
    if found.verdict == "retrain":
        assert min(retrained, default=np.inf) >= cooldown - 1e-6
        assert sum(days <= 30 for days in retrained) < budget
        assert any(s.persistent for s in signals)
    if found.verdict == "recalibrate":
        assert any(s.kind == "recalibration" and s.persistent for s in signals)


@settings(max_examples=100, deadline=None)
@given(_signals(), ledgers, st.booleans())
def test_one_more_persistent_loss_never_softens_a_retrain(
    signals: tuple[Signal, ...], rows: list[tuple[str, float]], blind: bool
) -> None:
    policy = Monitoring()
    before = decide(signals, policy, _history(rows), MOMENT, blind=blind).verdict
    loss = Signal("loss", "quality", 9.0, 1.0, "", True, True, "loss")
    after = decide((*(s for s in signals if s.kind != "quality"), loss), policy, _history(rows), MOMENT, blind=blind)
    if before == "retrain":
        assert after.verdict == "retrain"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "allowed"), [(NO_MAPS, {"retrain"}), (CALM, {"retrain", "recalibrate"})], ids=["no maps", "maps"]
)
def test_more_loss_never_turns_a_retrain_into_a_hold(policy: Monitoring, allowed: set[str]) -> None:
    inputs = _inputs()
    verdicts = [check(_worse(inputs, by), policy, as_of=AS_OF).verdict for by in np.linspace(0, 2, 8)]
    assert verdicts[0] != "retrain", "or the law is about nothing"
    first = verdicts.index("retrain")
    assert set(verdicts[first:]) <= allowed


def test_maps_of_one_model_are_one_model_when_it_is_asked_whether_maps_carry() -> None:
    """Each recalibration is a version of its own: by versions, no two windows could ever be compared."""
    rng, parts = np.random.default_rng(0), []
    for week in range(8):
        raw = np.clip(rng.normal(0.5, 0.2, 300), 0.01, 0.99)
        odd = week % 3 == 0
        truth = (rng.random(300) < (1 - raw if odd else raw)).astype(float)
        times = pd.Timestamp(AS_OF - (10 - week) * WEEK) + pd.to_timedelta(np.sort(rng.uniform(0, 7, 300)), unit="D")
        named = {"version": str(week), "raw_score": raw, "truth": truth, "refused": False}
        parts.append(pd.DataFrame({"time": times, **named}))
    past, bases = pd.concat(parts, ignore_index=True), {str(week): "0" for week in range(8)}
    apart, together = _inputs(), replace(_inputs(), base_versions=bases)
    policy = Monitoring()
    assert map_court(apart, policy, past).strength > 0
    court = map_court(together, policy, past)
    assert court.strength == 0
    assert "earlier windows would have changed the loss of later ones by +" in court.note
    assert map_court(together, policy, past.assign(refused=True)).strength > 0, "what is refused says nothing of maps"


def test_growth_does_not_ask_again_while_a_training_is_in_flight() -> None:
    asked = AS_OF - timedelta(days=8)
    tried = outcome_row(None, asked, "promote", gain=0.01, champion_loss=0.5, trained_rows=1000)
    policy = NO_MAPS.model_copy(update={"growth": 1.1, "cooldown": timedelta(days=1)})
    grown = replace(_inputs(labelled_rows=1_000_000), ledger=(tried,))
    (signal,) = (s for s in check(grown, policy, as_of=AS_OF).signals if s.name == "growth")
    assert signal.fired
    assert not signal.persistent
    assert f"no label has shown yet what the training of {asked:%Y-%m-%d}" in signal.detail
    later = check(replace(grown, ledger=()), policy, as_of=AS_OF)
    assert later.verdict == "retrain"


def test_drift_does_not_ask_again_while_a_training_is_in_flight() -> None:
    """Blind checks ask once; until a window after that training has its truth, the same drift asks no more."""
    inputs = _inputs(label_delay=5 * WEEK, labelled_rows=10 * REFERENCE.trained_rows)
    policy = CALM.model_copy(update={"label_patience": WEEK})
    drifting = Signal("drift", "drift", 3.0, 1.0, "", True, True, "it drifts")
    estimated = Signal("estimated_loss", "estimate", 2.0, 1.0, "", True, True, "it is worse")
    for ago, silent in ((1, True), (5, True), (5.9, True), (6, False), (20, False)):
        history = read_history([_row("retrain", AS_OF - ago * WEEK)], AS_OF)
        since = in_flight(inputs, policy, history, AS_OF)
        assert (since is not None) is silent, ago
        told = await_truth((estimated, drifting), inputs, history, since)
        assert all(signal.persistent is not silent for signal in told)
        assert all(signal.fired for signal in told), "it is measured and told all the same"
        assert all(("no label has shown yet" in signal.detail) is silent for signal in told)


def test_where_no_label_is_newer_nothing_is_to_be_learned() -> None:
    known = REFERENCE.trained_rows
    drifting = (Signal("drift", "drift", 3.0, 1.0, "", True, True, "it drifts"),)
    nothing = read_history([], AS_OF)
    (told,) = await_truth(drifting, _inputs(labelled_rows=known), nothing, None)
    assert not told.persistent
    assert "no label is newer" in told.detail
    assert await_truth(drifting, _inputs(labelled_rows=known + 1), nothing, None) == drifting


@given(late=st.floats(0, 30), strength=st.floats(0.05, 1))
def test_the_later_the_labels_the_weaker_the_map(late: float, strength: float) -> None:
    policy = Monitoring(recalibration_strength=strength)
    carried = carried_strength(policy, late * policy.window)
    assert 0 < carried <= strength
    assert carried >= carried_strength(policy, (late + 1) * policy.window)
    assert carried_strength(policy, policy.window) == pytest.approx(strength), "a window late is what it is chosen for"
