"""The models that the serving benchmark serves: the flights demo's, and one of ten classes. Nothing is served here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]

DIGITS = """
name: digits
task: classification
classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
data: {source: {parquet: digits.parquet}, id: image, time: t, target: digit}
features: {numeric: [%s]}
"""


@dataclass(frozen=True)
class Subject:
    """A model to serve.

    Attributes:
        parameters: Of its boosting; each version has one iteration more.
        files: Writes what a folder of models needs of it.
        frame: From its definition to labelled rows under the definition's names.
    """

    name: str
    parameters: dict[str, int]
    files: Callable[[Path], None]
    frame: Callable[[Any], pd.DataFrame]


def _flights_files(folder: Path) -> None:
    for name in ("flights.yaml", "flights_source.py"):
        (folder / name).write_text((ROOT / "deployments" / name).read_text())


def _flights(definition: Any) -> pd.DataFrame:
    """Three months."""
    from tasks.rows.normal_form import normalise
    from tasks.rows.source import read_source

    start, end = datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC)
    rows = normalise(read_source(definition, start, end), definition)
    frame = rows.rename(columns={"_time": definition.data.time})
    return frame[frame[definition.data.target].notna()].reset_index(drop=True)


def _digits_files(folder: Path) -> None:
    (folder / "digits.yaml").write_text(DIGITS % ", ".join(f"pixel_{number}" for number in range(64)))


def _digits(definition: Any) -> pd.DataFrame:
    """scikit-learn's 1,797 images of eight by eight pixels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    frame = pd.DataFrame(found.data, columns=list(definition.features.numeric))
    return frame.assign(t=pd.date_range("2026-01-01", periods=len(frame), freq="h", tz="UTC"), digit=found.target)


# Two hundred trees, as many leaves as scikit-learn's default; of ten classes fifty rounds are five hundred trees.
SUBJECTS = {
    "flights": Subject("flights", {"max_iter": 200, "max_leaf_nodes": 31}, _flights_files, _flights),
    "digits": Subject("digits", {"max_iter": 50, "max_leaf_nodes": 31, "min_samples_leaf": 20}, _digits_files, _digits),
}


def make_home(home: Path, versions: int = 3, subject: str = "flights") -> Any:
    """A home with registered versions of a model, the first of them champion; the golden rows."""
    chosen = SUBJECTS[subject]
    os.environ["PERENNIAL_HOME"] = str(home)
    if subject != "flights":
        models = home.parent / f"{subject}-models"
        models.mkdir(parents=True, exist_ok=True)
        chosen.files(models)
        os.environ["PERENNIAL_MODELS"] = str(models)
    from perennial.model.features import feature_frame
    from perennial.model.truth import declared_classes
    from perennial.workspace import open_workspace
    from tasks.learning.fitting import fit, predict_score
    from tasks.rows.classes import of_codes
    from tasks.steps.register import TrainingRecord, register_training, training_facts

    workspace = open_workspace()
    definition = workspace.definition(subject)
    frame, classes = chosen.frame(definition), declared_classes(definition)
    encoded = of_codes(definition, classes) if classes is not None else definition
    golden_rows = feature_frame(frame.sample(200, random_state=0).reset_index(drop=True), definition.features)
    for number in range(versions):
        parameters = {**chosen.parameters, "max_iter": chosen.parameters["max_iter"] + number}
        fitted = fit(encoded, frame, parameters, 0)
        golden = (golden_rows, predict_score(fitted.pipeline, golden_rows, definition.task))
        facts = training_facts(definition, as_of=fitted.trained_until, data_version="benchmark", classes=classes)
        record = TrainingRecord(
            key=f"benchmark-{number}", definition=definition, pipeline=fitted.pipeline, golden=golden,
            sample=golden_rows, lineage={**facts, "trained_until": fitted.trained_until.isoformat()}, parameters={},
            metrics={}, dataset={"digest": "benchmark"},
        )  # fmt: skip
        made = register_training(workspace.registry, record)
        if number == 0:
            promote(workspace, subject, made.number)
    return golden_rows


def promote(workspace: Any, model: str, number: int) -> None:
    """Make a version the champion."""
    now = datetime.now(UTC)
    workspace.registry.promote(
        workspace.registry.version(model, number), action="promote", at=now, recorded_at=now, by="benchmark",
        reason="benchmark",
    )  # fmt: skip
