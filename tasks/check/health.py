"""Is the data broken? Faults of the feed, told apart from a world that moved. No drift and no quality here.

Each check compares the window with runs of the reference and with the newest windows that were in order: the seasons
move a column slowly, a fault moves it at once. Every signal that fires means `repair`, and says how many rows it
concerns, with an example.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.model.scores import known_scores
from tasks.check.complaints.complaint import Complaint
from tasks.check.history import moment
from tasks.check.reference import Reference, RunSummary
from tasks.check.signal import Signal, finite
from tasks.check.window import FAR_SIZES, ColumnFacts, WindowFacts
from tasks.measures.calendar import is_of_calendar
from tasks.measures.described.columns import REPEATED, Owned
from tasks.measures.profiles import Column

Floats = NDArray[np.float64]

MISSING_RISE = 0.20
MISSING_MUCH = 0.40
UNSEEN_RISE = 0.40
DUPLICATE_RISE = 0.05
LEAST_JUMP = 0.75
FAR_JUMP = 3.0
FAR_SHARE = 0.01
WALKED = 0.7
SAME_LEVEL = 0.01
DEGREES = (-150.0, 500.0)
STUCK_SHARE = 0.7
FEW_ROWS = 0.1
LEAST_ROWS = 30
LEAST_GAPS = 2
CLOCK_HOURS = 2
SEARCHED_CHECKS = 40
_FLAGGED = {
    "empty": "{} is empty",
    "unreadable": "the picture of {} can't be read",
    "repeated": "{} repeats what came shortly before",
}
CONVERSIONS: tuple[tuple[str, float, float], ...] = (
    ("multiplied by 1000", 1000.0, 0.0),
    ("divided by 1000", 0.001, 0.0),
    ("multiplied by 100", 100.0, 0.0),
    ("divided by 100", 0.01, 0.0),
    ("multiplied by 10", 10.0, 0.0),
    ("divided by 10", 0.1, 0.0),
    ("converted from °C to °F", 1.8, 32.0),
    ("converted from °F to °C", 1 / 1.8, -32 / 1.8),
    ("converted from °C to K", 1.0, 273.15),
    ("converted from K to °C", 1.0, -273.15),
    ("converted from m to ft", 3.28084, 0.0),
    ("converted from ft to m", 0.3048, 0.0),
    ("converted from kg to lb", 2.20462, 0.0),
    ("converted from lb to kg", 0.453592, 0.0),
    ("converted from m/s to km/h", 3.6, 0.0),
    ("with its sign turned", -1.0, 0.0),
)


@dataclass(frozen=True)
class Freshness:
    """What ingestion knows about the feed at the moment of the check.

    Attributes:
        latest_event: The newest event time of any row known, also of one dated after the check; None without rows.
        future_rows: Rows dated after the check.
        duplicate_batches: The newest deliveries, where they repeat known rows instead of bringing new ones.
        duplicate_rows: Their rows.
        example: The newest of them.
    """

    latest_event: datetime | None = None
    future_rows: int = 0
    duplicate_batches: int = 0
    duplicate_rows: int = 0
    example: str = ""


def check_schema(window: WindowFacts) -> tuple[Signal, ...]:
    """Columns that are missing or not of their kind: without them nothing else can be measured."""
    found = []
    if absent := window.missing:
        detail = f"{len(absent)} columns are missing: {', '.join(absent)}"
        found.append(_broken("schema", len(absent), 0, "the champion's features", detail))
    for name, (kind, value) in window.kinds.items():
        example = "" if value is None else f", such as {value!r}"
        detail = f"{name} holds {kind} in {window.rows} rows{example}; the champion knows numbers"
        found.append(_broken(f"type of {name}", window.rows, 0, "the champion's features", detail))
    return tuple(found)


def check_feed(
    reference: Reference, rows: int, freshness: Freshness, as_of: datetime, stale_after: timedelta
) -> tuple[Signal, ...]:
    """A feed that stopped, thinned out, repeats itself, or dates rows after the check."""
    found = []
    if freshness.latest_event is None or rows == 0 or as_of - freshness.latest_event > stale_after:
        latest = freshness.latest_event
        age = (as_of - latest).total_seconds() / 3600 if latest else None
        said = (
            f"the newest row is from {latest:%Y-%m-%d %H:%M}, {age:.0f} hours ago" if latest else "no row was ever seen"
        )
        limit = stale_after.total_seconds() / 3600
        found.append(
            _broken("stale feed", age, limit, "monitoring.stale_after, hours", f"{said}; {rows} in the window")
        )
    least = min((run.rows for run in reference.runs), default=0) * FEW_ROWS
    if 0 < rows < least and len(reference.runs) > 1:
        detail = f"{rows} rows, where the emptiest window of the reference had {least / FEW_ROWS:.0f}"
        found.append(_broken("thin feed", rows, least, "a tenth of the reference's emptiest window", detail))
    if freshness.future_rows:
        until = f", up to {freshness.latest_event:%Y-%m-%d %H:%M}" if freshness.latest_event else ""
        detail = (
            f"{freshness.future_rows} rows are dated after the check{until}: the sender's clock or time zone is off"
        )
        found.append(_broken("clock ahead", freshness.future_rows, 0, "no event can be later than the check", detail))
    if freshness.duplicate_batches:
        example = f", such as {freshness.example}" if freshness.example else ""
        detail = (
            f"the newest {freshness.duplicate_batches} deliveries repeat {freshness.duplicate_rows} known rows and "
            f"bring no new one{example}"
        )
        source = "deliveries that repeat, for twice as long as new rows ever took"
        found.append(_broken("duplicated batch", freshness.duplicate_batches, 0, source, detail))
    return tuple(found)


def repeating_deliveries(receipts: pd.DataFrame) -> pd.DataFrame:
    """The newest deliveries, where the feed repeats itself instead of bringing something new; else none.

    A rolling export, or a file given twice, is normal. A feed that brought new rows in a rhythm is stuck where it has
    delivered nothing but known rows, at two moments at least, for twice as long as new rows ever took to come.

    Args:
        receipts: Accepted deliveries: ingested_at, rows, kept, duplicates and more.
    """
    ordered = receipts.sort_values("ingested_at", kind="stable")
    brought = ordered.loc[ordered["kept"] > 0, "ingested_at"]
    since = ordered[(ordered["ingested_at"] > brought.max()) & (ordered["duplicates"] == ordered["rows"])]
    gaps = brought.drop_duplicates().diff().dropna()
    stuck = len(gaps) >= LEAST_GAPS and since["ingested_at"].nunique() >= 2
    if not stuck or since["ingested_at"].max() - brought.max() <= 2 * gaps.max():
        return pd.DataFrame(since.iloc[:0])
    return pd.DataFrame(since)


def check_rows(reference: Reference, summary: RunSummary, recent: Sequence[RunSummary]) -> tuple[Signal, ...]:
    """Repeated rows, and hours of the day that moved."""
    found = []
    before = [*reference.runs, *recent]
    usual = max((run.duplicates for run in before), default=0.0)
    limit = usual + DUPLICATE_RISE
    if summary.duplicates > limit:
        count = round(summary.duplicates * summary.rows)
        detail = f"{count} of {summary.rows} rows repeat another one, time and all; at most {usual:.1%} did before"
        found.append(
            _broken("duplicated rows", summary.duplicates, limit, "the reference's windows + 5 points", detail)
        )
    shift = _hour_shift(reference, summary)
    if shift:
        detail = (
            f"the day's pattern of {summary.rows} rows lies {shift:+d} hours from the reference's: a time zone or clock"
        )
        found.append(_broken("clock shifted", shift, CLOCK_HOURS, "hours, best fit of the day's pattern", detail))
    return tuple(found)


def check_columns(
    reference: Reference, window: WindowFacts, summary: RunSummary, recent: Sequence[RunSummary]
) -> tuple[Signal, ...]:
    """Each column's missing spike, unseen category, constant value, or unit; `window` gives the examples."""
    found = []
    for column in reference.columns:
        facts, owned = window.columns[column.name], reference.owners.get(column.name)
        if owned is not None and owned.is_flag:
            if owned.what != REPEATED:  # what is missing is told once, of the text or image itself
                found += _missing(column, reference, summary, recent, owned.feature)
            found += _flagged(column, owned, reference, summary, recent)
            continue
        if owned is None or owned.kind == "text before":
            found += _missing(column, reference, summary, recent, column.name)
        if column.kind == "categorical":
            found += _unseen(column, reference, facts, summary, recent)
        elif owned is None or not owned.is_share:  # a share has no unit, and can't leave its range
            found += _unit(column, reference, facts, summary, recent)
        found += _stuck(column, reference, facts, summary, recent)
    return tuple(found)


