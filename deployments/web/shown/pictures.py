"""The pages' pictures: a model's story, a column's, a signal's, a curve. Which numbers; geometry is in charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pandas as pd

from deployments.web.known.glance import DecisionFacts, Glance, Point, SignalFacts
from deployments.web.known.reading import ColumnWindow
from deployments.web.shown.charts import (
    Dot,
    Panel,
    Picture,
    Series,
    Tick,
    TimeScale,
    ValueScale,
    band,
    line,
    sparkline,
    steps,
)
from deployments.web.shown.words import MARKS, number, utc

_MOST_MARKS = 60
_FEW, _SILENCE = 4, 20


def spark(values: Sequence[float | None]) -> str:
    return sparkline(values)


def story(glance: Glance, figures: pd.DataFrame) -> Picture | None:
    """Quality with its interval beside the never-retrained model, drift, champions and verdicts on one axis of time."""
    points, _ = stretch(glance.points)
    if not points:
        return None
    times = TimeScale.of([point.as_of for point in points])
    across = [times.place(point.as_of) for point in points]
    first = _by_moment(figures, "first")
    never = [first.get(point.as_of) for point in points]
    values = [*(point.loss for point in points), *never, *(point.at_promotion for point in points)]
    spread = [value for point in points for value in (point.low, point.high)]
    quality = ValueScale.of(_without_extremes(values, spread), 18, 218)
    base = f"/models/{glance.model}/decisions/"
    dots = tuple(
        Dot(place, quality.place(point.loss), f"{utc(point.as_of)}: {number(point.loss)} on version {point.version}",
            base + point.decision_id)
        for place, point in zip(across, points, strict=True)
        if point.loss is not None
    )  # fmt: skip
    promised = Series("at promotion", "promised", steps(across, [point.at_promotion for point in points], quality))
    live = Series(
        "live champion", "live", line(across, [point.loss for point in points], quality),
        band(across, [point.low for point in points], [point.high for point in points], quality), dots,
    )  # fmt: skip
    series = [promised, live]
    if any(value is not None for value in never):
        series.insert(0, Series("never retrained", "never", line(across, never, quality)))
    title = f"{glance.loss.replace('_', ' ')} (lower is better)"
    panels = [Panel(title, 18, 218, tuple(quality.ticks()), tuple(series))]
    if any(point.drift is not None for point in points):
        panels.append(_drift_panel(across, [point.drift for point in points], 250, 320))
    bottom = panels[-1].bottom
    width = max(2.0, min(14.0, 0.8 * (across[-1] - across[0]) / max(1, len(points) - 1))) if len(points) > 1 else 14.0
    strip = tuple(
        Dot(place, bottom + 26, f"{utc(point.as_of)}: {MARKS.get(point.verdict, '')} {point.verdict}. {point.reason}",
            base + point.decision_id, point.verdict)
        for place, point in zip(across, points, strict=True)
    )  # fmt: skip
    return Picture(
        f"Quality of {glance.model} over time, with verdicts and champions", bottom + 66, tuple(panels),
        tuple(times.ticks()), _reigns(glance, times), strip, width, bottom + 26,
    )  # fmt: skip


def stretch(points: Sequence[Point]) -> tuple[Sequence[Point], Sequence[Point]]:
    """The checks to draw, and a few newest ones that a long silence divides from them: they would flatten the rest."""
    if len(points) < 2 * _FEW:
        return points, ()
    gaps = [after.as_of - before.as_of for before, after in pairwise(points)]
    usual = sorted(gaps)[len(gaps) // 2]
    for newest in range(1, _FEW + 1):
        if gaps[-newest] > _SILENCE * usual:
            return points[:-newest], points[-newest:]
    return points, ()


def figures_table(glance: Glance, figures: pd.DataFrame) -> list[dict[str, Any]]:
    """The story's numbers, newest first: for who can't see the picture, and who wants them exactly."""
    first = _by_moment(figures, "first")
    return [{"point": point, "never": first.get(point.as_of)} for point in reversed(glance.points)]


def column(
    name: str, windows: Sequence[ColumnWindow], drift: Sequence[tuple[datetime, SignalFacts]],
    ordinary: Mapping[str, tuple[float, float]], window: timedelta,
) -> Picture | None:  # fmt: skip
    """A column over time: drift beside its limit, what is missing, and its values."""
    ends = [item.start + window for item in windows]
    moments = [*ends, *(moment for moment, _ in drift)]
    if not moments:
        return None
    times = TimeScale.of(moments)
    across = [times.place(end) for end in ends]
    panels: list[Panel] = []
    if drift:
        ratios = [
            signal.value / signal.threshold if signal.value is not None and signal.threshold else None
            for _, signal in drift
        ]
        panels.append(_drift_panel([times.place(moment) for moment, _ in drift], ratios, 18, 98))
    if any(item.quantiles for item in windows):
        panels.append(_values_panel(across, windows, ordinary.get("median"), _next_top(panels)))
    if windows:
        panels.append(_shares_panel(across, windows, ordinary.get("missing"), _next_top(panels)))
    label = f"{name} over time: drift, values and what is missing"
    return Picture(label, panels[-1].bottom + 34, tuple(panels), tuple(times.ticks()))


def signal_sparks(signals: Sequence[Mapping[str, Any]], history: Sequence[DecisionFacts]) -> dict[str, str]:
    """Each signal's small line over the last checks, up to the decision itself."""
    newest = history[-26:]
    found: dict[str, str] = {}
    for signal in signals:
        values = [
            next((item.value for item in decision.signals if item.name == signal["name"]), None) for decision in newest
        ]
        found[signal["name"]] = sparkline(values)
    return found


