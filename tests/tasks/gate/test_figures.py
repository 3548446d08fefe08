"""Every figure can be drawn, at 900 pixels, from full data and from next to none."""

from __future__ import annotations

import io
import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from tasks.gate.figures import (
    calibration_figure,
    gate_figure,
    importance_figure,
    precision_recall_figure,
    residuals_figure,
    roc_figure,
    tuning_figure,
)
from tasks.gate.report import Check, GateReport
from tasks.measures.bootstrap import Interval


def png_width(figure: Figure) -> int:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    data = buffer.getvalue()
    assert data.startswith(b"\x89PNG")
    return int.from_bytes(data[16:20], "big")


def texts(figure: Figure) -> str:
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        legend = axes.get_legend()
        found += [text.get_text() for text in (legend.get_texts() if legend else [])]
        found += [text.get_text() for text in (*axes.texts, *axes.get_yticklabels())]
        found += [axes.get_xlabel(), axes.get_ylabel()]
    found += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return "\n".join(found)


def scores(rows: int = 500) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    score = generator.random(rows)
    return (generator.random(rows) < score).astype(float), score


@pytest.mark.parametrize("draw", [roc_figure, precision_recall_figure, calibration_figure])
def test_curves_name_both_models_and_their_values(draw) -> None:
    truth, score = scores()
    figure = draw(truth, {"challenger": score, "champion": np.full(500, 0.4)})
    assert png_width(figure) == 900
    assert "better" in figure.get_suptitle()
    assert "challenger: " in texts(figure)
    assert "champion: " in texts(figure)


@pytest.mark.parametrize("draw", [roc_figure, precision_recall_figure, calibration_figure])
@pytest.mark.parametrize("rows", [0, 1, 30])
def test_curves_of_one_class_or_no_rows(draw, rows: int) -> None:
    assert png_width(draw(np.zeros(rows), {"challenger": np.linspace(0, 1, rows)})) == 900


@pytest.mark.parametrize("rows", [0, 1, 25, 20_000])
def test_residuals(rows: int) -> None:
    generator = np.random.default_rng(0)
    said = generator.normal(size=rows)
    figure = residuals_figure(said + generator.normal(size=rows), said)
    assert png_width(figure) == 900
    assert len(figure.axes[0].lines[0].get_xdata()) == min(rows, 5000)
    constant = residuals_figure(np.ones(rows), np.ones(rows))
    assert png_width(constant) == 900


def report(*checks: Check) -> GateReport:
    return GateReport("keep", ("Why.",), checks, "classification", "log_loss", 5000, 50)


def test_gate_shows_differences_with_intervals_and_limits() -> None:
    interval = Interval(0.03, 0.01, 0.05, 0.95, 2000, 50, "block bootstrap")
    nothing = Interval(math.nan, math.nan, math.nan, 0.95, 0, 1, "one block of time")
    figure = gate_figure(
        report(
            Check("better_than_champion", True, 0.03, -0.02, "min", "relative", interval),
            Check("slice:port=a very long name of an airport", False, -0.3, -0.05, "min", "relative", interval),
            Check("better_than_baseline", None, 0.1, 0.0, "min", "relative", nothing),
            Check("slice:port=undefined", None, math.nan, -0.05, "min", "relative", nothing),
            Check("latency", True, 3.0, 5.0, "max", "ms"),
        )
    )
    assert png_width(figure) == 900
    shown = texts(figure)
    assert "Gate: keep" in shown
    assert "beside the champion" in shown
    assert "port=a very long name of an…" in shown
    assert "undefined" not in shown
    assert "latency" not in shown
    assert {"passed", "failed", "unknown"} <= set(shown.split("\n"))
    positions = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_color() == "black"]
    assert positions == pytest.approx([-2, -5, 0])


def test_gate_with_nothing_to_compare() -> None:
    figure = gate_figure(report(Check("latency", True, 3.0, 5.0, "max", "ms")))
    assert png_width(figure) == 900
    assert "nothing could be compared" in texts(figure)


def test_importance_shows_the_greatest() -> None:
    figure = importance_figure({f"column {at}": float(at) for at in range(40)} | {"broken": math.nan}, "log_loss")
    assert png_width(figure) == 900
    assert "column 39" in texts(figure)
    assert "column 14\n" not in texts(figure)
    assert "16 more not shown" in figure.get_suptitle()
    assert png_width(importance_figure({}, "mse")) == 900


@pytest.mark.parametrize("greater", [True, False])
def test_tuning_marks_the_winner(greater: bool) -> None:
    history = [(0, 0.5, 0.5), (1, math.nan, 0.5), (3, 0.4, 0.4), (4, 0.6, 0.4)]
    figure = tuning_figure(history, "roc_auc", greater)
    assert png_width(figure) == 900
    assert ("trial 4: 0.6" if greater else "trial 3: 0.4") in texts(figure)
    assert ("higher" if greater else "lower") in figure.get_suptitle()
    assert png_width(tuning_figure([], "mse")) == 900
    assert png_width(tuning_figure([(0, math.nan, math.nan)], "mse")) == 900


@pytest.mark.process
def test_pyplot_is_never_imported() -> None:
    code = (
        "import sys\nfrom tasks.gate.figures import importance_figure\n"
        "importance_figure({'a': 1.0}, 'mse').canvas.draw()\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
