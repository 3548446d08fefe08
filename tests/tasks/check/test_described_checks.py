"""Texts and images in a check: what moved is seen and said, what is broken is complained of, and nothing else fires."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from decision_world import START, WEEK, make_frame, make_inputs, make_reference
from described_world import english, picture, unspaced

from perennial.definition import Monitoring
from perennial.errors import DataError
from tasks.check.decision import Decision, check
from tasks.check.estimate.estimates import loss_inputs
from tasks.check.plain import summary
from tasks.check.reference import Reference
from tasks.check.text import render_text
from tasks.check.window import add_up, read_facts

POLICY = Monitoring(growth=10)
AS_OF = START + 15 * WEEK
IMPORTANCE = {"speed": 0.4, "comment": 0.3, "photo": 0.3}


@cache
def _frame() -> pd.DataFrame:
    frame = make_frame(16, per_day=24)
    comments = [english(seed) for seed in range(len(frame))]
    photos = [picture(seed) for seed in range(len(frame))]
    return frame.assign(
        comment=pd.Series(comments, dtype="str").mask(frame["id"].str.endswith("7")),
        photo=pd.Series(photos, dtype=object),
    )


@cache
def _reference() -> Reference:
    frame = _frame()
    training = frame[frame["time"] < pd.Timestamp(START + 13 * WEEK)]
    made = make_reference(training, text=("comment",), image=("photo",), importance=IMPORTANCE)
    return Reference.from_dict(json.loads(json.dumps(made.to_dict())))


def _window(**changes: Callable[[pd.Series[Any]], Any]) -> pd.DataFrame:
    frame = _frame()
    inside = (frame["time"] >= pd.Timestamp(AS_OF - WEEK)) & (frame["time"] < pd.Timestamp(AS_OF))
    rows = frame[inside].reset_index(drop=True)
    return rows.assign(**{name: change(rows[name]) for name, change in changes.items()})


def _check(window: pd.DataFrame | None = None) -> Decision:
    inputs = make_inputs(_reference(), _frame(), AS_OF)
    return check(replace(inputs, window=_window() if window is None else window), POLICY, as_of=AS_OF)


def _brighter(photos: pd.Series[Any]) -> Any:
    return pd.Series([picture(9_000 + row, level=220.0) for row in range(len(photos))], dtype=object)


def _fired(decision: Decision, kind: str) -> set[str]:
    return {signal.name for signal in decision.signals if signal.kind == kind and signal.fired}


def test_where_nothing_moved_nothing_fires() -> None:
    decision = _check()
    assert not _fired(decision, "drift")
    assert not _fired(decision, "health")
    assert "moved" not in decision.evidence


def test_a_jump_of_brightness_is_seen_and_said() -> None:
    """From 120 to 220 on every row made no signal at all, when no check looked at images."""
    decision = _check(_window(photo=_brighter))
    drift = next(signal for signal in decision.signals if signal.name == "drift")
    assert drift.persistent  # so far beyond its limit that one check is enough
    assert "drift of photo: brightness" in _fired(decision, "drift")
    assert not _fired(decision, "health")
    furthest = decision.evidence["moved"][0]
    assert (furthest["feature"], furthest["what"]) == ("photo", "brightness")
    assert furthest["before"] == pytest.approx(120, abs=4)
    assert furthest["after"] == pytest.approx(218, abs=6)
    told = "the pictures of photo have become brighter: 1"
    assert furthest["told"].startswith(told)
    assert told in drift.detail
    assert any(line.startswith(told.capitalize()[:20]) for line in summary(decision))
    assert "the pictures of photo have become brighter" in " ".join(render_text(decision).split())


@pytest.mark.parametrize(
    ("change", "what", "told"),
    [
        (lambda texts: texts.str[:12], "characters", "the texts of comment have become shorter: "),
        (lambda texts: texts.str.replace(r"\w", "7", regex=True), "non-letters", "hold more characters that are no"),
        (lambda texts: _like(texts, "th_TH"), "script", "are more often in scripts that training hardly or never saw"),
    ],
    ids=["short", "digits", "thai"],
)  # fmt: skip
def test_texts_that_moved(change: Callable[[pd.Series[Any]], Any], what: str, told: str) -> None:
    decision = _check(_window(comment=change))
    moved = {item["what"]: item for item in decision.evidence["moved"]}
    assert told in moved[what]["told"]
    assert "drift" in _fired(decision, "drift")


def _like(texts: pd.Series[Any], locale: str, part: slice = slice(None)) -> pd.Series[Any]:
    made = [unspaced(locale, 5_000 + row, part) for row in range(len(texts))]
    return pd.Series(made, index=texts.index, dtype="str")


@pytest.mark.parametrize("locale", ["th_TH", "zh_CN"])
def test_texts_without_spaces_drift_by_their_words(locale: str) -> None:
    """Other words of the same language: lengths and script stay as they were."""
    frame = make_frame(16, per_day=24)
    frame = frame.assign(comment=_like(frame["carrier"], locale, slice(0, 150)))
    training = frame[frame["time"] < pd.Timestamp(START + 13 * WEEK)]
    reference = make_reference(training, text=("comment",), importance={"comment": 1.0})
    inputs = make_inputs(reference, frame, AS_OF)
    rows = frame[(frame["time"] >= pd.Timestamp(AS_OF - WEEK)) & (frame["time"] < pd.Timestamp(AS_OF))]
    same = check(replace(inputs, window=rows), POLICY, as_of=AS_OF)
    assert not _fired(same, "drift") | _fired(same, "health")
    other = rows.assign(comment=_like(rows["comment"], locale, slice(150, 300)))
    decision = check(replace(inputs, window=other), POLICY, as_of=AS_OF)
    assert "drift of comment: unknown words" in _fired(decision, "drift")
    assert not _fired(decision, "health")
    (item,) = [item for item in decision.evidence["moved"] if item["what"] == "unknown words"]
    assert item["before"] < 0.4 < item["after"]


def _broken(share: float) -> Callable[[pd.Series[Any]], Any]:
    def change(photos: pd.Series[Any]) -> Any:
        cut = np.arange(len(photos)) % 100 < 100 * share
        return pd.Series([raw[:50] if bad else raw for raw, bad in zip(photos, cut, strict=True)], dtype=object)

    return change


@pytest.mark.parametrize(
    ("changes", "name", "plain"),
    [
        ({"photo": _broken(0.6)}, "unreadable photo", "the pictures of photo often can't be read"),
        ({"photo": _broken(1.0)}, "unreadable photo", "the pictures of photo often can't be read"),
        ({"comment": lambda texts: texts.where(np.arange(len(texts)) % 2 == 0, " ")}, "empty comment",
         "comment is often empty"),
        ({"photo": lambda photos: pd.Series([photos[0]] * len(photos), dtype=object)}, "repeated photo",
         "photo often repeats itself"),
        ({"comment": lambda texts: texts.mask(np.arange(len(texts)) % 10 > 1)}, "missing comment",
         "comment is often missing"),
    ],
    ids=["broken", "all broken", "empty", "frozen", "missing"],
)  # fmt: skip
def test_what_is_broken_is_one_complaint_of_the_feature(changes: dict[str, Any], name: str, plain: str) -> None:
    decision = _check(_window(**changes))
    fired = _fired(decision, "health")
    assert name in fired
    assert not {other for other in fired if other != name and not other.startswith("constant photo: ")}
    assert decision.verdict == "repair"
    complaint = next(item for item in decision.evidence["complaints"] if item["name"] == name)
    assert complaint["column"] == name.split(" ")[1]
    assert plain in " ".join(summary(decision))
    if drift := next((signal for signal in decision.signals if signal.name == "drift" and signal.fired), None):
        assert not drift.persistent  # what a complaint stands against asks for no training


def test_a_few_broken_pictures_are_told_and_hold_nothing_up() -> None:
    decision = _check(_window(photo=_broken(0.3)))
    signal = next(signal for signal in decision.signals if signal.name == "unreadable photo")
    assert signal.fired
    assert not signal.persistent
    assert decision.verdict != "repair"
    assert "the picture of photo can't be read in 60 of 168 rows" in signal.detail


def test_a_complaint_of_pictures_is_settled_by_time_and_keeps_them_out() -> None:
    inputs = make_inputs(_reference(), _frame(), AS_OF)
    broken = _window(photo=_broken(1.0))
    first = check(replace(inputs, window=broken), POLICY, as_of=AS_OF)
    later = AS_OF + 2 * WEEK + timedelta(hours=1)
    again = make_inputs(_reference(), _frame(), later)
    shifted = broken.assign(time=broken["time"] + (later - AS_OF))
    ledger = (first.to_dict(),)
    suspects = broken.assign(_id=broken["id"], _score=0.5)
    second = check(replace(again, window=shifted, ledger=ledger, suspects=suspects), POLICY, as_of=later)
    (complaint,) = [item for item in second.evidence["complaints"] if item["name"] == "unreadable photo"]
    assert complaint["state"] == "confirmed"
    assert "left out" in complaint["reason"]


def test_a_repeated_picture_is_judged_by_the_truth_of_its_rows() -> None:
    frozen = _window(photo=lambda photos: pd.Series([photos[0]] * len(photos), dtype=object))
    inputs = make_inputs(_reference(), _frame(), AS_OF)
    first = check(replace(inputs, window=frozen), POLICY, as_of=AS_OF)
    later = AS_OF + WEEK + timedelta(hours=1)
    again = make_inputs(_reference(), _frame(), later)
    labels = frozen[["id", "truth"]].assign(labelled_at=pd.Timestamp(later))
    suspects = frozen.assign(_id=frozen["id"], _score=frozen["chance"]).drop(columns=["truth", "chance"])
    held = _frame()[:600].assign(_truth=lambda rows: rows["truth"], _score=lambda rows: rows["chance"])
    second = check(
        replace(again, ledger=(first.to_dict(),), suspects=suspects, labels=labels, holdout=held), POLICY, as_of=later
    )
    complaint = next(item for item in second.evidence["complaints"] if item["name"] == "repeated photo")
    assert complaint["state"] in ("dissolved", "confirmed")
    assert complaint["numbers"]["later_rows"] > 0


def test_importance_is_shared_by_what_stands_for_a_feature() -> None:
    importance = _reference().importance
    parts = [name for name, owned in _reference().owners.items() if owned.feature == "photo"]
    assert len(parts) == 8
    assert sum(importance[name] for name in parts) == pytest.approx(IMPORTANCE["photo"])
    assert "photo" not in importance


def test_a_window_in_parts_says_what_the_whole_says() -> None:
    window = _window(photo=_broken(0.1)).sort_values("time", ignore_index=True)
    whole = read_facts(_reference(), window, "time")
    half = len(window) // 2
    described = [_reference().described(part) for part in (window[:half], window[half:])]
    together = read_facts(_reference(), pd.concat(described, ignore_index=True), "time")
    assert together.summary(_reference().columns) == whole.summary(_reference().columns)
    parts = add_up(read_facts(_reference(), part, "time", total_rows=len(window)) for part in described)
    assert parts.rows == whole.rows
    for name, facts in whole.columns.items():
        if name not in _reference().apart:  # what a part repeats of another part, it can't know
            np.testing.assert_array_equal(facts.counts, parts.columns[name].counts)
    shuffled = read_facts(_reference(), window.sample(frac=1, random_state=0), "time")
    assert shuffled.summary(_reference().columns).columns == whole.summary(_reference().columns).columns


def test_a_model_of_the_loss_reads_what_each_row_tells() -> None:
    window = _window()
    raw = loss_inputs(window, np.zeros(len(window)), _reference())
    assert raw.shape == (len(window), len(_reference().columns) - 2 + 1)  # without what a row repeats, with the score
    described = loss_inputs(_reference().described(window), np.zeros(len(window)), _reference())
    np.testing.assert_array_equal(raw, described)


def test_stretches_without_rows_are_no_matter() -> None:
    window = _window().sort_values("time", ignore_index=True)
    parts = [_reference().described(part) for part in (window[:50], window[:0], window[50:])]
    together = read_facts(_reference(), pd.concat(parts, ignore_index=True), "time")
    assert together.summary(_reference().columns) == read_facts(_reference(), window, "time").summary(
        _reference().columns
    )


def test_rows_are_repeated_with_text_and_picture_only() -> None:
    window = _window()
    twice = pd.concat([window, window[:20]], ignore_index=True)
    assert read_facts(_reference(), twice, "time").repeated == 20
    other = pd.concat([window, window[:20].assign(photo=window["photo"][20:40].to_numpy())], ignore_index=True)
    assert read_facts(_reference(), other, "time").repeated == 0


def test_a_window_without_the_feature_says_so() -> None:
    decision = _check(_window().drop(columns="photo"))
    assert any("columns are missing: photo" in signal.detail for signal in decision.signals)


def test_without_texts_and_images_a_reference_is_what_it_was() -> None:
    raw = make_reference(make_frame(3)).to_dict()
    assert raw["format"] == 1
    assert "watched" not in raw


def test_a_reference_of_three_numbers_still_judges() -> None:
    """It was stored by the version that knew three numbers of a text."""
    raw = json.loads((Path(__file__).parent / "reference_of_three_numbers.json").read_text(encoding="utf-8"))
    reference = Reference.from_dict(raw)
    rng = np.random.default_rng(1)
    words = np.array([f"word{number}" for number in range(60)])
    frame = make_frame(9, per_day=24)
    frame = frame.assign(note=pd.Series([" ".join(rng.choice(words, 8)) for _ in range(len(frame))], dtype="str"))
    as_of = START + 8 * WEEK
    inputs = make_inputs(reference, frame, as_of)
    rows = frame[(frame["time"] >= pd.Timestamp(as_of - WEEK)) & (frame["time"] < pd.Timestamp(as_of))]
    same = check(replace(inputs, window=rows), POLICY, as_of=as_of)
    assert not _fired(same, "health")
    assert "drift of note · words" in {signal.name for signal in same.signals}
    strange = rows.assign(note=rows["note"].str.replace("word", "wort"))
    moved = check(replace(inputs, window=strange), POLICY, as_of=as_of)
    assert "drift of note · unknown words" in _fired(moved, "drift")
    assert "hold more words unknown to training: 0% → 100%" in " ".join(render_text(moved).split())
    again = Reference.from_dict(json.loads(json.dumps(reference.to_dict())))
    assert again.watched == reference.watched
    with pytest.raises(DataError, match="a reference of format 3, not 1 or 2"):
        Reference.from_dict(raw | {"format": 3})
