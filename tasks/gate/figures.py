"""Pictures of an evaluation, each a matplotlib Figure whose title says what is good. No computing of verdicts, no I/O.

Only the object interface is used, never pyplot: figures are made in worker threads and servers, without a display.
Colours are those of Okabe and Ito (2008), which people with any colour vision tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.gate.report import Check, GateReport, number
from tasks.measures.metrics import CURVE_POINTS, calibration_bins, checked, curves, metric_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scores = Mapping[str, npt.ArrayLike]
"""Scores by the model's name, such as challenger and champion; each of shape (n,)."""

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b6b6b"
_MODELS = (BLUE, ORANGE, GREEN, "#CC79A7")
_MARKERS: dict[bool | None, tuple[str, str]] = {True: (BLUE, "o"), False: (RED, "X"), None: (ORANGE, "D")}
_DPI = 100
_WIDTH = 9.0
_MAXIMUM_BARS = 25
_MAXIMUM_POINTS = 5000


def roc_figure(truth: npt.ArrayLike, scores: Scores) -> Figure:
    """True by false positive rate for each model."""
    figure, axes = square("ROC: nearer to the upper left corner is better", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="by chance")
    for (name, score), colour in zip(scores.items(), _MODELS, strict=False):
        value = metric_value("roc_auc", "classification", truth, score)
        axes.plot(curve_grid(), curves(truth, score).roc, color=colour, label=f"{name}: area {number(value)}")
    return finished(figure, axes, "lower right")


def precision_recall_figure(truth: npt.ArrayLike, scores: Scores) -> Figure:
    """Precision by recall for each model, beside the share of positives."""
    figure, axes = square("Precision and recall: higher is better", "recall", "precision")
    values, _, _ = checked("classification", truth, truth)
    if len(values):
        share = float(values.mean())
        axes.axhline(share, color=GREY, linestyle=":", label=f"by chance: {number(share)}")
    for (name, score), colour in zip(scores.items(), _MODELS, strict=False):
        value = metric_value("average_precision", "classification", truth, score)
        label = f"{name}: average precision {number(value)}"
        axes.plot(curve_grid(), curves(truth, score).precision_recall, color=colour, label=label)
    return finished(figure, axes, "best")


