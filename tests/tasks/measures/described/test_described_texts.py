"""A text's plain values: counted as people would, in every script, whatever the text is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from described_world import english, unspaced
from hypothesis import given
from hypothesis import strategies as st

from tasks.measures.described.texts import MOST_CHARACTERS, NUMBERS, describe_texts, make_vocabulary, terms


def _told(text: object, known: frozenset[str] = frozenset()) -> dict[str, float]:
    numbers, scripts = describe_texts([text], known)
    return dict(zip(NUMBERS, numbers[0], strict=True)) | {"script": scripts[0]}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two words", ["two", "words"]),
        ("Füße, 3.5 €!", ["füße", "3", "5"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs and the virama belong to their letters
        ("cafe\u0301 noir", ["cafe\u0301", "noir"]),
        ("产品质量", ["产品", "品质", "质量"]),
        ("很", ["很"]),
        ("ไทยนะ ok", ["ไท", "ทย", "ยน", "นะ", "ok"]),
        ("2 个iPhone手机", ["2", "个", "iphone", "手机"]),
        ("…!?", []),
    ],
)
def test_words_are_cut_where_people_see_them(text: str, words: list[str]) -> None:
    assert terms(text) == words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", 3),
        ("No end at all", 1),
        ("Version 3.5 of example.org costs 2.50 a day.", 1),
        ("Wait... what?! Yes.", 3),
        ("产品很好。物流太慢！", 2),
        ("एक। दो॥", 2),
        ("line one\nline two", 2),
    ],
)
def test_words_per_sentence(text: str, sentences: int) -> None:
    assert _told(text)["words per sentence"] == pytest.approx(len(terms(text)) / sentences)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("plain English with 一 character", "Latin"),
        ("привет, world", "Cyrillic"),
        ("产品质量", "Han"),
        ("ภาษาไทย", "Thai"),
        ("한국어", "Hangul"),
        ("ひらがな", "Hiragana"),
        ("שלום", "Hebrew"),
        ("12 345 !", None),
        ("", None),
    ],
)
def test_the_script_is_that_of_most_letters(text: str, script: str | None) -> None:
    assert _told(text)["script"] == script


def test_what_is_counted_of_a_text() -> None:
    told = _told("red apple, 42!", frozenset(["red"]))
    assert told["characters"] == 14
    assert told["words"] == 3
    assert told["unknown words"] == pytest.approx(2 / 3)
    assert told["non-letters"] == pytest.approx(4 / 12)
    assert all(np.isnan(_told(None)[name]) for name in NUMBERS)
    empty = _told("")
    assert empty["characters"] == empty["words"] == 0
    assert np.isnan(empty["unknown words"])


def test_a_long_text_is_measured_whole_and_read_in_part() -> None:
    told = _told("word " * MOST_CHARACTERS)
    assert told["characters"] == 5 * MOST_CHARACTERS
    assert told["words"] == MOST_CHARACTERS / 5


def test_texts_together_are_described_as_each_alone() -> None:
    texts = [*(english(seed) for seed in range(40)), unspaced("th_TH", 1), "", None, unspaced("zh_CN", 2), "a. b. c"]
    together, scripts = describe_texts(texts, frozenset(terms(english(1))))
    for place, text in enumerate(texts):
        alone, script = describe_texts([text], frozenset(terms(english(1))))
        np.testing.assert_array_equal(together[place], alone[0])
        assert scripts[place] == script[0]


@given(st.lists(st.one_of(st.text(st.characters()), st.none(), st.binary(max_size=3), st.floats()), max_size=6))
def test_no_text_is_too_strange(texts: list[object]) -> None:
    numbers, scripts = describe_texts(texts, frozenset(["a"]))
    assert numbers.shape == (len(texts), len(NUMBERS))
    assert len(scripts) == len(texts)
    for row, text in zip(numbers, texts, strict=True):
        assert np.isnan(row[0]) == (not isinstance(text, str))
        shares = row[[3, 4]]
        assert ((shares[~np.isnan(shares)] >= 0) & (shares[~np.isnan(shares)] <= 1)).all()


@pytest.mark.parametrize("locale", ["th_TH", "zh_CN", "ja_JP"])
def test_scripts_without_spaces_have_known_and_unknown_words(locale: str) -> None:
    """Of the same words nearly all are known, of others few: with words by spaces, all were unknown in both."""
    learned = pd.Series([unspaced(locale, seed, slice(0, 80)) for seed in range(400)], dtype="str")
    known = frozenset(make_vocabulary(learned)[0])
    same, _ = describe_texts([unspaced(locale, seed, slice(0, 80)) for seed in range(1_000, 1_100)], known)
    other, _ = describe_texts([unspaced(locale, seed, slice(80, 160)) for seed in range(1_000, 1_100)], known)
    assert np.nanmean(same[:, 3]) < 0.2
    assert np.nanmean(other[:, 3]) > np.nanmean(same[:, 3]) + 0.3


def test_training_and_later_texts_know_alike() -> None:
    """A text does not make its own words known: else a window would hold more unknown ones than training, always."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(3_000)])
    chances = 1 / np.arange(1, 3_001)
    made = [" ".join(rng.choice(words, 12, p=chances / chances.sum())) for _ in range(900)]
    vocabulary, own = make_vocabulary(pd.Series(made[:600], dtype="str"))
    training, _ = describe_texts(made[:600], own)
    later, _ = describe_texts(made[600:], frozenset(vocabulary))
    naive, _ = describe_texts(made[:600], frozenset(vocabulary))
    assert np.nanmean(naive[:, 3]) == 0
    assert np.nanmean(later[:, 3]) > 0.1
    assert np.nanmean(training[:, 3]) == pytest.approx(np.nanmean(later[:, 3]), abs=0.02)


def test_a_vocabulary_of_nothing() -> None:
    assert make_vocabulary(pd.Series([None, "", "…"], dtype="str")) == ((), frozenset())