def check_predictions(scores: Floats) -> tuple[Signal, ...]:
    """Predictions that are no numbers."""
    bad = int((~known_scores(scores)).sum())
    if len(scores) < LEAST_ROWS or not bad:
        return ()
    detail = f"{bad} of {len(scores)} predictions are missing or infinite"
    return (_broken("predictions", bad, 0, "every prediction is a number", detail),)


def _broken(name: str, value: float | None, threshold: float, source: str, detail: str) -> Signal:
    given = None if value is None else finite(value)
    return Signal(name, "health", given, finite(threshold), source, True, True, detail)


def _past(name: str, reference: Reference, recent: Sequence[RunSummary], what: str) -> list[float]:
    runs = [run for run in (*reference.runs, *recent) if name in run.columns]
    return [float(getattr(run.columns[name], what)) for run in runs]


def _gaps(name: str, reference: Reference, recent: Sequence[RunSummary]) -> list[float]:
    """Shares missing before; windows without any value only if they are the newest: a gap that has ended is no custom.

    Values that a training was not to learn from are such a gap.
    """
    shares = _past(name, reference, recent, "missing")
    ended = [position for position, share in enumerate(shares) if share < 1.0]
    return shares if not ended else [s for at, s in enumerate(shares) if s < 1.0 or at > ended[-1]]