@dataclass(frozen=True)
class Slice:
    """A slice's newest loss with its interval, and its small line."""

    part: str
    rows: int
    value: float
    low: float
    high: float
    spark: str


def slices(figures: pd.DataFrame) -> list[Slice]:
    """Each slice of the newest check that has figures, the worst first."""
    rows = figures[figures["kind"] == "slice"]
    if not len(rows):
        return []
    last = rows[rows["as_of"] == rows["as_of"].max()]
    found = []
    for item in last.itertuples():
        before = rows[rows["part"] == item.part]["value"].tail(26).tolist()
        found.append(Slice(item.part, int(item.rows), item.value, item.low, item.high, sparkline(before)))
    return sorted(found, key=lambda item: -item.value)


def newest_of(figures: pd.DataFrame, kind: str) -> dict[str, Any] | None:
    """The newest figure of a kind."""
    rows = figures[figures["kind"] == kind]
    return None if not len(rows) else {str(key): value for key, value in rows.iloc[-1].to_dict().items()}


@dataclass(frozen=True)
class Curve:
    """A curve in the unit square."""

    title: str
    across: str
    up: str
    path: str
    points: tuple[tuple[float, float], ...]


CURVE_SIZE = 220.0


def curve(title: str, across: str, up: str, points: Sequence[tuple[float, float]]) -> Curve:
    scale = ValueScale(0.0, 1.0, 8.0, CURVE_SIZE - 8)
    places = [round(8 + x * (CURVE_SIZE - 16), 1) for x, _ in points]
    return Curve(title, across, up, line(places, [y for _, y in points], scale), tuple(points))


def _drift_panel(across: Sequence[float], ratios: Sequence[float | None], top: float, bottom: float) -> Panel:
    scale = ValueScale.of([*ratios, 1.0], top, bottom, zero=True)
    limit = Series("limit", "limit", line([across[0], across[-1] + 0.1], [1.0, 1.0], scale))
    dots = tuple(
        Dot(place, scale.place(value), f"{number(value)} times its limit", kind="fired" if value > 1 else "")
        for place, value in zip(across, ratios, strict=True)
        if value is not None
    )
    moved = Series("drift, in times of its limit", "drift", line(across, ratios, scale), dots=dots)
    return Panel("drift, in times of its limit", top, bottom, tuple(scale.ticks(3)), (limit, moved))


def _values_panel(
    across: Sequence[float], windows: Sequence[ColumnWindow], ordinary: tuple[float, float] | None, top: float
) -> Panel:
    quantiles = [item.quantiles if len(item.quantiles) == 5 else (None,) * 5 for item in windows]
    low, median, high = ([item[place] for item in quantiles] for place in (0, 2, 4))
    scale = ValueScale.of([*low, *high, *(ordinary or ())], top, top + 110)
    series = [
        Series("5 to 95 % of the values", "spread", "", band(across, low, high, scale)),
        Series("median", "live", line(across, median, scale)),
    ]
    if ordinary:
        flat = [across[0], across[-1] + 0.1]
        area = band(flat, [ordinary[0]] * 2, [ordinary[1]] * 2, scale)
        series.insert(1, Series("ordinary medians of training", "ordinary", "", area))
    return Panel("values", top, top + 110, tuple(scale.ticks()), tuple(series))


def _shares_panel(
    across: Sequence[float], windows: Sequence[ColumnWindow], ordinary: tuple[float, float] | None, top: float
) -> Panel:
    missing, outside = [item.missing for item in windows], [item.outside for item in windows]
    scale = ValueScale.of([*missing, *outside, *(ordinary or ()), 0.01], top, top + 70, zero=True)
    series = [
        Series("missing", "live", line(across, missing, scale)),
        Series("unknown to training", "drift", line(across, outside, scale)),
    ]
    if ordinary:
        flat = [across[0], across[-1] + 0.1]
        area = band(flat, [ordinary[0]] * 2, [ordinary[1]] * 2, scale)
        series.insert(0, Series("ordinarily missing", "ordinary", "", area))
    ticks = tuple(Tick(tick.place, f"{100 * float(tick.text):g} %") for tick in scale.ticks(3))
    return Panel("shares of the rows", top, top + 70, ticks, tuple(series))


def _next_top(panels: Sequence[Panel]) -> float:
    return panels[-1].bottom + 34 if panels else 18.0


def _reigns(glance: Glance, times: TimeScale) -> tuple[Dot, ...]:
    """Where champions changed, those in the picture."""
    inside = [line for line in glance.reigns if times.first <= line.at <= times.last]
    return tuple(
        Dot(times.place(reign.at), 0, f"version {reign.version} since {utc(reign.at)}: {reign.reason}",
            f"/models/{glance.model}/versions/{reign.version}", "map" if reign.action == "recalibrate" else "model")
        for reign in inside[-_MOST_MARKS:]
    )  # fmt: skip


def _by_moment(figures: pd.DataFrame, kind: str) -> dict[datetime, float]:
    rows = figures[figures["kind"] == kind]
    return {moment.to_pydatetime(): float(value) for moment, value in zip(rows["as_of"], rows["value"], strict=True)}


def _without_extremes(values: Sequence[float | None], spread: Sequence[float | None]) -> list[float | None]:
    """The values, and of their intervals what is not so far off that it would flatten everything else."""
    known = [value for value in values if value is not None]
    if not known:
        return list(values)
    reach = 2 * (max(known) - min(known)) or abs(max(known)) or 1.0
    low, high = min(known) - reach, max(known) + reach
    return [*values, *(value for value in spread if value is not None and low <= value <= high)]
