"""How far estimates of the loss were off when their labels had come, beside guesses that cost nothing. No estimating.

An estimate is worth what its record says. Each check leaves its estimate in the ledger; when the labels have come, it
is put beside the realised loss, together with two guesses of its time: the loss at promotion, and that of the newest
windows known then. So no model of the past is fitted again, and what is measured is what was really told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.model.scores import known_scores, score_array
from tasks.calibration.fit import Recalibrator
from tasks.check.estimate.estimates import sample_ids
from tasks.check.history import RECENT_WINDOWS, History, moment
from tasks.measures.quality import mean_loss, row_losses

Floats = NDArray[np.float64]

PAST_ROWS = 5_000
PAST_WINDOWS = 12
SEARCHED_WINDOWS = 24
LEAST_WINDOWS = 6
LEAST_EDGE = 1.0


@dataclass(frozen=True)
class Realised:
    """An estimate of the past beside what came true.

    Attributes:
        as_of: The check that gave the estimate, at the window's end.
        estimate, promotion, recent: Guesses of that moment: the estimate, the loss at promotion, and the mean of the
            newest realised windows (None where none was known).
        realised: The loss, by the labels known now.
        rows: Labelled rows behind it.
    """

    as_of: datetime
    estimate: float
    promotion: float | None
    recent: float | None
    realised: float
    rows: int


@dataclass(frozen=True)
class Record:
    """How far estimates and plain guesses were off, root mean square over windows.

    Attributes:
        windows: Past windows of the estimate; `error` is its own.
        promotion_error, promotion_edge: Of "no change since promotion" on the windows where it is known, and by how
            many standard errors the estimate's squared errors are smaller there.
        recent_error, recent_edge: Of "as in the last realised windows".
    """

    windows: int
    error: float | None = None
    promotion_error: float | None = None
    promotion_edge: float | None = None
    recent_error: float | None = None
    recent_edge: float | None = None

    @property
    def distrust(self) -> str:
        """Why the estimate may not act; empty where it may."""
        if self.windows < LEAST_WINDOWS:
            return f"{self.windows} of its estimates have met their labels, {LEAST_WINDOWS} are needed"
        guesses = (
            ("no change since promotion", self.promotion_error, self.promotion_edge),
            ("the last realised windows", self.recent_error, self.recent_edge),
        )
        as_good = [
            f"{name} ({error:.3g})"
            for name, error, edge in guesses
            if error is not None and edge is not None and edge < LEAST_EDGE
        ]
        if as_good:
            return f"over {self.windows} windows it was off by {self.error:.3g}, not surely less than " + " and ".join(
                as_good
            )
        return ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def past_windows(history: History, window: timedelta, mature_until: datetime) -> tuple[Mapping[str, Any], ...]:
    """The newest checks that left an estimate of a window whose labels are due by now, newest first.

    At most PAST_WINDOWS of the last SEARCHED_WINDOWS, a window's length apart at least, so that no row counts twice.
    """
    found: list[Mapping[str, Any]] = []
    for row in reversed(history.decisions):
        at = moment(row)
        if len(found) == PAST_WINDOWS or mature_until - at > SEARCHED_WINDOWS * window:
            break
        apart = at <= mature_until and (not found or moment(found[-1]) - at >= window)
        if apart and row["evidence"].get("estimate"):  # the text of a row is read last: it costs more than its head
            found.append(row)
    return tuple(found)


def past_span(row: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """The window that a past check's estimate was about."""
    return datetime.fromisoformat(row["evidence"]["window_start"]), moment(row)


def past_rows(
    history: History,
    window: timedelta,
    mature_until: datetime,
    logged: Callable[[datetime, datetime], pd.DataFrame],
) -> pd.DataFrame | None:
    """The logged predictions by which past estimates are measured, at most PAST_ROWS of each window; None without any.

    Args:
        history, window, mature_until: As of `past_windows`.
        logged: Gives the log's rows with start ≤ time < end.
    """
    parts = []
    for row in past_windows(history, window, mature_until):
        part = logged(*past_span(row))
        parts.append(part.iloc[sample_ids(part["id"], PAST_ROWS)])
    return pd.concat(parts, ignore_index=True) if parts else None


def realise(
    rows: Sequence[Mapping[str, Any]], past: pd.DataFrame, loss: str, minimum_rows: int, minimum_coverage: float
) -> tuple[Realised, ...]:
    """Past estimates beside the realised loss, where enough of the window's predictions have labels.

    Args:
        rows: Of `past_windows`.
        past: time, raw_score, version, truth (NaN where unknown): logged predictions of those windows.
        loss: The loss per row.
        minimum_rows, minimum_coverage: The least labelled rows, and share of them, to call a loss realised.
    """
    found = []
    times = past["time"].to_numpy(dtype="datetime64[us]")
    codes, names = pd.factorize(past["version"].astype(str), use_na_sentinel=False)
    raw, truth = score_array(past["raw_score"]), past["truth"].to_numpy(dtype=np.float64)
    scored = known_scores(raw)
    for row in rows:
        told = row["evidence"]["estimate"]
        start, end = (np.datetime64(edge.replace(tzinfo=None), "us") for edge in past_span(row))
        inside = (times >= start) & (times < end) & names.isin(told["versions"])[codes] & scored
        known = inside & np.isfinite(truth)
        if known.sum() < minimum_rows or known.sum() < minimum_coverage * inside.sum():
            continue
        score = Recalibrator.from_dict(told["map"]).apply(raw[known]) if told["map"] else raw[known]
        realised = mean_loss(row_losses(truth[known], score, loss))
        found.append(
            Realised(moment(row), told["value"], told["promotion"], told["recent"], realised.mean, realised.rows)
        )
    return tuple(found)


def measure(found: Sequence[Realised]) -> Record:
    """How far estimates and guesses were off."""
    if not found:
        return Record(0)
    own = np.array([(each.estimate - each.realised) ** 2 for each in found])
    compared = {}
    for name in ("promotion", "recent"):
        guesses = [getattr(each, name) for each in found]
        told = np.array([guess is not None for guess in guesses])
        off = np.array([(g - each.realised) ** 2 for g, each in zip(guesses, found, strict=True) if g is not None])
        compared[name] = _compare(own[told], off)
    return Record(len(found), float(np.sqrt(own.mean())), *compared["promotion"], *compared["recent"])


def _compare(own: Floats, other: Floats) -> tuple[float | None, float | None]:
    """The guess's root mean square error, and the estimate's edge over it in standard errors."""
    if not len(other):
        return None, None
    saved = other - own
    error = float(saved.std(ddof=1) / np.sqrt(len(saved))) if len(saved) > 1 else 0.0
    return float(np.sqrt(other.mean())), float(saved.mean() / max(error, 1e-12))


def recent_loss(history: History, window: timedelta, newest: tuple[datetime, float] | None) -> float | None:
    """The mean loss of the newest realised windows, at most RECENT_WINDOWS, as checks saw them; None without any.

    No further back than SEARCHED_WINDOWS.

    Args:
        history: Earlier checks.
        window: Its length: checks nearer to each other than this count once.
        newest: This check's moment and the loss of its mature window, where it could be judged.
    """
    seen = [newest] if newest else []
    for row in reversed(history.decisions):
        at = moment(row)
        if len(seen) == RECENT_WINDOWS or moment(history.decisions[-1]) - at > SEARCHED_WINDOWS * window:
            break
        if (not seen or seen[-1][0] - at >= window) and row["evidence"].get("judged"):
            seen.append((at, float(row["evidence"]["loss"]["mean"])))
    return float(np.mean([loss for _, loss in seen])) if seen else None