def _was_present(column: Column, reference: Reference) -> bool:
    counts = reference.profile.counts[:, reference.profile.columns.index(column)]
    return bool(counts[:, :-1].sum())


def _missing(
    column: Column, reference: Reference, summary: RunSummary, recent: Sequence[RunSummary], name: str
) -> list[Signal]:
    share = summary.columns[column.name].missing
    usual = max(_gaps(column.name, reference, recent), default=0.0)
    limit = usual + MISSING_RISE
    emptied = share == 1.0 and usual < 1.0 and (1 - usual) * summary.rows >= LEAST_ROWS
    if share <= limit and not emptied:
        return []
    count = round(share * summary.rows)
    detail = f"{name} is missing in {count} of {summary.rows} rows ({share:.1%}); at most {usual:.1%} before"
    source = "the greatest share of the reference's and the newest windows + 20 points"
    found = _broken(f"missing {name}", share, min(limit, 1.0), source, detail)
    return [found if emptied or share > usual + MISSING_MUCH else replace(found, persistent=False)]


def _flagged(
    column: Column, owned: Owned, reference: Reference, summary: RunSummary, recent: Sequence[RunSummary]
) -> list[Signal]:
    """Texts that are empty, images that can't be read, values that repeat: the share that is set lies outside."""
    share = summary.columns[column.name].outside
    usual = max(_past(column.name, reference, recent, "outside"), default=0.0)
    limit = usual + MISSING_RISE
    emptied = share == 1.0 and usual < 1.0 and (1 - usual) * summary.rows >= LEAST_ROWS
    if share <= limit and not emptied:
        return []
    count = round(share * (1 - summary.columns[column.name].missing) * summary.rows)
    said = _FLAGGED[owned.what].format(owned.feature)
    detail = f"{said} in {count} of {summary.rows} rows ({share:.1%} of what is there); at most {usual:.1%} before"
    source = "the greatest share of the reference's and the newest windows + 20 points"
    found = _broken(f"{owned.what} {owned.feature}", share, min(limit, 1.0), source, detail)
    return [found if emptied or share > usual + MISSING_MUCH else replace(found, persistent=False)]


def _unseen(
    column: Column, reference: Reference, facts: ColumnFacts, summary: RunSummary, recent: Sequence[RunSummary]
) -> list[Signal]:
    share = summary.columns[column.name].outside
    if not _was_present(column, reference):
        return []  # a new question: nobody has learned what is usual
    if is_of_calendar([*column.categories, *column.rare, *facts.strange]):
        return []
    usual = max([*_past(column.name, reference, recent, "outside"), reference.novelty(column.name)], default=0.0)
    limit = usual + UNSEEN_RISE
    if share <= limit:
        return []
    value = max(facts.strange, key=lambda name: facts.strange[name], default=None)
    example = "unknown values" if value is None else f"{value!r} in {facts.strange[value]} rows"
    detail = f"{column.name} holds values never seen in training in {share:.1%} of {summary.rows} rows: {example}"
    source = "the greatest share of rare or unseen values before + 40 points"
    return [_broken(f"unseen {column.name}", share, limit, source, detail)]


