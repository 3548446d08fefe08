"""A model's story over time: quality of the live champion beside a never-retrained one, verdicts, champions.

From the tables to a value, a picture and a page. It decides nothing and knows no model.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.model.scores import score_array, score_column
from perennial.state.tables import ROW_ID
from perennial.workspace import Workspace
from tasks.learning.fitting import predict_score
from tasks.measures.described.images import stored_features
from tasks.measures.metrics import metric_table
from tasks.rows.frames import window_rows
from tasks.rows.reviewed import judging_labels
from tasks.steps.score import load_version, predictions_between

COLOURS = {"hold": "#9aa5b1", "recalibrate": "#56b4e9", "retrain": "#e69f00", "repair": "#d55e00"}
LIVE, FIRST = "#0072b2", "#999999"


@dataclass(frozen=True)
class Period:
    """One stretch between two checks.

    Attributes:
        start, end: The stretch; the check was made at `end`.
        rows, labelled: Predictions made in it, and those whose truth is known.
        live, first: The metric tables of what was answered and of what the first champion would have answered.
        verdict, reasons: The check's; empty where there was none.
        version: The champion that answered at its end.
        outcome: What the gate said of the retraining that the verdict asked for; empty without one.
    """

    start: datetime
    end: datetime
    rows: int
    labelled: int
    live: dict[str, float]
    first: dict[str, float]
    verdict: str
    reasons: tuple[str, ...]
    version: int
    outcome: str


@dataclass(frozen=True)
class Timeline:
    """The periods, oldest first, and the totals over the rows that have their truth."""

    model: str
    metric: str
    periods: tuple[Period, ...]
    live: dict[str, float]
    first: dict[str, float]

    def count(self, verdict: str) -> int:
        return sum(period.verdict == verdict for period in self.periods)

    def runs(self, verdict: str) -> tuple[int, int]:
        """How many runs a verdict led to, and how many of them were promoted."""
        outcomes = [period.outcome for period in self.periods if period.verdict == verdict and period.outcome]
        return len(outcomes), outcomes.count("promote")


def build_timeline(workspace: Workspace, definition: ModelDefinition, *, as_of: datetime) -> Timeline:
    """Read the story up to `as_of`; the first champion scores what it would have been asked."""
    store, model = workspace.store, definition.name
    entries = workspace.ledger(model).entries(as_of=as_of)
    predictions = predictions_between(store, model, start=None, end=as_of, known_at=as_of)
    predictions = predictions.merge(judging_labels(store, model, as_of=as_of)[["id", "truth"]], on="id", how="left")
    predictions["first"] = _first_scores(workspace, definition, predictions, as_of)
    ends = [datetime.fromisoformat(entry["as_of"]) for entry in entries]
    starts = [ends[0] - definition.monitoring.window, *ends[:-1]] if ends else []
    periods = [
        _period(definition, predictions, start, end, entry)
        for start, end, entry in zip(starts, ends, entries, strict=True)
    ]
    known = predictions[predictions["truth"].notna()]
    return Timeline(
        model, definition.loss, tuple(periods), _table(definition, known, "score"), _table(definition, known, "first")
    )


def _first_scores(
    workspace: Workspace, definition: ModelDefinition, predictions: pd.DataFrame, as_of: datetime
) -> pd.Series[Any]:
    history = workspace.registry.history(definition.name)
    if not history or not len(predictions):
        return pd.Series(np.nan, predictions.index)
    first = workspace.registry.version(definition.name, history[0].version)
    start = predictions["time"].min().to_pydatetime()
    rows = window_rows(workspace.store, definition, start=start, end=as_of, known_at=as_of)
    pipeline = load_version(workspace.registry, first, definition)
    scores = predict_score(pipeline, stored_features(rows, definition.features), definition.task)
    by_id = score_column(scores).set_axis(rows[ROW_ID])
    return predictions["id"].map(by_id[~by_id.index.duplicated()])


def _period(
    definition: ModelDefinition, predictions: pd.DataFrame, start: datetime, end: datetime, entry: dict[str, Any]
) -> Period:
    inside = predictions[(predictions["time"] >= start) & (predictions["time"] < end)]
    known = inside[inside["truth"].notna()]
    return Period(
        start=start,
        end=end,
        rows=len(inside),
        labelled=len(known),
        live=_table(definition, known, "score"),
        first=_table(definition, known, "first"),
        verdict=entry["verdict"],
        reasons=tuple(entry["reasons"]),
        version=int(entry["champion_version"]),
        outcome=(entry["outcome"] or {}).get("gate_verdict", ""),
    )


def _table(definition: ModelDefinition, known: pd.DataFrame, column: str) -> dict[str, float]:
    scored = known[known[column].notna()]
    return metric_table(definition.task, scored["truth"].to_numpy(), score_array(scored[column]))


def draw_timeline(timeline: Timeline) -> Any:
    """The picture: loss over time of both, champions' reigns shaded, a strip of verdicts below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[6, 1])
    metric, periods = timeline.metric, timeline.periods
    middles = [period.start + (period.end - period.start) / 2 for period in periods]
    live = [period.live.get(metric, np.nan) for period in periods]
    first = [period.first.get(metric, np.nan) for period in periods]
    above.plot(middles, first, color=FIRST, linestyle="--", label=f"never retrained: {timeline.first[metric]:.4f}")
    above.plot(
        middles,
        live,
        color=LIVE,
        linewidth=2,
        marker="o",
        markersize=3,
        label=f"live champion: {timeline.live[metric]:.4f}",
    )
    above.fill_between(middles, live, first, where=np.less(live, first), color=LIVE, alpha=0.12, interpolate=True)
    _mark_promotions(above, periods)
    above.set_ylabel(f"{metric.replace('_', ' ')} (lower is better)" if metric != "roc_auc" else metric)
    above.set_title(_headline(timeline), loc="left", fontsize=11)
    above.margins(y=0.18)
    above.legend(loc="upper right", ncols=2, framealpha=0.9, edgecolor="none")
    above.spines[["top", "right"]].set_visible(False)
    _verdict_strip(below, periods)
    return figure


