"""Prometheus metrics that stay right with several processes, and the figures of GET /models/NAME made from them.

prometheus_client's multiprocess mode keeps each process's numbers in files that outlive it: the sum over workers is
right even after one was killed. The folder is named by PROMETHEUS_MULTIPROC_DIR before this module is imported.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client import values as prometheus_values
from prometheus_client.metrics_core import Metric

_FEW = 16
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0)


if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    # By default each count asks the system for the process's id, in case that it was forked: none of ours is.
    _PID = os.getpid()
    prometheus_values.ValueClass = prometheus_values.MultiProcessValue(lambda: _PID)  # type: ignore[no-untyped-call]


class ShippingMetrics:
    """What the one who ships counts: the shipping process, or a process that serves alone."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        own = registry or CollectorRegistry()
        self.shipped = Counter("perennial_shipped_rows", "Rows committed to the log.", ("model",), registry=own)
        self.expired_labels = Counter(
            "perennial_expired_labels", "Labels whose id did not become known in time.", ("model",), registry=own
        )
        self.repeated = Counter(
            "perennial_repeated_rows",
            "Answered rows that are not logged, since their id is already: with the inputs of then, or others.",
            ("model", "inputs"),
            registry=own,
        )

    def repeat(self, model: str, same: int, others: int) -> None:
        """Count what was left out of the log as a repeat, by whether it had the inputs of the row that is logged."""
        for inputs, rows in (("same", same), ("other", others)):
            if rows:
                self.repeated.labels(model, inputs).inc(rows)


