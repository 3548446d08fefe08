"""One fit of a backtest as an order that any machine with the past can carry out. Who asks, and when, is not here."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perennial.definition import ModelDefinition
from perennial.state.tables import ROW_TIME, ROW_TRUTH
from tasks.backtest.past import Floats, Past, Positions
from tasks.check.complaints.complaint import Complaint
from tasks.check.complaints.masks import without_refused
from tasks.learning.fitting import FittedModel, fit, predict_score
from tasks.steps.retrain import one_row_milliseconds


@dataclass(frozen=True)
class Order:
    """What to fit and what to score.

    Attributes:
        definition: Of the model, for a target that is 0 and 1 already.
        rows, truth: Positions in the past of the rows to learn from, and what was known of them; shape (n,) each.
        parameters: Hyperparameters.
        first, last: The range of positions to score; `last` None is the end.
        timed: A position for timing one row.
        refused: The complaints whose values are not learned.
    """

    definition: ModelDefinition
    rows: Positions
    truth: Floats
    parameters: Mapping[str, Any]
    first: int
    last: int | None
    timed: int
    refused: tuple[Complaint, ...] = ()


@dataclass(frozen=True)
class Made:
    """What came of it; `cpu_seconds` are of the thread that did it."""

    fitted: FittedModel
    scores: Floats
    scoring_seconds: float
    latency_ms: float | None
    size_mb: float
    cpu_seconds: float


def carry_out(past: Past, order: Order) -> Made:
    """Fit, score, time and weigh."""
    began = time.thread_time()
    data = order.definition.data
    frame = past.frame.iloc[order.rows].reset_index(drop=True).assign(**{ROW_TRUTH: order.truth})
    frame = frame.rename(columns={ROW_TIME: data.time, ROW_TRUTH: data.target})
    frame = without_refused(frame, data.time, order.refused)
    fitted = fit(order.definition, frame, order.parameters, order.definition.training.seed, threads=1)
    features = past.features.iloc[order.first : order.last]
    started = time.perf_counter()
    scores = predict_score(fitted.pipeline, features, order.definition.task)
    scoring_seconds = time.perf_counter() - started
    return Made(
        fitted=fitted,
        scores=scores,
        scoring_seconds=scoring_seconds,
        latency_ms=_milliseconds(past, order, fitted.pipeline),
        size_mb=len(pickle.dumps(fitted.pipeline)) / 1e6,
        cpu_seconds=time.thread_time() - began,
    )


def _milliseconds(past: Past, order: Order, pipeline: Any) -> float | None:
    """The time of one row; None where the gate limits it not, for then nothing in a replay reads it."""
    if order.definition.gate.latency_ms is None:
        return None
    return one_row_milliseconds(pipeline, past.features.iloc[[order.timed]].reset_index(drop=True))
