"""Columns that stand for texts and images: names, flags, and that nothing is made where nothing is described."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from described_world import picture

from tasks.measures.described.columns import (
    REPEAT_ROWS,
    Described,
    describe,
    flag_column,
    has,
    learn,
    owners,
    with_repeats,
)


def _learn(frame: pd.DataFrame, **features: list[str]):
    given = {"text": [], "image": []} | features
    return learn(frame, **given, taken=list(frame), starts=np.zeros(len(frame), dtype=np.int64))


def _frame() -> pd.DataFrame:
    photos = [picture(1), picture(2), picture(1), b"broken", None, b"broken"]
    return pd.DataFrame(
        {
            "n": np.arange(6.0),
            "comment": pd.Series(["fine", "not fine", "fine", " ", None, ""], dtype="str"),
            "photo": pd.Series(photos, dtype=object),
        }
    )


def test_names_are_readable_and_belong_to_their_feature() -> None:
    learned = _learn(_frame(), text=["comment"], image=["photo"])
    assert list(learned.frame) == [
        "n", "comment: characters", "comment: words", "comment: words per sentence", "comment: unknown words",
        "comment: non-letters", "comment: empty", "comment: script", "photo: brightness", "photo: contrast",
        "photo: sharpness", "photo: width", "photo: height", "photo: colour", "photo: unreadable", "comment: repeated",
        "photo: repeated",
    ]  # fmt: skip
    whose = owners(learned.watched)
    assert (whose["photo: width"].feature, whose["photo: width"].what) == ("photo", "width")
    assert "n" not in whose


def test_names_that_are_taken_get_a_number() -> None:
    frame = _frame().assign(**{"Comment: Words": 1.0, "comment: words (2)": 2.0})
    learned = _learn(frame, text=["comment"])
    assert learned.watched[0].names["words"] == "comment: words (3)"
    assert learned.frame["Comment: Words"].tolist() == [1.0] * 6
    assert learned.frame["comment: words (3)"].tolist()[:2] == [1, 2]


def test_flags_say_what_is_empty_unreadable_and_repeated() -> None:
    told = _learn(_frame(), text=["comment"], image=["photo"]).frame
    nan = np.nan
    np.testing.assert_array_equal(told["comment: empty"], [0, 0, 0, 1, nan, 1])
    np.testing.assert_array_equal(told["comment: repeated"], [0, 0, 1, 0, nan, 0])
    np.testing.assert_array_equal(told["photo: unreadable"], [0, 0, 0, 1, nan, 1])
    np.testing.assert_array_equal(told["photo: repeated"], [0, 0, 1, 0, nan, 0])
    assert told["photo: brightness"].isna().tolist() == [False, False, False, True, True, True]


def test_what_is_set_lies_outside_what_is_ordinary() -> None:
    column = flag_column("empty")
    assert column.codes(pd.Series([0.0, 1.0, np.nan])).tolist() == [1, column.bins - 1, column.bins]


def test_repeats_are_told_within_a_stretch_and_a_thousand_rows() -> None:
    rows = REPEAT_ROWS + 2
    frame = pd.DataFrame({"t": pd.Series(["a", *(f"t{i}" for i in range(rows - 2)), "a"], dtype="str")})
    near = frame.drop(index=5).reset_index(drop=True)
    item = _learn(frame, text=["t"]).watched
    for given, expected in ((frame, 0), (near, 1)):
        one = np.zeros(len(given), dtype=np.int64)
        assert with_repeats(describe(given, item), item, one)["t: repeated"].sum() == expected
        apart = np.arange(len(given))  # each row in a stretch of its own
        assert with_repeats(describe(given, item), item, apart)["t: repeated"].sum() == 0


def test_a_described_frame_stays_as_it_is() -> None:
    frame = _frame()
    watched = _learn(frame, text=["comment"], image=["photo"]).watched
    once = describe(frame, watched)
    assert describe(once, watched) is once
    assert all(has(part, item) for part in (frame, once) for item in watched)
    assert not has(frame.drop(columns="photo"), watched[1])
    parts = pd.concat([describe(frame[:3], watched), describe(frame[3:], watched)], ignore_index=True)
    pd.testing.assert_frame_equal(parts, once)


def test_nothing_to_describe_costs_nothing() -> None:
    frame = _frame()
    learned = _learn(frame)
    assert learned.watched == ()
    assert learned.frame is frame
    assert describe(frame, ()) is frame


def test_they_survive_json_and_old_texts_keep_their_numbers() -> None:
    item = _learn(_frame(), text=["comment"]).watched[0]
    assert Described.from_dict(json.loads(json.dumps(item.to_dict()))) == item
    old = Described.before("note", ["red", "apple"])
    told = describe(pd.DataFrame({"note": ["red apple", "red kiwi kiwi", None, ""]}), [old])
    assert list(told) == ["note · characters", "note · words", "note · unknown words"]
    np.testing.assert_allclose(told["note · unknown words"], [0, 2 / 3, np.nan, np.nan])


def test_an_empty_frame_has_the_columns() -> None:
    learned = _learn(_frame()[:0], text=["comment"], image=["photo"])
    assert "photo: repeated" in learned.frame
    assert len(learned.frame) == 0
