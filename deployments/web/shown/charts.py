"""Pictures as geometry: scales, ticks, lines and bands in an SVG's units. The templates draw them; no colours here.

Each picture is a small frozen value, so that a page's SVG is made by the same escaping templates as its text, marks can
be links, and light and dark are the style sheet's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

WIDTH, LEFT, RIGHT = 960.0, 64.0, 12.0
_MOST_TICKS = 9
_STEPS = (timedelta(hours=1), timedelta(hours=6), timedelta(days=1), timedelta(days=2), timedelta(days=7),
          timedelta(days=14))  # fmt: skip
_MONTHS = (1, 2, 3, 6, 12, 24, 60)

Values = Sequence[float | None]


@dataclass(frozen=True)
class Tick:
    """Where a tick stands, and what it says."""

    place: float
    text: str


@dataclass(frozen=True)
class TimeScale:
    """Moments to places from LEFT to the right edge."""

    first: datetime
    last: datetime

    @classmethod
    def of(cls, moments: Sequence[datetime]) -> TimeScale:
        first, last = min(moments), max(moments)
        return cls(first, last if last > first else first + timedelta(days=1))

    def place(self, moment: datetime) -> float:
        share = (moment - self.first) / (self.last - self.first)
        return round(LEFT + 6 + share * (WIDTH - LEFT - RIGHT - 12), 1)

    def ticks(self) -> list[Tick]:
        """At most nine round moments."""
        span = self.last - self.first
        for step in _STEPS:
            if span / step <= _MOST_TICKS:
                return [Tick(self.place(moment), _moment_text(moment, step)) for moment in self._rounds(step)]
        months = next((count for count in _MONTHS if span / timedelta(days=30 * count) <= _MOST_TICKS), _MONTHS[-1])
        return [Tick(self.place(moment), _month_text(moment, months)) for moment in self._month_starts(months)]

    def _rounds(self, step: timedelta) -> list[datetime]:
        zero = datetime(1970, 1, 5, tzinfo=UTC)  # a Monday
        moment = zero + math.ceil((self.first - zero) / step) * step
        found = []
        while moment <= self.last:
            found.append(moment)
            moment += step
        return found

    def _month_starts(self, months: int) -> list[datetime]:
        number = self.first.year * 12 + self.first.month - 1
        number += -number % months
        found: list[datetime] = []
        while True:
            moment = datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
            if moment > self.last:
                return found
            if moment >= self.first:
                found.append(moment)
            number += months


@dataclass(frozen=True)
class ValueScale:
    """Values to places between a panel's bottom and top."""

    low: float
    high: float
    top: float
    bottom: float

    @classmethod
    def of(cls, values: Sequence[float | None], top: float, bottom: float, *, zero: bool = False) -> ValueScale:
        known = [value for value in values if value is not None and math.isfinite(value)]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        low = min(low, 0.0) if zero else low
        margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
        return cls(low if zero and low == 0 else low - margin, high + margin, top, bottom)

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.bottom - min(1.0, max(0.0, share)) * (self.bottom - self.top), 1)

    def ticks(self, most: int = 5) -> list[Tick]:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next((power * unit for unit in (1, 2, 5) if power * unit >= rough), power * 10)
        first, digits = math.ceil(self.low / step), max(0, -math.floor(math.log10(step)))
        return [
            Tick(self.place(number * step), _value_text(number * step + 0.0, digits))
            for number in range(first, math.floor(self.high / step) + 1)
        ]


def line(across: Sequence[float], values: Values, scale: ValueScale) -> str:
    """The `d` of a path through the known values; where one is missing the line is broken."""
    parts, pen = [], "M"
    for place, value in zip(across, values, strict=True):
        if value is None or not math.isfinite(value):
            pen = "M"
            continue
        parts.append(f"{pen}{place:g},{scale.place(value):g}")
        pen = "L"
    return "".join(parts)


def steps(across: Sequence[float], values: Values, scale: ValueScale) -> str:
    """As `line`, of what stays as it is until the next value."""
    parts, before = [], False
    for place, value in zip(across, values, strict=True):
        if value is None or not math.isfinite(value):
            before = False
            continue
        parts.append(f"H{place:g}V{scale.place(value):g}" if before else f"M{place:g},{scale.place(value):g}")
        before = True
    return "".join(parts)


def band(across: Sequence[float], low: Values, high: Values, scale: ValueScale) -> str:
    """The `d` of the areas between two lines, where both are known."""
    areas: list[list[tuple[float, float, float]]] = [[]]
    for place, below, above in zip(across, low, high, strict=True):
        if below is None or above is None or not (math.isfinite(below) and math.isfinite(above)):
            areas.append([])
        else:
            areas[-1].append((place, scale.place(below), scale.place(above)))
    drawn = []
    for area in (area for area in areas if area):
        if len(area) == 1:  # one check alone has a bar, not an area
            place, below, above = area[0]
            area = [(place - 1.5, below, above), (place + 1.5, below, above)]
        path = [f"{place:g},{above:g}" for place, _, above in area]
        path += [f"{place:g},{below:g}" for place, below, _ in reversed(area)]
        drawn.append("M" + "L".join(path) + "Z")
    return "".join(drawn)


@dataclass(frozen=True)
class Dot:
    """A mark: where, what it says to who points at it, where it leads, and its kind for the style sheet."""

    across: float
    down: float
    told: str
    where: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Series:
    """A line of a panel with its band and dots; `kind` is for the style sheet, `name` for the legend."""

    name: str
    kind: str
    path: str
    area: str = ""
    dots: tuple[Dot, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One panel of a picture: lines over time."""

    title: str
    top: float
    bottom: float
    ticks: tuple[Tick, ...]
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Picture:
    """Panels above each other on one axis of time."""

    label: str
    height: float
    panels: tuple[Panel, ...]
    times: tuple[Tick, ...]
    marks: tuple[Dot, ...] = ()
    strip: tuple[Dot, ...] = ()
    strip_width: float = 0.0
    strip_top: float = 0.0

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The legend: kind and name of each series once."""
        return list(dict.fromkeys((series.kind, series.name) for panel in self.panels for series in panel.series))


def sparkline(values: Values, width: float = 120.0, height: float = 28.0) -> str:
    """The `d` of a small line of the values, evenly spaced; empty of less than two."""
    if sum(value is not None for value in values) < 2:
        return ""
    scale = ValueScale.of(values, 2.0, height - 2.0)
    step = (width - 4) / max(1, len(values) - 1)
    return line([round(2 + place * step, 1) for place in range(len(values))], values, scale)


def _value_text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if digits <= 6 and abs(value) < 1e7 else f"{value:.4g}"


def _moment_text(moment: datetime, step: timedelta) -> str:
    if step < timedelta(days=1) and moment.hour:
        return f"{moment:%H:%M}"
    return f"{moment.day} {moment:%b}"


def _month_text(moment: datetime, months: int) -> str:
    return f"{moment:%Y}" if months >= 12 or moment.month == 1 else f"{moment:%b}"
