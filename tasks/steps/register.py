"""From a finished training to an MLflow run worth comparing and a registered version. Judges nothing, promotes nobody.

Requests are few: parameters, metrics and curves go in batches, trials as one table, figures as images.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import RegistryError
from perennial.model import pins
from perennial.model.artifacts import folder_digest, how_to_store
from perennial.model.scores import score_column
from perennial.model.truth import Classes
from perennial.serving.versions.proving import prove
from perennial.settings import PROJECT_ROOT, load_settings
from perennial.state.patience import ask
from perennial.state.registry import Registry, Version

GOLDEN_FILE = "golden.parquet"
REFERENCE_FILE = "reference.json"
SAMPLE_FILE = "reference_sample.parquet"
_BATCH_METRICS = 1000
_BATCH_PARAMETERS = 100


@dataclass(frozen=True)
class TrainingRecord:
    """What is written down of one training.

    Attributes:
        key: The training key: one run and one version for it, however often the training is restarted.
        lineage: Short facts for the version's tags: data version, definition hash, gate verdict, …
        parameters: The estimator's parameters, and the facts that runs are compared by.
        metrics: Names to values; NaN is left out.
        curves: Names to values by step, drawn over each other when runs are compared.
        figures: Names to what makes a matplotlib figure; it is drawn when it is logged, once.
        tables: Names to frames.
        reports: File names to texts or JSON-able values, kept as the run's artifacts.
        golden: Feature rows, and the scores that the registered model gives for them.
        sample: Rows of the training, for the report that people look at.
    """

    key: str
    definition: ModelDefinition
    pipeline: Any
    golden: tuple[pd.DataFrame, np.ndarray]
    sample: pd.DataFrame
    lineage: Mapping[str, str]
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    dataset: Mapping[str, str]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    figures: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    reports: Mapping[str, Any] = field(default_factory=dict)


def register_training(registry: Registry, record: TrainingRecord) -> Version:
    """Log the run and register its model, once for the record's key; begun anew where the registry was away."""
    return ask(lambda: _register_once(registry, record), registry.patience_seconds)


def _register_once(registry: Registry, record: TrainingRecord) -> Version:
    model = record.definition.name
    if existing := registry.find(model, record.key):
        return registry.register(
            model, training_key=record.key, run_id=existing.run_id, source=existing.source, tags=record.lineage
        )
    run_id = registry.run_for(model, record.key, name=_run_name(record), tags=_run_tags(record))
    log_parameters(registry, run_id, record)
    source = log_model(registry, run_id, record)
    log_run(registry, run_id, record, model_id=source.removeprefix("models:/"))
    try:
        digest = prove_logged(registry, run_id, source, record.definition)
    except RegistryError:
        registry.client.set_terminated(run_id, "FAILED")
        raise
    registry.client.set_terminated(run_id)
    tags = {**record.lineage, **pins.facts(), "kind": _kind(record)}
    version = registry.register(model, training_key=record.key, run_id=run_id, source=source, tags=tags, digest=digest)
    registry.describe(model, record.definition.description)
    return version


def prove_logged(registry: Registry, run_id: str, source: str, definition: ModelDefinition) -> str:
    """Let a fresh process load what was stored and answer its golden rows; the digest of the files that did.

    Raises:
        RegistryError: It can't, or answers other than it was trained. Nothing is registered then.
    """
    folder = registry.fetch(source)
    digest = folder_digest(folder)
    prove(definition, model=folder, golden=registry.run_file(run_id, GOLDEN_FILE), digest=digest)
    return digest


def log_parameters(registry: Registry, run_id: str, record: TrainingRecord) -> None:
    """Before the model, which MLflow gives the parameters that its run has by then."""
    from mlflow.entities import Param

    parameters = [Param(name, str(value)[:6000]) for name, value in record.parameters.items()]
    for start in range(0, len(parameters), _BATCH_PARAMETERS):
        registry.client.log_batch(run_id, params=parameters[start : start + _BATCH_PARAMETERS])


def log_run(registry: Registry, run_id: str, record: TrainingRecord, *, model_id: str) -> None:
    """Metrics, curves, dataset, figures, tables, reports.

    After the model: MLflow would ask for each of the metrics that the run has to write it once more as the model's.

    Args:
        model_id: The logged model, whose the metrics are as well.
    """
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    named = [(name, 0, value) for name, value in record.metrics.items()]
    named += [(name, step, value) for name, values in record.curves.items() for step, value in enumerate(values)]
    metrics = [
        Metric(name, float(value), now, step, model_id=None if step else model_id)
        for name, step, value in named if np.isfinite(value)
    ]  # fmt: skip
    for start in range(0, len(metrics), _BATCH_METRICS):
        registry.client.log_batch(run_id, metrics=metrics[start : start + _BATCH_METRICS])
    _log_dataset(registry, run_id, record)
    for name, make in record.figures.items():
        registry.client.log_image(run_id, _pixels(make()), key=name, step=0)
    for name, table in record.tables.items():
        registry.client.log_table(run_id, table, f"{name}.json")
    _log_files(registry, run_id, record)


