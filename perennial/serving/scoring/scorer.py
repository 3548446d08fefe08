"""From clean rows to scores: the fast path where it is proven equal, the fitted pipeline everywhere else.

Fast are HistGradientBoosting (its leaves by tables; of many classes by treelite), random forests (treelite) and linear
models (a dot product) behind the built-in preprocessing, and recalibrated ones of those. A fast path counts only after
it gave, on golden rows and on rows made from them with missing and unseen values, the pipeline's scores within 1e-9.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from perennial.model.calibrated import Recalibrated, apply_map
from perennial.model.scores import class_scores, is_many, known_scores
from perennial.serving.protocol.columns import Row, Rows, columns_of
from perennial.serving.protocol.problems import Problem
from perennial.serving.protocol.schema import Kind, Schema
from perennial.serving.scoring import ANY_ROWS
from perennial.serving.scoring.encoder import Encoder, Unsupported
from perennial.serving.scoring.leaf_tables import LeafTables, Untabled

Floats = npt.NDArray[np.float64]
Task = Literal["classification", "regression"]
PROOF_TOLERANCE = 1e-9
_PROBE_SIZES = (16, 64, 256, 1024)
# So many rows are computed at once between two requests, and more in a thread: about half a millisecond's work.
_INLINE_ROWS = {"tables": 256, "linear": 256}
_FEW_INLINE_ROWS = 32
_CLEARLY = 1.5
_UNSEEN = "\0never seen"


@dataclass(frozen=True)
class Proof:
    """Whether the fast path answers as the pipeline does.

    Attributes:
        kind: What computes it: tables, treelite, linear, or none.
        rows: How many rows it was compared on.
        largest_difference: Between the two scores of a row; NaN without a fast path.
        fast_rows: Up to so many rows in one request the fast path is the quicker one; `ANY_ROWS` where it always is.
        reason: Why there is none; empty where there is.
    """

    kind: str
    rows: int
    largest_difference: float
    fast_rows: int
    reason: str


def pipeline_scores(pipeline: Any, frame: Any, task: Task) -> Floats:
    """P(positive) or the predicted value: float64 of shape (n,); each of many classes' probability: (n, k)."""
    raw = pipeline.predict_proba(frame) if task == "classification" else pipeline.predict(frame)
    scores = np.asarray(raw, dtype=np.float64)
    if task == "classification":
        scores = class_scores(scores, getattr(pipeline, "classes_", None))
        if is_many(scores):
            return scores
    return np.ascontiguousarray(scores.reshape(len(scores), -1)[:, 0] if scores.ndim > 1 else scores)