def _stuck(
    column: Column, reference: Reference, facts: ColumnFacts, summary: RunSummary, recent: Sequence[RunSummary]
) -> list[Signal]:
    now = summary.columns[column.name]
    past = _past(column.name, reference, recent, "top_share")
    if now.top_share < 1.0 or summary.rows < LEAST_ROWS or now.missing == 1.0:
        return []
    if column.kind == "numeric":
        total = reference.profile.counts.sum(axis=0)[reference.profile.columns.index(column)]
        common = float(total[:-1].max() / max(1, total[:-1].sum()))
        past = [*past, common]
    if max(past, default=1.0) >= STUCK_SHARE:
        return []
    if column.kind == "numeric" and column.edges[-1] - column.edges[0] <= SAME_LEVEL * abs(column.edges[-1]):
        return []  # a rate, a calibration: it hardly moves anyway
    value = facts.first.item() if isinstance(facts.first, np.generic) else facts.first
    detail = f"{column.name} is {value!r} in all {summary.rows} rows; no earlier window had one value only"
    return [_broken(f"constant {column.name}", 1.0, STUCK_SHARE, "the greatest share of one value before", detail)]


def _unit(
    column: Column, reference: Reference, facts: ColumnFacts, summary: RunSummary, recent: Sequence[RunSummary]
) -> list[Signal]:
    now = np.array(summary.columns[column.name].quantiles)
    if not len(now):
        return []
    far = _far_away(column, facts, summary, recent)
    if now[1] == now[3]:
        return far
    series = [np.array(run.columns[column.name].quantiles) for run in reference.runs if column.name in run.columns]
    series = [values for values in series if len(values) and values[1] < values[3]]
    if not series:
        return far
    scale = _scale(column, series)
    ordinary = max((_jump(later, sooner, scale) for sooner, later in pairwise(series)), default=0.0)
    latest = [np.array(run.columns[column.name].quantiles) for run in recent if column.name in run.columns]
    latest = [values for values in latest if len(values) and values[1] < values[3]]
    near = [*latest, series[-1]]  # back to what was learned is no jump, whatever came in between
    jump = min(_jump(now, values, scale) for values in near)
    limit = max(LEAST_JUMP, 2 * ordinary)
    if jump <= limit:
        return far
    # A sender converts from one day to the next; a text's length has no unit.
    derived = column.name in reference.owners
    name, undone = ("", float("inf")) if derived else best_conversion(now, (latest or near)[-1:], scale)
    typical = f"median {now[2]:.4g} after {near[max(0, len(near) - 2)][2]:.4g}"
    source = "twice the greatest step between the reference's windows, in its 5–95 % range"
    if undone <= max(min(ordinary, limit / 3), 0.1) and undone < jump / 4:
        detail = f"{column.name} looks {name}: {typical} in {summary.rows} rows; undone, it is as before"
        return [_broken(f"unit of {column.name}", jump, limit, source, detail)]
    # A date or a counter walks through windows much narrower than all of it: far is what lies beyond the whole range.
    whole = max(scale, column.edges[-1] - column.edges[0])
    far_jump, far_limit = jump * scale / whole, max(FAR_JUMP, 10 * ordinary * scale / whole)
    # A rate, a counter, a year, a price: what has left its range, and is still of the size it was, has walked.
    size = max(abs(column.edges[0]), abs(column.edges[-1]), *(abs(float(values[2])) for values in (now, *near)))
    if far_jump > far_limit and jump * scale > WALKED * size:
        source = "three times the reference's whole range, and ten times its greatest step; fixed"
        detail = f"{column.name} left its range at once: {typical} in {summary.rows} rows"
        return [_broken(f"range of {column.name}", far_jump, far_limit, source, detail)]
    return far


def _far_away(column: Column, facts: ColumnFacts, summary: RunSummary, recent: Sequence[RunSummary]) -> list[Signal]:
    present = max(1, facts.finite)
    if facts.example is None or facts.away < max(5.0, FAR_SHARE * present):
        return []
    sizes = [abs(value) for run in recent if column.name in run.columns for value in run.columns[column.name].quantiles]
    if abs(facts.example) <= (1 + FAR_SIZES) * max(sizes, default=0.0):
        return []  # the newest windows in order have walked there
    detail = (
        f"{column.name} lies far outside [{column.edges[0]:.4g}, {column.edges[-1]:.4g}] in {facts.away} of "
        f"{summary.rows} rows, such as {facts.example:.4g}"
    )
    source = "share of values more than five ranges outside the reference's; fixed"
    return [_broken(f"range of {column.name}", facts.away / present, FAR_SHARE, source, detail)]


