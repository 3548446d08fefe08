"""A backtest as people and machines read it: rows of a table, a picture, markdown, JSON. It measures nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perennial.definition import duration_text
from tasks.backtest.comparison import Backtest
from tasks.backtest.results import PolicyResult
from tasks.steps.timeline import COLOURS

COLUMNS = (
    "policy", "kept", "95 %", "loss", "trainings", "promoted", "new maps", "promoted ", "undone", "repairs", "CPU s",
)  # fmt: skip
_LINES = {"never": ("#999999", "--"), "always": ("#000000", ":")}
_PALETTE = ("#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")


def table_rows(backtest: Backtest) -> list[tuple[str, ...]]:
    """One row a policy, in the columns of `COLUMNS`; the recommended one has a star."""
    return [_row(item, backtest.advice.name) for item in backtest.results]


def summary(backtest: Backtest) -> str:
    """What was replayed, in a line."""
    first, last = backtest.moments[0], backtest.moments[-1]
    return (
        f"{backtest.model}: {backtest.windows} windows of {duration_text(backtest.every)} from {first:%Y-%m-%d} to "
        f"{last:%Y-%m-%d}, {backtest.rows} rows; quality is {backtest.loss.replace('_', ' ')}; "
        f"{backtest.fits} fits for all policies together"
    )


def advice_lines(backtest: Backtest) -> list[str]:
    """The recommendation or the refusal, its rule, and what else is to be known."""
    advice = backtest.advice
    low, high = advice.gain_interval
    told = f"Recommended: {advice.name}. {advice.reason}." if advice.name else f"No recommendation: {advice.reason}."
    lines = [
        told,
        f"Rule: {advice.rule}. Intervals are 95 %, by a paired bootstrap over windows, the gain taken as known.",
        f"The gain, never less always: {advice.gain:.4g} [{low:.4g}, {high:.4g}] per row.",
    ]
    lines += [f"Before labels: {advice.estimate}."] if advice.estimate else []
    lines += [f"Where the gate doubts: {advice.doubt}."] if advice.doubt else []
    return lines + [f"Note: {note}." for note in backtest.notes]


def render_markdown(backtest: Backtest, picture: str = "") -> str:
    """The whole report.

    Args:
        picture: A markdown image.
    """
    head = "| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS)
    body = "\n".join("| " + " | ".join(row) + " |" for row in table_rows(backtest))
    told = "\n\n".join(advice_lines(backtest))
    return f"# Backtest of {backtest.model}\n\n{summary(backtest)}\n\n{told}\n\n{picture}\n\n{head}\n{body}\n"


def to_dict(backtest: Backtest) -> dict[str, Any]:
    """Every figure, JSON-ready; policies by their names."""
    advice = backtest.advice
    return {
        "model": backtest.model,
        "loss": backtest.loss,
        "every": duration_text(backtest.every),
        "moments": [moment.isoformat() for moment in backtest.moments],
        "windows": backtest.windows,
        "rows": backtest.rows,
        "fits": backtest.fits,
        "policies": {item.name: _policy_dict(item) for item in backtest.results},
        "recommendation": {
            "policy": advice.name,
            "reason": advice.reason,
            "rule": advice.rule,
            "best": advice.best,
            "shortfall": _finite(advice.shortfall),
            "shortfall_interval": [_finite(end) for end in advice.shortfall_interval],
            "gain": _finite(advice.gain),
            "gain_interval": [_finite(end) for end in advice.gain_interval],
            "windows": advice.windows,
            "windows_needed": advice.windows_needed,
            "estimate": advice.estimate,
            "doubt": advice.doubt,
        },
        "notes": list(backtest.notes),
    }


def draw(backtest: Backtest) -> Any:
    """The picture: loss by window, what each policy has kept so far, and what it did when."""
    from matplotlib.figure import Figure

    results = backtest.results
    strips = [item for item in results if item.name not in _LINES]
    figure = Figure(figsize=(12, 7 + 0.24 * len(strips)), layout="constrained")
    heights = [3, 3, 0.4 + 0.24 * len(strips)]
    losses, shares, strip = figure.subplots(3, 1, sharex=True, height_ratios=heights)
    styles = _styles(backtest)
    _draw_losses(losses, backtest, styles)
    _draw_shares(shares, backtest, styles)
    _draw_actions(strip, strips)
    advice = backtest.advice
    title = f"recommended: {advice.name}" if advice.name else "no recommendation"
    figure.suptitle(f"{backtest.model}: {backtest.windows} windows, {title}", x=0.01, ha="left", fontsize=12)
    return figure


def _row(item: PolicyResult, recommended: str | None) -> tuple[str, ...]:
    low, high = item.kept_interval
    baseline = item.kind == "baseline"
    return (
        f"{item.name} *" if item.name == recommended else item.name,
        _number(item.kept, 2),
        f"{_number(low, 2)} … {_number(high, 2)}" if math.isfinite(low) and item.name != "never" else "",
        _number(item.loss, 5),
        str(item.retrains),
        "" if baseline else str(item.promoted),
        "" if baseline else str(item.recalibrations),
        "" if baseline else str(item.maps_promoted),
        "" if baseline else str(item.undone),
        "" if baseline else str(item.checks["repair"]),
        _number(item.cpu_seconds, 1),
    )


def _number(value: float, digits: int) -> str:
    return f"{value + 0.0:.{digits}f}" if math.isfinite(value) else "–"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _policy_dict(item: PolicyResult) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "kept": _finite(item.kept),
        "kept_interval": [_finite(end) for end in item.kept_interval],
        "loss": item.loss,
        "window_losses": [_finite(value) for value in item.window_losses],
        "retrains": item.retrains,
        "promoted": item.promoted,
        "recalibrations": item.recalibrations,
        "maps_promoted": item.maps_promoted,
        "undone": item.undone,
        "cpu_seconds": item.cpu_seconds,
        "checks": dict(item.checks),
        "actions": [
            {
                "as_of": each.as_of.isoformat(),
                "verdict": each.verdict,
                "gate": each.gate,
                "reason": each.reason,
                "told": each.told,
            }
            for each in item.actions
        ],
        "policy": item.policy.model_dump(mode="json") if item.policy else None,
    }


def _styles(backtest: Backtest) -> dict[str, dict[str, Any]]:
    """The lines worth a colour: the bounds, the own policy, the recommended and best ones, and those of files."""
    named = ["own", backtest.advice.name or "", backtest.advice.best]
    named += [item.name for item in backtest.results if item.kind == "file"]
    styles: dict[str, dict[str, Any]] = {
        name: {"color": colour, "linestyle": dash, "linewidth": 1.4, "zorder": 3}
        for name, (colour, dash) in _LINES.items()
    }
    for name in dict.fromkeys(filter(None, named)):
        colour = _PALETTE[(len(styles) - len(_LINES)) % len(_PALETTE)]
        styles[name] = {"color": colour, "linewidth": 1.9, "zorder": 4}
    return styles


def _draw_losses(axes: Any, backtest: Backtest, styles: dict[str, dict[str, Any]]) -> None:
    ends = backtest.moments[1:]
    for name, style in styles.items():
        item = backtest.result(name)
        axes.plot(ends, item.window_losses, label=f"{name}: {item.loss:.4f}", **style)
    axes.set_ylabel(f"{backtest.loss.replace('_', ' ')}, each window")
    axes.margins(y=0.2)
    axes.legend(loc="upper left", ncols=4, fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_shares(axes: Any, backtest: Backtest, styles: dict[str, dict[str, Any]]) -> None:
    """Never's loss less a policy's, summed up, in shares of what always has saved in the end."""
    sums = {item.name: np.cumsum(np.nan_to_num(item.window_losses) * backtest.window_rows) for item in backtest.results}
    total = float(sums["never"][-1] - sums["always"][-1])
    if not total:
        axes.set_axis_off()
        return
    saved = {name: (sums["never"] - lost) / total for name, lost in sums.items()}
    for name, share in saved.items():
        style = styles.get(name, {"color": "#c4c4c4", "linewidth": 0.9, "zorder": 2})
        axes.plot(backtest.moments[1:], share, **style)
    _label_ends(axes, {name: (float(saved[name][-1]), style["color"]) for name, style in styles.items()})
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=1)
    axes.set_ylabel("saved so far, as a share of\nwhat always saves in all")
    axes.spines[["top", "right"]].set_visible(False)


def _label_ends(axes: Any, ends: Mapping[str, tuple[float, str]]) -> None:
    """The coloured lines' names at their right ends, pushed apart."""
    low, high = axes.get_ylim()
    place = -math.inf
    for name, (end, colour) in sorted(ends.items(), key=lambda item: item[1][0]):
        place = max(end, place + 0.06 * (high - low))
        where = {"xycoords": axes.get_yaxis_transform(), "va": "center", "fontsize": 8, "color": colour}
        axes.annotate(f"{name} {end + 0.0:.2f}", (1.005, place), **where)