class Metrics:
    """The metrics of one process that answers.

    Args:
        folder: Where all processes of one server keep their numbers; None for this process alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        own = CollectorRegistry()
        self._registry = own
        if folder is not None:
            assert os.environ.get("PROMETHEUS_MULTIPROC_DIR") == str(folder)
            self._registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(self._registry, path=str(folder))  # type: ignore[no-untyped-call]
        self.requests = Counter(
            "perennial_requests", "Requests answered.", ("model", "protocol", "status"), registry=own
        )
        self.rows = Counter("perennial_rows", "Rows scored.", ("model", "version", "role"), registry=own)
        self.latency = Histogram(
            "perennial_request_seconds", "From the whole request's arrival to its answer.", ("model", "protocol"),
            buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self.batch = Histogram(
            "perennial_batch_rows", "Rows in one request.", ("model",), buckets=(1, 10, 100, 1000, 10_000), registry=own
        )
        self.scores = Counter(
            "perennial_scores",
            "Scores by bin: its lower end; a regression's are deciles of the golden scores.",
            ("model", "version", "bin"),
            registry=own,
        )
        self.unseen = Counter(
            "perennial_unseen_categories", "Cells whose category training never saw.", ("model", "column"), registry=own
        )
        self.missing = Counter("perennial_missing_values", "Cells without a value.", ("model", "column"), registry=own)
        self.swaps = Counter(
            "perennial_swaps", "Versions swapped in, refused, or started from the local copy.", ("model", "result"),
            registry=own,
        )  # fmt: skip
        self.version = Gauge(
            "perennial_model_version",
            "The version that answers.",
            ("model",),
            multiprocess_mode="livemin",
            registry=own,
        )
        self.in_work = Gauge(
            "perennial_requests_in_work", "Requests in work.", multiprocess_mode="livesum", registry=own
        )
        self.queue = Gauge(
            "perennial_queued_rows", "Rows that wait for the pipeline.", multiprocess_mode="livesum", registry=own
        )
        self.spool_bytes = Gauge(
            "perennial_spool_bytes", "Unshipped bytes of all processes.", multiprocess_mode="livemax", registry=own
        )
        self.shed = Counter("perennial_shed_rows", "Answered rows that the log had no room for.", registry=own)
        self.shadow_dropped = Counter(
            "perennial_shadow_dropped_rows", "Rows that the shadow was too slow for.", ("model",), registry=own
        )
        self.log_failing = Gauge(
            "perennial_log_failing",
            "1 where spool or tables can't be written.",
            multiprocess_mode="livemax",
            registry=own,
        )
        self.registry_up = Gauge(
            "perennial_registry_up", "1 where the model registry answers.", multiprocess_mode="livemin", registry=own
        )
        self.shipping = ShippingMetrics(own)
        self._children: dict[tuple[Any, ...], Any] = {}

    def count(self, model: str, protocol: str, status: int) -> None:
        """One answered request."""
        self._child(self.requests, model, protocol, str(status)).inc()

    def observe(self, model: str, protocol: str, seconds: float, rows: int) -> None:
        """One scored request."""
        self._child(self.latency, model, protocol).observe(seconds)
        self._child(self.batch, model).observe(rows)

    def scored(self, model: str, version: int, role: str, scores: Sequence[float], bins: Sequence[float]) -> None:
        """Rows scored by a version, by the score's bin: of ascending lower ends, the first for all below the second."""
        if len(scores) > _FEW:
            found = np.searchsorted(bins[1:], scores, side="right")
            counts = {number: count for number, count in enumerate(np.bincount(found).tolist()) if count}
        else:
            counts = {}
            for score in scores:
                number = bisect_right(bins, score, 1) - 1
                counts[number] = counts.get(number, 0) + 1
        self._child(self.rows, model, str(version), role).inc(len(scores))
        for number, count in counts.items():
            self._child(self.scores, model, str(version), f"{bins[number]:.6g}").inc(count)

    def counted(self, model: str, unseen: Mapping[str, int], missing: Mapping[str, int]) -> None:
        """Cells of a request, by column."""
        for metric, counts in ((self.unseen, unseen), (self.missing, missing)):
            for column, count in counts.items():
                self._child(metric, model, column).inc(count)

    def exposition(self) -> bytes:
        """All processes' metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def figures(self, model: str) -> dict[str, Any]:
        """Traffic and latency of a model, summed over all processes since the server's start."""
        requests: dict[str, float] = {}
        rows: dict[str, float] = {}
        buckets: dict[float, float] = {}
        repeated = {"same": 0, "other": 0}
        for metric in self._registry.collect():
            for sample in _of_model(metric, model):
                if sample.name == "perennial_requests_total":
                    status = sample.labels["status"]
                    requests[status] = requests.get(status, 0) + sample.value
                elif sample.name == "perennial_rows_total":
                    key = f"{sample.labels['role']}/{sample.labels['version']}"
                    rows[key] = rows.get(key, 0) + sample.value
                elif sample.name == "perennial_repeated_rows_total":
                    repeated[sample.labels["inputs"]] += int(sample.value)
                elif sample.name == "perennial_request_seconds_bucket":
                    bound = float(sample.labels["le"])
                    buckets[bound] = buckets.get(bound, 0) + sample.value
        return {
            "requests_by_status": {key: int(value) for key, value in sorted(requests.items())},
            "rows_by_role_and_version": {key: int(value) for key, value in sorted(rows.items())},
            "repeated_rows_by_inputs": repeated,
            "latency_p50_ms_at_most": _quantile(buckets, 0.5),
            "latency_p99_ms_at_most": _quantile(buckets, 0.99),
        }

    def _child(self, metric: Any, *labels: str) -> Any:
        key = (metric, *labels)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = metric.labels(*labels)
        return found


def _of_model(metric: Metric, model: str) -> list[Any]:
    return [sample for sample in metric.samples if sample.labels.get("model") == model]


def _quantile(buckets: dict[float, float], share: float) -> float | None:
    """The upper bound, in milliseconds, of the bucket that the quantile lies in."""
    total = max(buckets.values(), default=0)
    if not total:
        return None
    bound = min(bound for bound, count in buckets.items() if count >= share * total)
    return bound * 1000 if bound != float("inf") else None
