"""A text in plain values: how long, of which words, in which script. No threshold, and no meaning, belongs here.

Scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are cut into overlapping pairs
of characters, as search engines do: no dictionary, whose next version would cut otherwise what a reference counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.measures.profiles import SAMPLE_ROWS

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

VOCABULARY = 5_000
MOST_CHARACTERS = 100_000
NUMBERS = ("characters", "words", "words per sentence", "unknown words", "non-letters")
SCRIPT = "script"
_TOGETHER = 1_000
_NO_SPACES = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u1780-\u17d3\u3005-\u3007\u3041-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
# Marks that belong to the letter before them, which \w leaves out: accents, points, and the vowels of Indic scripts.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
_PLAIN = re.compile(r"\w+")
_SPACELESS = re.compile(f"[{_NO_SPACES}]")
_WORD = re.compile(rf"(?:[^\W{_NO_SPACES}]|[{_MARKS}])+")
_PART = re.compile(rf"([{_NO_SPACES}]+)|((?:[^\W{_NO_SPACES}]|[{_MARKS}])+)")
_ENDS = frozenset(".!?…。！？｡؟۔।॥։።\n")
_LETTERS = {"CJK": "Han", "HANGUL": "Hangul", "KATAKANA-HIRAGANA": "Katakana", "HALFWIDTH": "Katakana"}
_SPACE, _OTHER, _MARK, _END, _FIRST_SCRIPT, _UNKNOWN = 0, 1, 2, 3, 4, 255


class _Characters:
    """Which kind of character each code point is: found once, when it is met first."""

    def __init__(self) -> None:
        self._kinds = np.full(0x110000, _UNKNOWN, dtype=np.uint8)
        self.scripts: list[str] = []

    def kinds(self, points: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Each code point's kind: space, other, mark, the end of a sentence, or the script of a letter."""
        found = self._kinds[points]
        if (found == _UNKNOWN).any():
            for point in np.unique(points[found == _UNKNOWN]):
                self._kinds[point] = self._kind(chr(point))
            found = self._kinds[points]
        return found

    def _kind(self, character: str) -> int:
        if character in _ENDS:
            return _END
        category = unicodedata.category(character)
        if character.isspace() or category in ("Cc", "Cf"):
            return _SPACE
        if category[0] == "M":
            return _MARK
        if category[0] != "L":
            return _OTHER
        first = unicodedata.name(character, "OTHER").split(" ")[0]
        script = _LETTERS.get(first, first.capitalize())
        if script not in self.scripts:
            if len(self.scripts) == _UNKNOWN - _FIRST_SCRIPT - 1:
                script = self.scripts[-1]  # more scripts than a byte tells apart: the last ones are one
            else:
                self.scripts.append(script)
        return _FIRST_SCRIPT + self.scripts.index(script)


_characters = _Characters()


def terms(text: str) -> list[str]:
    """A text's words in lower case; where a script puts no spaces, pairs of neighbouring characters."""
    lowered = text[:MOST_CHARACTERS].lower()
    if lowered.isascii():
        return _PLAIN.findall(lowered)
    if not _SPACELESS.search(lowered):
        return _WORD.findall(lowered)
    found: list[str] = []
    for run, word in _PART.findall(lowered):
        if word:
            found.append(word)
        else:
            found += [run[place : place + 2] for place in range(max(1, len(run) - 1))]
    return found


def make_vocabulary(texts: pd.Series[Any]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The terms that most texts hold, at most `VOCABULARY`, most frequent first.

    Returns:
        Them; and those of them that one text more holds than the last of them needs: what a text among these may call
        known without having made it known itself. Else a window would always hold more unknown words than training.
    """
    counted: dict[str, int] = {}
    known = [text for text in texts.astype(object) if isinstance(text, str)]
    for text in known[:: max(1, len(known) // SAMPLE_ROWS)]:
        for term in set(terms(text)):
            counted[term] = counted.get(term, 0) + 1
    kept = sorted(counted, key=lambda term: (-counted[term], term))[:VOCABULARY]
    least = counted[kept[-1]] if kept else 0
    return tuple(kept), frozenset(term for term in kept if counted[term] > least)


def describe_texts(texts: Sequence[object], known: Container[str]) -> tuple[Floats, list[str | None]]:
    """Texts in plain values.

    Args:
        texts: What is no `str` is a missing text.
        known: The terms that are no unknown words.

    Returns:
        Numbers of shape (texts, 5), in the order of `NUMBERS`, NaN where the text is missing or has nothing to be
        counted; and each one's script, None without letters. Of texts beyond 100,000 characters only the length is of
        the whole.
    """
    numbers = np.full((len(texts), len(NUMBERS)), np.nan)
    scripts: list[str | None] = [None] * len(texts)
    places = [place for place, text in enumerate(texts) if isinstance(text, str)]
    for first in range(0, len(places), _TOGETHER):
        some = places[first : first + _TOGETHER]
        given = [str(texts[place]) for place in some]
        heads = [text[:MOST_CHARACTERS] for text in given]
        sentences, others, found = _characters_of(heads)
        for row, (place, head) in enumerate(zip(some, heads, strict=True)):
            words = terms(head)
            unknown = sum(word not in known for word in words) / len(words) if words else np.nan
            dense = len(words) / max(1, sentences[row]) if words else np.nan
            numbers[place] = (len(given[row]), len(words), dense, unknown, others[row])
            scripts[place] = found[row]
    return numbers, scripts


def _characters_of(texts: Sequence[str]) -> tuple[Counts, Floats, list[str | None]]:
    """Of each text its sentences, its share of characters that are no letters, and the script of most letters."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    owners = np.repeat(np.arange(len(texts)), lengths)
    kinds = _characters.kinds(points)
    width = _FIRST_SCRIPT + len(_characters.scripts)
    counts = np.bincount(owners * width + kinds, minlength=len(texts) * width).reshape(len(texts), width)
    letters = counts[:, _FIRST_SCRIPT:]
    seen = counts.sum(axis=1) - counts[:, _SPACE]
    others = counts[:, _OTHER] + counts[:, _END]
    shares = np.divide(others, seen, out=np.full(len(texts), np.nan), where=seen > 0)
    return _sentences(points, kinds, owners, len(texts)), shares, _scripts(letters)


def _sentences(points: NDArray[np.uint32], kinds: NDArray[np.uint8], owners: Counts, texts: int) -> Counts:
    """How many sentences each text has: ends that follow something else, and what comes after the last of them.

    A full stop within a number or a name (3.5, example.org) ends nothing: an ASCII one does so before a space only.
    """
    if not len(kinds):
        return np.zeros(texts, dtype=np.int64)
    said = kinds[kinds != _SPACE]
    at = np.flatnonzero(kinds != _SPACE)
    following = np.append(kinds[1:], _SPACE)
    last_of_text = np.append(owners[1:] != owners[:-1], True)
    dotted = (points == ord(".")) & (following != _SPACE) & (following != _END) & ~last_of_text
    ends = (said == _END) & ~dotted[at]
    before = np.append(True, ends[:-1]) | np.append(True, owners[at][1:] != owners[at][:-1])
    starts = before & ~ends
    return np.bincount(owners[at][starts], minlength=texts)


def _scripts(letters: Counts) -> list[str | None]:
    if not letters.shape[1]:
        return [None] * len(letters)
    most, known = letters.argmax(axis=1), letters.sum(axis=1)
    return [_characters.scripts[place] if count else None for place, count in zip(most, known, strict=True)]