def calibration_figure(truth: npt.ArrayLike, scores: Scores) -> Figure:
    """Seen by said probability in bins of equal numbers, with the isotonic curve; below, how often what is said."""
    figure, (axes, below) = blank(7.2, 2, height_ratios=[4, 1], sharex=True)
    axes.set_title("Calibration: nearer to the diagonal is better", loc="left")
    axes.set(ylabel="seen share of positives", xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect")
    for (name, score), colour in zip(scores.items(), _MODELS, strict=False):
        values, said, _ = checked("classification", truth, score)
        error = metric_value("calibration_error", "classification", truth, score)
        axes.plot(curve_grid(), curves(truth, score).calibration, color=colour, linewidth=1, alpha=0.6)
        if len(said):
            bins = calibration_bins(said)
            count = np.bincount(bins)
            kept = count > 0
            means = [np.bincount(bins, weights=part)[kept] / count[kept] for part in (said, values)]
            axes.plot(*means, color=colour, marker="o", linestyle="none", label=f"{name}: error {number(error)}")
            below.hist(said, bins=50, range=(0, 1), color=colour, histtype="step", linewidth=1.5)
    below.set(xlabel="said probability", ylabel="rows")
    return finished(figure, axes, "upper left")


def residuals_figure(truth: npt.ArrayLike, score: npt.ArrayLike, seed: int = 0) -> Figure:
    """Residual by prediction with the running median, and the residuals' distribution; at most 5000 points."""
    values, said, _ = checked("regression", truth, score)
    figure, (axes, beside) = blank(5.4, 1, 2, width_ratios=[4, 1], sharey=True)
    axes.set_title("Residuals: nearer to zero, and without a pattern, is better", loc="left")
    axes.set(xlabel="prediction", ylabel="truth - prediction")
    residuals = values - said
    chosen = np.arange(len(said))
    if len(said) > _MAXIMUM_POINTS:
        chosen = np.random.default_rng(seed).choice(len(said), _MAXIMUM_POINTS, replace=False)
    axes.plot(said[chosen], residuals[chosen], ".", color=BLUE, alpha=0.25, markersize=4, markeredgewidth=0)
    axes.axhline(0, color=GREY, linestyle=":")
    if len(said) >= 20:
        order = np.argsort(said, kind="stable")
        parts = np.array_split(order, min(20, len(said) // 10))
        middle = [(np.median(said[part]), np.median(residuals[part])) for part in parts]
        axes.plot(*np.transpose(middle), color=RED, marker="o", markersize=4, label="median of a twentieth of the rows")
    if len(said):
        bounds = np.quantile(residuals, [0.001, 0.999])
        reach = 1.1 * max(float(np.abs(bounds).max()), 1e-12)
        axes.set_ylim(-reach, reach)
        beside.hist(residuals, bins=60, range=(-reach, reach), orientation="horizontal", color=BLUE, alpha=0.7)
    beside.set_xlabel("rows")
    return finished(figure, axes, "upper right")


def gate_figure(report: GateReport) -> Figure:
    """The differences that the gate judged, with intervals and limits: to the right is better."""
    shown = [each for each in report.checks if each.unit == "relative" and each.value is not None]
    shown = [each for each in shown if math.isfinite(each.value or 0.0)][:_MAXIMUM_BARS]
    figure, (axes,) = blank(1.9 + 0.42 * max(len(shown), 1))
    axes.set_title(f"Gate: {report.verdict}. Right of zero is better, black bars are limits", loc="left")
    axes.axvline(0, color=GREY, linewidth=1)
    for row, check in enumerate(shown):
        _forest_row(axes, row, check)
    axes.set_yticks(range(len(shown)), [_forest_label(check) for check in shown])
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.set_xlabel(f"improvement of {report.metric}, % of the reference's loss ({report.rows:,} rows)")
    axes.grid(axis="y", visible=False)
    if not shown:
        axes.text(0.5, 0.5, "nothing could be compared", transform=axes.transAxes, ha="center", color=GREY)
    else:
        for passed, label in ((True, "passed"), (False, "failed"), (None, "unknown")):
            if any(check.passed is passed for check in shown):
                axes.plot([], [], _MARKERS[passed][1], color=_MARKERS[passed][0], label=label)
    return finished(figure, axes, "outside")


def importance_figure(importance: Mapping[str, float], metric: str) -> Figure:
    """Bars of permutation importance, the greatest on top, at most 25."""
    known = {name: value for name, value in importance.items() if math.isfinite(value)}
    shown = sorted(known.items(), key=lambda entry: -entry[1])[:_MAXIMUM_BARS]
    figure, (axes,) = blank(1.6 + 0.3 * max(len(shown), 2))
    left_out = len(importance) - len(shown)
    more = f" ({left_out} more not shown)" if left_out else ""
    axes.set_title(f"What the model relies on: a longer bar matters more{more}", loc="left")
    names, values = [name for name, _ in shown], [value for _, value in shown]
    axes.barh(range(len(shown)), values, color=[BLUE if value >= 0 else GREY for value in values], height=0.7)
    axes.set_yticks(range(len(shown)), [short(name) for name in names])
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.set_xlabel(f"rise of the loss ({metric}) when the column is shuffled")
    axes.axvline(0, color=GREY, linewidth=1)
    axes.grid(axis="y", visible=False)
    return finished(figure, axes)


def tuning_figure(history: Sequence[tuple[int, float, float]], metric: str, greater_is_better: bool = False) -> Figure:
    """Each trial's value and the best so far; history is (trial number, value, best so far), in order of time."""
    figure, (axes,) = blank(4.6)
    axes.set_title(f"Tuning: {'higher' if greater_is_better else 'lower'} is better", loc="left")
    axes.set(xlabel="trial", ylabel=metric)
    if history:
        trials, values, best = (np.array(part, dtype=np.float64) for part in zip(*history, strict=True))
        axes.plot(trials, values, "o", color=BLUE, alpha=0.6, label="trial")
        axes.plot(trials, best, color=RED, drawstyle="steps-post", linewidth=2, label="best so far")
        winner = (
            int(np.nanargmax(values) if greater_is_better else np.nanargmin(values))
            if np.isfinite(values).any()
            else None
        )
        if winner is not None:
            text = f"trial {int(trials[winner])}: {number(float(values[winner]))}"
            axes.plot(trials[winner], values[winner], "*", color=RED, markersize=15, label=text)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return finished(figure, axes, "best")


def _forest_row(axes: Any, row: int, check: Check) -> None:
    colour, marker = _MARKERS[check.passed]
    value = 100 * (check.value or 0.0)
    if check.interval is not None and check.interval.known:
        axes.plot(
            [100 * check.interval.low, 100 * check.interval.high], [row, row], color=colour, linewidth=2.5, alpha=0.7
        )
    axes.plot(value, row, marker, color=colour, markersize=8)
    if check.limit is not None:
        axes.plot([100 * check.limit] * 2, [row - 0.3, row + 0.3], color="black", linewidth=2)


def _forest_label(check: Check) -> str:
    named = {"better_than_champion": "beside the champion", "better_than_baseline": "beside the baseline"}
    label = named.get(check.name, check.name.removeprefix("slice:"))
    return short(label) if check.blocking else f"({short(label)})"


def short(text: str, length: int = 28) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def curve_grid() -> npt.NDArray[np.float64]:
    return np.linspace(0, 1, CURVE_POINTS)


def square(title: str, horizontal: str, vertical: str) -> tuple[Figure, Any]:
    figure, (axes,) = blank(6.2)
    axes.set_title(title, loc="left")
    axes.set(xlabel=horizontal, ylabel=vertical, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return figure, axes


def blank(height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Figure, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    shared = {name: grid.pop(name) for name in ("sharex", "sharey") if name in grid}
    found = figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid, **shared).ravel().tolist()
    for axes in found:
        axes.grid(color="#e3e3e3", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=11)
        axes.xaxis.label.set_size(12)
        axes.yaxis.label.set_size(12)
    return figure, found


def finished(figure: Figure, axes: Any, legend: str | None = None) -> Figure:
    title = axes.get_title(loc="left")
    axes.set_title("", loc="left")
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    handles, labels = axes.get_legend_handles_labels()
    if legend == "outside" and handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=11)
    elif legend and handles:
        axes.legend(handles, labels, loc=legend, frameon=True, framealpha=0.9, edgecolor="none", fontsize=11)
    return figure