def _mark_promotions(axes: Any, periods: Sequence[Period]) -> None:
    for period in periods:
        promoted = period.outcome == "promote"
        if period.outcome and period.verdict == "recalibrate":
            colour = COLOURS["recalibrate"]
            axes.plot(
                period.end, 0.03, "^", transform=axes.get_xaxis_transform(), color=colour, markersize=7,
                markerfacecolor=colour if promoted else "none",
            )  # fmt: skip
        elif period.outcome:
            axes.axvline(period.end, color=COLOURS["retrain"], linewidth=1.4, linestyle="-" if promoted else ":")
            axes.annotate(
                "retrained" if promoted else "challenger kept out", (period.end, 0.86), rotation=90, va="top",
                xycoords=("data", "axes fraction"), xytext=(2, 0), textcoords="offset points", fontsize=8,
                color=COLOURS["retrain"],
            )  # fmt: skip


def _verdict_strip(axes: Any, periods: Sequence[Period]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    for period in periods:
        width = (period.end - period.start) * 0.92
        axes.barh(0, width, left=period.start, color=COLOURS[period.verdict], height=0.9)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    seen = [verdict for verdict in COLOURS if any(period.verdict == verdict for period in periods)]
    handles: list[Any] = [Patch(color=COLOURS[verdict], label=verdict) for verdict in seen]
    for label, fill in (("new map promoted", COLOURS["recalibrate"]), ("kept out", "none")):
        if "recalibrate" in seen:
            shape: dict[str, Any] = {"marker": "^", "linestyle": "", "color": COLOURS["recalibrate"]}
            handles.append(Line2D([], [], label=label, markerfacecolor=fill, **shape))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=6, frameon=False)
    axes.set_ylabel("verdict", rotation=0, ha="right", va="center")


def _headline(timeline: Timeline) -> str:
    parts = [f"{timeline.model}: {len(timeline.periods)} checks"]
    parts += [f"{timeline.count(verdict)} {verdict}" for verdict in COLOURS if timeline.count(verdict)]
    for verdict, what in (("retrain", "challengers"), ("recalibrate", "new maps")):
        runs, promoted = timeline.runs(verdict)
        if runs:
            parts.append(f"{promoted} of {runs} {what} promoted")
    return ", ".join(parts)


def picture_bytes(figure: Any) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def render_page(timeline: Timeline, picture: bytes) -> str:
    """A page of its own, needing no network: the picture and a row for each check with its reasons."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE).render(
        timeline=timeline,
        headline=_headline(timeline),
        picture=base64.b64encode(picture).decode(),
        colours=COLOURS,
        second=timedelta(seconds=1),
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ timeline.model }}: timeline</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
img { width: 100%; background: white; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
.verdict { display: inline-block; padding: 0 .5rem; border-radius: 4px; color: #111; }
</style></head><body>
<h1>{{ timeline.model }}</h1>
<p>{{ headline }}.</p>
<img alt="{{ timeline.metric }} over time" src="data:image/png;base64,{{ picture }}">
<table><thead><tr><th>until</th><th>verdict</th><th>gate</th><th>champion</th><th>rows</th>
<th>{{ timeline.metric }}</th><th>never retrained</th><th>why</th></tr></thead><tbody>
{% for period in timeline.periods %}
<tr><td>{{ (period.end - second).strftime("%Y-%m-%d") }}</td>
<td><span class="verdict" style="background: {{ colours[period.verdict] }}">{{ period.verdict }}</span></td>
<td>{{ period.outcome }}</td><td class="number">{{ period.version }}</td><td class="number">{{ period.rows }}</td>
<td class="number">{{ "%.4f" | format(period.live[timeline.metric]) }}</td>
<td class="number">{{ "%.4f" | format(period.first[timeline.metric]) }}</td>
<td>{{ period.reasons[0] if period.reasons }}</td></tr>
{% endfor %}
</tbody></table></body></html>
"""
