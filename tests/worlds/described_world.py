"""Real texts and pictures: crops of scikit-learn's photographs, its descriptions, Faker's words. No test is here."""

from __future__ import annotations

import io
import re
from functools import cache
from importlib import import_module

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_linnerud,
    load_sample_images,
    load_wine,
)

SIDE = 48
LOADERS = (load_breast_cancer, load_diabetes, load_digits, load_linnerud, load_wine)


@cache
def _photographs() -> tuple[np.ndarray, ...]:
    return tuple(load_sample_images().images)


def picture(seed: int, *, level: float = 120.0, of: int | None = None) -> bytes:
    """A crop of a photograph as a JPEG file, its mean grey near `level`; of the temple (0) or the flower (1)."""
    rng = np.random.default_rng(seed)
    whole = _photographs()[int(rng.integers(2)) if of is None else of]
    top, left = (int(rng.integers(0, length - SIDE)) for length in whole.shape[:2])
    crop = whole[top : top + SIDE, left : left + SIDE].astype(np.float64)
    spread = 40.0 / max(crop.std(), 1.0)
    values = (crop - crop.mean()) * min(spread, 1.0) + level + rng.normal(0, 6)
    made = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(made, "JPEG", quality=85)
    return made.getvalue()


@cache
def _sentences() -> tuple[str, ...]:
    told = " ".join(loader().DESCR for loader in LOADERS)
    found = [" ".join(sentence.split()) for sentence in re.split(r"(?<=[.:])\s+", re.sub(r"[=*|_-]{2,}", " ", told))]
    return tuple(sentence for sentence in found if 20 < len(sentence) < 300)


def english(seed: int) -> str:
    """One to four sentences of scikit-learn's descriptions of its sets."""
    rng = np.random.default_rng(seed)
    return " ".join(rng.choice(_sentences(), int(rng.integers(1, 5))))


@cache
def _words(locale: str) -> tuple[str, ...]:
    return tuple(import_module(f"faker.providers.lorem.{locale}").Provider.word_list)


def unspaced(locale: str, seed: int, part: slice = slice(None)) -> str:
    """Words of Faker's list for a language that puts no spaces between them, or of a part of that list."""
    rng = np.random.default_rng(seed)
    return "".join(rng.choice(_words(locale)[part], int(rng.integers(8, 25))))


def described(frame: pd.DataFrame, *, level: float = 120.0, seed: int = 0) -> pd.DataFrame:
    """Rows with a column of comments and one of pictures, whose mean grey lies near `level`."""
    seeds = seed + np.arange(len(frame))
    return frame.assign(
        comment=pd.Series([english(number) for number in seeds], index=frame.index, dtype="str"),
        photo=pd.Series([picture(number, level=level) for number in seeds], index=frame.index, dtype=object),
    )
