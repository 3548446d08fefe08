"""Made-up worlds whose truth is known: what looks broken and is not, and what retraining is worth. No real set is here.

Each kind exists twice, with other numbers, so that one is for choosing and one is held out. No row of any world is
broken: every `repair` in them is false. Faults are put in by `prequential.faults`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

WINDOWS, ROWS, START = 44, 200, 5
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """One world.

    Attributes:
        name: `world_KIND_a` or `_b`.
        task: regression or binary.
        kind: What it is about.
        truth: What is true in it, in a line.
        make: From a seeded generator to a frame with `t`, `w`, `y` and features.
        start: Windows in the first training set.
    """

    name: str
    task: str
    kind: str
    truth: str
    make: Callable[[np.random.Generator], pd.DataFrame]
    start: int = START

    def build(self) -> pd.DataFrame:
        """The world's rows, the same at each call."""
        seed = [ord(letter) for letter in self.name]
        return self.make(np.random.default_rng(seed))


class Rows:
    """The rows of a plain world, to which a kind adds what is its own: four numbers and a category, weeks of rows.

    Args:
        rng: Randomness.
        drift: How far the numbers' weights wander over the whole world, in their own size.
        windows, rows: How many windows, and rows a window.
    """

    def __init__(self, rng: np.random.Generator, drift: float = 1.0, windows: int = WINDOWS, rows: int = ROWS) -> None:
        self.rng, self.windows, self.rows = rng, windows, rows
        self.window = np.repeat(np.arange(windows), rows)
        self.age = self.window / (windows - 1)
        count = len(self.window)
        self.numbers = rng.normal(size=(count, 4))
        self.kind = rng.integers(0, 5, count)
        first, turn = rng.normal(size=4), rng.normal(size=4)
        self.weights = first + drift * self.age[:, None] * turn
        self.signal = (self.numbers * self.weights).sum(axis=1) + np.sin(2 * self.numbers[:, 0])
        self.signal += np.array([0.0, 0.5, -0.5, 1.0, -1.0])[self.kind]

    def frame(self, task: str, noise: float = 1.0, **columns: object) -> pd.DataFrame:
        """The rows, with the kind's columns; the target is the signal with noise, or a class drawn by it."""
        count = len(self.window)
        y = self.signal + noise * self.rng.normal(size=count)
        if task == "binary":
            y = (self.rng.random(count) < 1 / (1 + np.exp(-self.signal / noise))).astype(np.int64)
        moments = pd.Timestamp("2020-01-06") + pd.to_timedelta(
            (self.window + np.tile(np.arange(self.rows), self.windows) / self.rows) * 7 * 86_400, unit="s"
        )
        made = pd.DataFrame({"t": moments, "w": self.window, "y": y})
        for position in range(4):
            made[f"x{position}"] = self.numbers[:, position]
        return made.assign(kind=pd.Series(list("abcde"))[self.kind].to_numpy(), **columns)


def _months(task: str, length: int, drift: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    names = np.array(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])

    def make(rng: np.random.Generator) -> pd.DataFrame:
        rows = Rows(rng, drift)
        month = rows.window // length % 12
        rows.signal += 0.8 * np.sin(month / 12 * 2 * np.pi)
        return rows.frame(task, month=names[month])

    return make


