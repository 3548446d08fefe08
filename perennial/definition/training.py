"""How a challenger is made, and where heavy work is computed, as a definition says it. Nothing is trained here."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, field_validator

from perennial.definition.values import Duration, Section

CLASSIFICATION_METRICS = ("roc_auc", "average_precision", "log_loss", "brier", "accuracy", "balanced_accuracy", "f1")


REGRESSION_METRICS = ("rmse", "mae", "mse", "r2", "median_absolute_error")


GREATER_IS_BETTER = frozenset({"roc_auc", "average_precision", "accuracy", "balanced_accuracy", "f1", "r2"})


ESTIMATORS = ("hist_gradient_boosting", "random_forest", "linear")


class Tuning(Section):
    """How hyperparameters are searched: whichever of trials and seconds runs out first ends the search."""

    trials: int = Field(20, ge=0, description="0 keeps the given parameters.")
    seconds: float | None = Field(120, gt=0)
    metric: str | None = Field(None, description="Default: log_loss or rmse.")
    folds: int = Field(1, ge=1, le=10, description="Time-ordered validation blocks, newest last.")
    validation_share: float = Field(0.2, gt=0, lt=0.9)
    workers: int = Field(2, ge=1, description="Trials evaluated at once; part of the result's identity.")


class Training(Section):
    """What a new challenger learns from, and how."""

    window: Duration | None = Field(None, description="How far back rows are used; all of them by default.")
    minimum_rows: int = Field(500, ge=10, description="Fewer labelled rows than this refuse the training.")
    estimator: str = Field(
        "hist_gradient_boosting",
        description=f"{', '.join(ESTIMATORS)}; an importable class such as sklearn.ensemble.ExtraTreesClassifier; a "
        "function of yours, file.py:function; or a stored pipeline, file.skops.",
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="Fixed parameters of the estimator.")
    weights: str | None = Field(
        None,
        description="A column of numbers, ingested with the rows: how much each counts when a model is fitted.",
    )
    groups: str | None = Field(
        None,
        description="A column that names what must not be parted: rows of one group are never on both sides of a "
        "split, and the gate's intervals draw whole groups.",
    )
    intervention: Literal["ignore", "control", "weighted"] = Field(
        "ignore",
        description="Of rows on whose predictions the application acted, while serving.control_group was set: ignore "
        "learns from their outcomes as from any; control leaves them out; weighted does, too, and lets each row of the "
        "control group count for as many as it stands for.",
    )
    tuning: Tuning = Tuning()
    seed: int = 0
    trusted_types: tuple[str, ...] = Field(
        (), description="Types that a custom estimator may be loaded with; those of its own file as churn_model.ratio."
    )
    allow_pickle: bool = Field(False, description="Let a custom estimator be stored as a pickle.")

    @field_validator("estimator")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ESTIMATORS and not re.fullmatch(r"[^:]+\.py:\w+|[^:]+\.skops|[A-Za-z_]\w*(\.\w+)+", value):
            raise ValueError(
                f"an estimator is one of {', '.join(ESTIMATORS)}, a class such as "
                'sklearn.ensemble.ExtraTreesClassifier, "file.py:function" or "file.skops"'
            )
        return value


_DASK = re.compile(r"local|\$[A-Za-z_]\w*|(tcp|tls|ws|wss)://[^\s/]+:\d+")


class Runner(Section):
    """Where trials, backtests, large scorings and large checks are computed; results are the same everywhere."""

    dask: str = Field(
        description="A Dask scheduler, tcp://HOST:PORT or tls://HOST:PORT; $NAME of an environment variable that "
        "holds one; or local: one process a core of this machine."
    )
    timeout: Duration = Field(
        timedelta(seconds=60), description="So long the scheduler, and a worker where it has none, are waited for."
    )

    @field_validator("dask")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if not _DASK.fullmatch(value):
            raise ValueError("an address is tcp://HOST:PORT, tls://HOST:PORT, $VARIABLE or local")
        return value