class Scorer:
    """Scores clean rows with one fitted pipeline.

    Args:
        pipeline: Fitted on feature frames; a `Recalibrated` one or not.
        schema: Of its rows.
        task: classification gives P(positive), or of many classes each one's probability, regression the value.
        probes: Clean rows to prove the fast path on.
        fast_rows: By kind, up to how many rows the fast path serves, where that was measured before.
    """

    def __init__(
        self, pipeline: Any, schema: Schema, task: Task, probes: list[Row], fast_rows: Mapping[str, int] | None = None
    ) -> None:
        self.pipeline = pipeline
        self.schema = schema
        self.task: Task = task
        self.recalibrated = isinstance(pipeline, Recalibrated)
        self._inner = pipeline.pipeline if self.recalibrated else pipeline
        self._fast: Callable[[Rows], Floats] | None = None
        self.proof = Proof("none", 0, float("nan"), 0, "there are no golden rows to prove it on")
        if probes:
            self._prove(probes, fast_rows or {})

    @property
    def fast_rows(self) -> int:
        return self.proof.fast_rows

    @property
    def inline_rows(self) -> int:
        """So many rows are scored at once, without another thread."""
        return min(self.proof.fast_rows, _INLINE_ROWS.get(self.proof.kind, _FEW_INLINE_ROWS))

    def score(self, rows: Rows) -> Floats:
        """float64 of shape (n,), or (n, k), by the quicker path for so many rows.

        Raises:
            Problem: 422 where the model refuses a row or has no finite score for it.
        """
        return self.mapped(self.raw(rows))

    def raw(self, rows: Rows) -> Floats:
        """What the pipeline says before a recalibration's map; the score itself where there is none.

        Raises:
            Problem: 422 where the model refuses a row or has no finite score for it.
        """
        if self._fast is not None and len(rows) <= self.proof.fast_rows:
            try:
                return _finite(self._fast(rows))
            except Exception as error:
                raise _refusal(error) from error
        return self.raw_slow(rows)

    def raw_slow(self, rows: Rows) -> Floats:
        """`raw` by the fitted pipeline, whatever the size."""
        try:
            return _finite(pipeline_scores(self._inner, self.schema.frame(rows), self.task))
        except Exception as error:
            raise _refusal(error) from error

    def mapped(self, raw: Floats) -> Floats:
        """Raw scores through the recalibration's map, if there is one."""
        if not self.recalibrated:
            return raw
        return apply_map(raw, self.pipeline.method, self.pipeline.parameters, self.task)

    def fast(self, rows: Rows) -> Floats:
        """`score` by the fast path; only where there is one."""
        assert self._fast is not None
        return self.mapped(self._fast(rows))

    def _prove(self, probes: list[Row], measured: Mapping[str, int]) -> None:
        try:
            fast, kind = fast_path(self._inner, self.schema, self.task)
        except Unsupported as error:
            self.proof = Proof("none", 0, float("nan"), 0, f"{error} has no fast path")
            return
        rows = [list(row) for row in probes] + _hardened(probes, self.schema)
        try:
            wanted = pipeline_scores(self.pipeline, self.schema.frame(rows), self.task)
            found = self.mapped(fast(rows))
            alike = self.mapped(fast(columns_of(rows)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the pipeline answers instead
            self.proof = Proof("none", 0, float("nan"), 0, f"{kind} failed: {error}")
            return
        difference = float(np.max(np.abs(wanted - np.array([found, alike]))))
        scale = max(1.0, float(np.max(np.abs(wanted)))) if self.task == "regression" else 1.0
        if not difference <= PROOF_TOLERANCE * scale:
            self.proof = Proof("none", len(rows), difference, 0, f"{kind} differs from scikit-learn by {difference:g}")
            return
        self._fast = fast
        fast_rows = measured[kind] if kind in measured else self._crossover(fast, probes)
        self.proof = Proof(kind, len(rows), difference, fast_rows, "")

    def _crossover(self, fast: Callable[[Rows], Floats], probes: list[Row]) -> int:
        """The greatest tried size at which the fast path is not slower, interpolated to where it would be."""
        before = 1
        ahead = 0.0
        for size in _PROBE_SIZES:
            rows = self.schema.by_column([probes[index % len(probes)] for index in range(size)])
            quick = _seconds(lambda rows=rows: fast(rows))  # type: ignore[misc]
            slow = _seconds(lambda rows=rows: pipeline_scores(self.pipeline, self.schema.frame(rows), self.task))  # type: ignore[misc]
            if quick >= slow:
                if before == 1:
                    return 1
                share = ahead / (ahead + quick - slow)
                return int(before + share * (size - before))
            before, ahead = size, slow - quick
        return ANY_ROWS if quick * _CLEARLY < slow else before


def fast_path(pipeline: Any, schema: Schema, task: Task) -> tuple[Callable[[Rows], Floats], str]:
    """A function from clean rows to scores, and its kind.

    Raises:
        Unsupported: A step or the estimator is of a kind that is not known here.
    """
    steps = getattr(pipeline, "named_steps", {})
    if set(steps) != {"preprocess", "estimator"}:
        raise Unsupported(f"a {type(pipeline).__name__} other than the built-in ones")
    encode = Encoder(steps["preprocess"], schema).encode
    estimator = steps["estimator"]
    name = type(estimator).__name__
    if name.startswith("HistGradientBoosting"):
        model = _imported(estimator)
        try:
            tables = LeafTables(model)
        except Untabled:
            return _trees(model, estimator, encode, task, float32=False), "treelite"
        return lambda rows: tables.scores(encode(rows)), "tables"
    if name.startswith("RandomForest"):
        return _trees(_imported(estimator), estimator, encode, task, float32=True), "treelite"
    if name in ("LogisticRegression", "Ridge"):
        return _linear(estimator, encode, task), "linear"
    raise Unsupported(f"the estimator {name}")


def _imported(estimator: Any) -> Any:
    import treelite

    with np.errstate(invalid="ignore"):  # a category that is missing casts NaN to an integer
        return treelite.sklearn.import_model(estimator)


def _trees(
    model: Any, estimator: Any, encode: Callable[[Rows], Floats], task: Task, *, float32: bool
) -> Callable[[Rows], Floats]:
    import treelite

    predict = treelite.gtil.predict
    many = task == "classification" and len(estimator.classes_) > 2
    margins = many and not float32  # treelite's own softmax is one of single precision
    column = list(estimator.classes_).index(1) if task == "classification" else 0

    def scores(rows: Rows) -> Floats:
        values = encode(rows)
        if float32:  # scikit-learn's forests compare in single precision
            values = values.astype(np.float32).astype(np.float64)
        made = predict(model, np.ascontiguousarray(values), nthread=1, pred_margin=margins).reshape(len(values), -1)
        if many:
            return _shares(made) if margins else np.ascontiguousarray(made, dtype=np.float64)
        # Boosting gives P(positive) alone, a forest both classes.
        return np.ascontiguousarray(made[:, column if made.shape[1] > 1 else 0], dtype=np.float64)

    return scores


def _linear(estimator: Any, encode: Callable[[Rows], Floats], task: Task) -> Callable[[Rows], Floats]:
    if task == "classification" and len(estimator.classes_) > 2:
        return _softmax(estimator, encode)
    weights = np.asarray(estimator.coef_, dtype=np.float64).reshape(-1)
    intercept = float(np.ravel(estimator.intercept_)[0])
    sign = 1.0
    if task == "classification" and list(estimator.classes_).index(1) == 0:
        sign = -1.0

    def scores(rows: Rows) -> Floats:
        from scipy.special import expit

        raw = encode(rows) @ weights + intercept
        return np.asarray(expit(sign * raw) if task == "classification" else raw, dtype=np.float64)

    return scores


def _softmax(estimator: Any, encode: Callable[[Rows], Floats]) -> Callable[[Rows], Floats]:
    """A linear model of many classes."""
    weights = np.ascontiguousarray(np.asarray(estimator.coef_, dtype=np.float64).T)
    intercept = np.asarray(estimator.intercept_, dtype=np.float64)

    def scores(rows: Rows) -> Floats:
        return _shares(encode(rows) @ weights + intercept)

    return scores


def _shares(raw: Floats) -> Floats:
    """Softmax by row."""
    made = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(made / made.sum(axis=1, keepdims=True), dtype=np.float64)


def _hardened(probes: list[Row], schema: Schema) -> list[Row]:
    """Probes with each column missing in turn, and each categorical column unseen."""
    made: list[Row] = []
    for column, kind in enumerate(schema.kinds):
        for index in range(min(3, len(probes))):
            row = list(probes[(index + 3 * column) % len(probes)])
            row[column] = _gap(kind)
            made.append(row)
            if kind in ("categorical", "text"):
                made.append([_UNSEEN if position == column else cell for position, cell in enumerate(row)])
    made.append([_gap(kind) for kind in schema.kinds])
    return made


def _gap(kind: Kind) -> float | None:
    """A missing cell in the clean form."""
    return float("nan") if kind in ("numeric", "boolean") else None


def _finite(scores: Floats) -> Floats:
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~known_scores(scores))[0])
        raise Problem(422, f"row {row} (counted from 0): the model has no finite score for it", row=row)
    return scores


def _refusal(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    return Problem(422, f"the model refused the rows: {' '.join(str(error).split())[:300]}")


def _seconds(function: Callable[[], object], repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return best