def _rate(task: str, step: float, drift: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    """Flat for the first windows, then a walk that leaves its narrow ordinary range for good."""

    def make(rng: np.random.Generator) -> pd.DataFrame:
        rows = Rows(rng, drift)
        daily = rng.normal(size=rows.windows * 7) * step * np.where(np.arange(rows.windows * 7) < 42, 0.1, 1.0)
        walk = 4.86 + np.cumsum(daily) + np.linspace(0, step * 30, len(daily)) * (np.arange(len(daily)) > 42)
        day = rows.window * 7 + np.tile(np.arange(rows.rows) * 7 // rows.rows, rows.windows)
        rows.signal += 0.3 * (walk[day] - walk[0]) / step / 10
        return rows.frame(task, rate=np.round(walk[day], 3))

    return make


def _growth(task: str, factor: float, drift: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    """Budgets double again and again; what counts is a budget beside those of its time."""

    def make(rng: np.random.Generator) -> pd.DataFrame:
        rows = Rows(rng, drift)
        budget = rng.normal(size=len(rows.window))
        rows.signal += 0.8 * budget
        return rows.frame(task, budget=np.exp(10 + 0.7 * budget + np.log(factor) * rows.age))

    return make


def _question(task: str, asked: int, of: float, in_words: bool) -> Callable[[np.random.Generator], pd.DataFrame]:
    """A survey asks one more question from a window on, of a share of the people."""

    def make(rng: np.random.Generator) -> pd.DataFrame:
        rows = Rows(rng, 0.8)
        answer = rng.normal(size=len(rows.window))
        rows.signal += 0.8 * answer
        told = (rows.window >= asked) & (rng.random(len(rows.window)) < of)
        if in_words:
            rows.signal += 0.8 * (np.sign(answer) - answer)
            return rows.frame(task, new_question=np.where(told, np.where(answer > 0, "yes", "no"), None))
        return rows.frame(task, new_question=np.where(told, answer, np.nan))

    return make


def _one_class(since: int, share: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    """Not one event until `since`, then a share of events: the first champion has seen one class only."""

    def make(rng: np.random.Generator) -> pd.DataFrame:
        rows = Rows(rng, 0.5)
        made = rows.frame("binary")
        high = rows.signal > np.quantile(rows.signal, 1 - share)
        turned = rng.random(len(made)) < 0.05
        return made.assign(y=np.where(rows.window >= since, high ^ turned, False).astype(np.int64))

    return make


def _turnover(task: str, once: float, drift: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    """A customer number: a steady share of rows has one that comes once, the others return for some windows."""

    def make(rng: np.random.Generator) -> pd.DataFrame:
        rows = Rows(rng, drift)
        count = len(rows.window)
        returning = rows.window * 2 + rng.integers(0, 40, count)
        effect = rng.normal(size=returning.max() + 1)
        single = rng.random(count) < once
        rows.signal += np.where(single, 0.0, 0.5 * effect[returning])
        customer = np.where(
            single, np.char.add("n", np.arange(count).astype(str)), np.char.add("c", returning.astype(str))
        )
        return rows.frame(task, customer=customer)

    return make


def _float_noise(task: str, step: float, size: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    """A constant, of which another program makes 1.0000001, or to which it adds last digits, from window 12 on."""

    def make(rng: np.random.Generator) -> pd.DataFrame:
        rows = Rows(rng, 0.8)
        noise = np.where(rows.window >= 12, step + size * rng.normal(size=len(rows.window)), 0.0)
        return rows.frame(task, scale=1.0 + noise, offset=-3.5 * (1 + noise))

    return make


def _bursts(every: int, size: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    """Single windows in which the world is another one each time: who learns from them carries the harm on."""

    def make(rng: np.random.Generator) -> pd.DataFrame:
        rows = Rows(rng, 0.0)
        odd = (rows.window >= START) & ((rows.window - START) % every == 0)
        for window in np.unique(rows.window[odd]):
            inside = rows.window == window
            rows.signal[inside] += size * rows.numbers[inside] @ rng.normal(size=4)
        return rows.frame("regression", noise=0.5)

    return make


def _still(task: str, noise: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    """Nothing moves, and so few cases can be told apart that the first training has seen enough of each."""

    def make(rng: np.random.Generator) -> pd.DataFrame:
        rows = Rows(rng, 0.0)
        rows.numbers, rows.kind = np.sign(rows.numbers), rows.kind % 2
        rows.signal = rows.numbers[:, 0] + 0.5 * rows.kind
        return rows.frame(task, noise=noise).drop(columns=["x2", "x3"])

    return make


def _drift(task: str, size: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    def make(rng: np.random.Generator) -> pd.DataFrame:
        return Rows(rng, size).frame(task)

    return make


def _jump(task: str, at: tuple[int, ...], size: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    """The weights are thrown anew at some windows, and stay in between."""

    def make(rng: np.random.Generator) -> pd.DataFrame:
        rows = Rows(rng, 0.0)
        for window in at:
            later = rows.window >= window
            rows.signal[later] += size * rows.numbers[later] @ rng.normal(size=4)
        return rows.frame(task)

    return make


def _pair(kind: str, truth: str, one: tuple[str, object], other: tuple[str, object], start: int = START) -> list[World]:
    return [
        World(f"world_{kind}_{letter}", task, kind, truth, make, start)  # type: ignore[arg-type]
        for letter, (task, make) in zip("ab", (one, other), strict=True)
    ]


REGRESSION, BINARY = "regression", "binary"
WORLDS: tuple[World, ...] = (
    *_pair("months", "each month's name is new in its first year; the world drifts",
           (REGRESSION, _months(REGRESSION, 4, 1.0)), (BINARY, _months(BINARY, 3, 1.5))),
    *_pair("rate", "a rate leaves its narrow range for good and matters a little; the world drifts",
           (BINARY, _rate(BINARY, 0.02, 1.5)), (REGRESSION, _rate(REGRESSION, 0.05, 1.0))),
    *_pair("growth", "budgets grow twelve- or fourfold over the years; the world drifts",
           (REGRESSION, _growth(REGRESSION, 12.0, 0.8)), (BINARY, _growth(BINARY, 4.0, 1.5))),
    *_pair("question", "one column is present from window 14 or 20 on only",
           (BINARY, _question(BINARY, 14, 1.0, False)), (REGRESSION, _question(REGRESSION, 20, 0.6, True))),
    *_pair("one_class", "the first training saw one class only",
           (BINARY, _one_class(6, 0.3)), (BINARY, _one_class(9, 0.15))),
    *_pair("turnover", "a steady share of numbers that come once",
           (REGRESSION, _turnover(REGRESSION, 0.3, 0.8)), (BINARY, _turnover(BINARY, 0.5, 1.5))),
    *_pair("float_noise", "a constant becomes 1.0000001, or gets last digits, from window 12 on",
           (BINARY, _float_noise(BINARY, 1e-7, 0.0)), (REGRESSION, _float_noise(REGRESSION, 0.0, 1e-9))),
    *_pair("bursts", "retraining learns from single odd windows and loses", (REGRESSION, _bursts(6, 2.0)),
           (REGRESSION, _bursts(4, 1.5))),
    *_pair("still", "retraining brings nothing", (REGRESSION, _still(REGRESSION, 1.0)), (BINARY, _still(BINARY, 1.5))),
    *_pair("drift", "retraining always gains, a little with each window",
           (BINARY, _drift(BINARY, 2.5)), (REGRESSION, _drift(REGRESSION, 1.5))),
    *_pair("jump", "the world changes at once, and stays so", (REGRESSION, _jump(REGRESSION, (12, 27), 0.8)),
           (BINARY, _jump(BINARY, (9, 22, 33), 1.2))),
)  # fmt: skip
