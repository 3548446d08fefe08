"""Pictures of an evaluation with more than two classes: each class against the rest, and what is taken for what.

The challenger is drawn class by class; beside the champion its classes are compared in one figure. No verdicts, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tasks.gate.figures import GREY, Scores, blank, curve_grid, finished, short, square
from tasks.gate.report import number
from tasks.measures.metrics import checked, class_table, confusion, curves, metric_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CURVES = 10
_MOST_CELLS = 30
_MOST_NUMBERED = 15


def class_figures(truth: npt.ArrayLike, scores: Scores, classes: Sequence[str]) -> dict[str, Callable[[], Figure]]:
    """What makes the figures of a run, by the name that they are logged under.

    Args:
        truth: Shape (n,), codes.
        scores: By the model's name, each of shape (n, k); the first is the challenger's.
        classes: The k names.
    """
    values, score, _ = checked("classification", truth, next(iter(scores.values())))
    shown = _most_frequent(values, classes)
    return {
        **{kind: partial(_curves_figure, values, score, classes, shown, kind) for kind in _CURVES},
        "confusion": partial(confusion_figure, values, score, classes),
        "classes": partial(by_class_figure, values, scores, classes),
    }


_CURVES = {
    "roc": ("ROC by class: nearer to the upper left corner is better", "false positive rate", "true positive rate"),
    "precision_recall": ("Precision and recall by class: higher is better", "recall", "precision"),
    "calibration": ("Calibration by class: nearer to the diagonal is better", "said probability", "seen share"),
}
_VALUES = {"roc": ("roc_auc", "area"), "precision_recall": ("average_precision", "average precision")}


def _curves_figure(
    truth: npt.NDArray[np.float64],
    score: npt.NDArray[np.float64],
    classes: Sequence[str],
    shown: Sequence[int],
    kind: str,
) -> Figure:
    """One curve a class, each against the rest, of the challenger."""
    figure, axes = square(*_CURVES[kind])
    if kind != "precision_recall":
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect" if kind == "calibration" else "by chance")
    for colour, code in zip(_colours(len(shown)), shown, strict=True):
        true = (truth == code).astype(np.float64)
        metric, called = _VALUES.get(kind, ("calibration_error", "error"))
        value = metric_value(metric, "classification", true, score[:, code])
        line = getattr(curves(true, score[:, code]), kind)
        axes.plot(curve_grid(), line, color=colour, label=f"{short(classes[code])}: {called} {number(value)}")
    if left_out := len(classes) - len(shown):
        axes.plot([], [], " ", label=f"{left_out} rarer classes are not drawn")
    return finished(figure, axes, {"roc": "lower right", "calibration": "upper left"}.get(kind, "best"))


def confusion_figure(truth: npt.ArrayLike, score: npt.ArrayLike, classes: Sequence[str]) -> Figure:
    """The share of each class's rows that was answered as each class, with the rows' numbers; the most frequent 30."""
    counts = confusion(truth, score, len(classes))
    shown = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[:_MOST_CELLS])
    counts = counts[np.ix_(shown, shown)]
    figure, (axes,) = blank(2.4 + 0.34 * max(len(shown), 6))
    more = f" ({len(classes) - len(shown)} rarer classes not shown)" if len(shown) < len(classes) else ""
    axes.set_title(f"Confusion: darker on the diagonal is better{more}", loc="left")
    of_row = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(of_row, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = [short(classes[code], 18) for code in shown]
    axes.set_xticks(
        range(len(shown)), names, rotation=45 if len(shown) > 5 else 0, ha="right" if len(shown) > 5 else "center"
    )
    axes.set_yticks(range(len(shown)), names)
    axes.set(xlabel="answered", ylabel="truth")
    axes.grid(visible=False)
    if len(shown) <= _MOST_NUMBERED:
        for row, column in np.ndindex(counts.shape):
            colour = "white" if of_row[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=10)
    return finished(figure, axes)


def by_class_figure(truth: npt.ArrayLike, scores: Scores, classes: Sequence[str]) -> Figure:
    """Each class's F1 for each model, the most frequent classes first, at most 30."""
    tables = {name: class_table(truth, score, classes) for name, score in scores.items()}
    rows = next(iter(tables.values()))
    shown = sorted(classes, key=lambda name: -rows[name]["rows"])[:_MOST_CELLS]
    figure, (axes,) = blank(1.9 + 0.34 * max(len(shown), 2))
    axes.set_title("F1 by class: to the right is better", loc="left")
    for (name, table), colour, marker in zip(tables.items(), _colours(len(tables)), "oDs", strict=False):
        axes.plot([table[each]["f1"] for each in shown], range(len(shown)), marker, color=colour, label=name, alpha=0.8)
    axes.set_yticks(range(len(shown)), [f"{short(name)} ({number(rows[name]['rows'], 'rows')})" for name in shown])
    axes.set(xlim=(-0.02, 1.02), ylim=(len(shown) - 0.4, -0.6), xlabel="F1")
    return finished(figure, axes, "outside")


def _most_frequent(truth: npt.NDArray[np.float64], classes: Sequence[str]) -> list[int]:
    counts = np.bincount(truth.astype(np.int64), minlength=len(classes))
    return sorted(np.argsort(-counts, kind="stable")[:_MOST_CURVES].tolist())


def _colours(count: int) -> list[str]:
    """Okabe and Ito's, then again: more than eight lines are told apart by their legend's order."""
    known = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#6b6b6b", "#000000"]
    return [known[number % len(known)] for number in range(count)]