def _draw_actions(axes: Any, strips: Sequence[PolicyResult]) -> None:
    """A line a policy: trainings, new maps (filled where let in), settled doubts, roll-backs and repairs."""
    from matplotlib.lines import Line2D

    marks = {"retrain": "s", "recalibrate": "^", "repair": "X", "roll back": "v", "settle": "D"}
    colours = {**COLOURS, "roll back": "#000000", "settle": COLOURS["retrain"]}
    for place, item in enumerate(strips):
        axes.axhline(place, color="#e6e6e6", linewidth=0.8, zorder=1)
        for action in item.actions:
            colour = colours[action.verdict]
            filled = action.gate in ("promote", "")
            axes.plot(
                action.as_of, place, marks[action.verdict], color=colour, markersize=6,
                markerfacecolor=colour if filled else "none", zorder=3,
            )  # fmt: skip
        kept = f"kept {_number(item.kept, 2)}, {item.retrains} trained"
        axes.annotate(kept, (1.005, place), xycoords=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_yticks(range(len(strips)), [item.name for item in strips], fontsize=8)
    axes.set_ylim(len(strips) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    shown = [
        Line2D([], [], marker=marks[verdict], linestyle="", color=colours[verdict], label=label, markerfacecolor=fill)
        for verdict, label, fill in (
            ("retrain", "trained and promoted", COLOURS["retrain"]),
            ("retrain", "trained, kept out or waits", "none"),
            ("settle", "waited, let in", COLOURS["retrain"]),
            ("settle", "waited, given up", "none"),
            ("recalibrate", "new map promoted", COLOURS["recalibrate"]),
            ("recalibrate", "new map, kept out", "none"),
            ("roll back", "rolled back", colours["roll back"]),
            ("repair", "repair asked for", COLOURS["repair"]),
        )
    ]
    axes.legend(handles=shown, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, frameon=False, fontsize=8)
