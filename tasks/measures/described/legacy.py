"""The three numbers that texts were before 0.2, as references hold them that were made then. Nothing new uses it."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

import numpy as np
from numpy.typing import NDArray

NUMBERS = ("characters", "words", "unknown words")
_WORD = re.compile(r"\w+")


def old_names(text: str) -> dict[str, str]:
    """What the numbers of a text were called."""
    return {what: f"{text} · {what}" for what in NUMBERS}


def describe_as_before(texts: Sequence[object], known: Container[str]) -> NDArray[np.float64]:
    """Shape (texts, 3); NaN where the text is missing, and for the share of unknown words where it has none."""
    return np.array([_describe(text, known) for text in texts], dtype=np.float64).reshape(-1, len(NUMBERS))


def _describe(text: object, known: Container[str]) -> tuple[float, float, float]:
    if not isinstance(text, str):
        return (np.nan, np.nan, np.nan)
    words = _WORD.findall(text.lower())
    unknown = sum(word not in known for word in words) / len(words) if words else np.nan
    return (float(len(text)), float(len(words)), unknown)