def log_model(registry: Registry, run_id: str, record: TrainingRecord) -> str:
    """Store the pipeline safely (skops; a pickle only where the definition allows it); its URI."""
    import mlflow
    import mlflow.sklearn

    mlflow.set_tracking_uri(registry.tracking_uri)
    training = record.definition.training
    rows, scores = record.golden
    signature = mlflow.models.infer_signature(rows, scores)
    storage = how_to_store(record.pipeline, training)
    kind: dict[str, Any] = {"serialization_format": "skops", "skops_trusted_types": list(storage.trusted)}
    if storage.pickled:
        kind = {"serialization_format": "cloudpickle"}
    with mlflow.start_run(run_id=run_id), storage.naming(), tempfile.TemporaryDirectory() as folder:
        # MLflow puts them into `code/` beside the model, and finds them there when it loads the model itself.
        code = [str(path) for path in storage.write_code(Path(folder))]
        info = mlflow.sklearn.log_model(
            record.pipeline, name="model", signature=signature, input_example=rows.head(5),
            pip_requirements=list(requirements()), code_paths=code or None, **kind,
        )  # fmt: skip
    return str(info.model_uri)


@lru_cache(maxsize=1)
def requirements() -> tuple[str, ...]:
    """The packages that a registered model needs, at the versions that made it."""
    from importlib.metadata import version

    return tuple(f"{name}=={version(name)}" for name in ("scikit-learn", "pandas", "numpy", "scipy", "skops"))


@lru_cache(maxsize=1)
def code_version() -> str:
    """The commit that runs, with `+changes` where the checkout's files differ from it; empty where nobody knows."""
    if revision := load_settings().revision:
        return revision
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()  # noqa: S603


def _kind(record: TrainingRecord) -> str:
    """model, or what its lineage says: adopted, recalibration. Kinds of runs that a list should tell apart."""
    return record.lineage.get("kind") or "model"


def _run_name(record: TrainingRecord) -> str:
    day, verdict = record.lineage.get("as_of", "")[:10], record.lineage.get("gate.verdict", "")
    return f"{record.definition.name} {_kind(record)} {day}" + (f": {verdict}" if verdict else "")


def _run_tags(record: TrainingRecord) -> dict[str, str]:
    commit = code_version().removesuffix("+changes")
    return {"mlflow.source.git.commit": commit, "kind": _kind(record), **dict(record.lineage)}


def _log_dataset(registry: Registry, run_id: str, record: TrainingRecord) -> None:
    from mlflow.entities import Dataset, DatasetInput

    dataset = Dataset(
        name=record.definition.name,
        digest=record.dataset["digest"][:36],
        source_type="delta",
        source=json.dumps(dict(record.dataset)),
    )
    registry.client.log_inputs(run_id, datasets=[DatasetInput(dataset=dataset)])


def _log_files(registry: Registry, run_id: str, record: TrainingRecord) -> None:
    rows, scores = record.golden
    with tempfile.TemporaryDirectory() as folder:
        rows.assign(_score=score_column(scores, rows.index)).to_parquet(Path(folder) / GOLDEN_FILE)
        record.sample.to_parquet(Path(folder) / SAMPLE_FILE)
        for name, content in record.reports.items():
            text = content if isinstance(content, str) else json.dumps(content, allow_nan=False)
            (Path(folder) / name).write_text(text, encoding="utf-8")
        if lock := pins.serving_lock():
            (Path(folder) / pins.LOCK_FILE).write_text(lock, encoding="utf-8")
        registry.client.log_artifacts(run_id, folder)


def _pixels(figure: Any) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def training_facts(
    definition: ModelDefinition, *, as_of: datetime, data_version: str, classes: Classes | None = None
) -> dict[str, str]:
    """The lineage that every version carries whatever came of it."""
    return {
        "as_of": as_of.isoformat(),
        "data_version": data_version,
        "definition_hash": definition.hash,
        "code_version": code_version(),
        **({} if classes is None else {"classes": json.dumps(classes.names)}),
    }