def _scale(column: Column, series: Sequence[Floats]) -> float:
    spread = float(np.median([values[-1] - values[0] for values in series]))
    return spread if spread > 0 else column.edges[-1] - column.edges[0]


def _jump(now: Floats, before: Floats, scale: float) -> float:
    """The mean difference of the five quantiles, in units of the reference's 5–95 % range."""
    return float(np.abs(now - before).mean() / scale)


def best_conversion(now: Floats, near: Sequence[Floats], scale: float) -> tuple[str, float]:
    """The conversion that, undone, brings the window closest to the newest ones in order."""
    best = ("", float("inf"))
    for name, factor, shift in CONVERSIONS:
        if "°" in name and not all(DEGREES[0] <= value <= DEGREES[1] for values in near for value in values):
            continue
        undone = (now - shift) / factor
        ordered = undone if factor > 0 else undone[::-1]
        alike = [values for values in near if _same_spread(ordered, values) and _same_median(now, ordered, values)]
        apart = min((_jump(ordered, values, scale) for values in alike), default=float("inf"))
        if apart < best[1]:
            best = (name, apart)
    return best


def _same_spread(one: Floats, other: Floats) -> bool:
    """A conversion stretches as well as it shifts; a world that moved need not."""
    mine, theirs = one[-1] - one[0], other[-1] - other[0]
    return bool(mine == theirs or (min(mine, theirs) > 0 and 0.6 <= mine / theirs <= 1 / 0.6))


def _same_median(now: Floats, undone: Floats, before: Floats) -> bool:
    """A conversion moves the middle as it moves the ends; what grows at one end is none."""
    return bool(abs(undone[2] - before[2]) <= 0.25 * abs(now[2] - before[2]))


def _hour_shift(reference: Reference, summary: RunSummary) -> int:
    """By how many hours the day's pattern moved, when that explains it and no earlier window did so; else 0."""
    runs = [np.array(run.hours, dtype=np.float64) for run in reference.runs if sum(run.hours)]
    now = np.array(summary.hours, dtype=np.float64)
    if len(runs) < 3 or now.sum() < 10 * LEAST_ROWS:
        return 0
    usual = sum(run / run.sum() for run in runs) / len(runs)
    now = now / now.sum()
    ordinary = max(float(np.abs(run / run.sum() - usual).sum()) for run in runs)
    apart = [float(np.abs(np.roll(now, -lag) - usual).sum()) for lag in range(24)]
    best = int(np.argmin(apart))
    lag = best if best <= 12 else best - 24
    moved = apart[0] > max(2 * ordinary, 0.2) and apart[best] < 0.5 * apart[0]
    return lag if moved and abs(lag) >= CLOCK_HOURS else 0


def recent_runs(
    decisions: Sequence[Mapping[str, Any]],
    accepted: Container[str] = (),
    complaints: Sequence[Complaint] = (),
    count: int = 3,
) -> tuple[RunSummary, ...]:
    """The window summaries of the newest checks, oldest first, of each column the newest `count` that were in order.

    In order is what no complaint stands against by now: one that its rows' truth dissolved, or a person accepted, is
    none. A column complained of is left out of its window; rows complained of leave their window out.
    """
    found: list[RunSummary] = []
    standing = [item for item in complaints if item.state in ("open", "confirmed")]
    known: dict[str, int] = {}
    for row in reversed(decisions[-SEARCHED_CHECKS:]):  # the text of a row is read last: it costs more than its head
        if found and min(known.values(), default=count) >= count:
            break
        evidence = row["evidence"]
        if not evidence.get("window"):
            continue
        broken = row["verdict"] == "repair" and row["decision_id"] not in accepted
        if broken and ("complaints" not in evidence or evidence.get("facts")):
            continue
        start, end = datetime.fromisoformat(evidence["window_start"]), moment(row)
        inside = [item for item in standing if item.covers(start, end)] if row["decision_id"] not in accepted else []
        if any(item.column is None for item in inside):
            continue
        summary = RunSummary.from_dict(evidence["window"])
        doubted = {item.name.removeprefix(f"{item.kind} ") for item in inside}
        for name in summary.columns:
            known[name] = known.get(name, 0) + (name not in doubted)
        kept = {
            name: column for name, column in summary.columns.items() if name not in doubted and known[name] <= count
        }
        found.append(replace(summary, columns=kept))
    return tuple(reversed(found))
