"""One version in memory, checked: its pipeline, its schema, its scorer. Knows no request and no other version."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import RegistryError
from perennial.model.answers.intervals import Intervals, read_intervals
from perennial.model.artifacts import load_model
from perennial.model.calibrated import Recalibrated
from perennial.model.canonical import spelled
from perennial.model.cells.moments import MISSING, moment_text, moments
from perennial.model.known import stored_frame
from perennial.model.scores import likeliest, score_array
from perennial.model.truth import ZERO_ONE, Classes, declared_classes
from perennial.serving.protocol.columns import Row
from perennial.serving.protocol.schema import Kind, Schema
from perennial.serving.scoring.encoder import known_categories
from perennial.serving.scoring.scorer import Proof, Scorer, pipeline_scores
from perennial.serving.versions.cache import GOLDEN_FILE, PROOF_FILE, Manifest

_SCORE = "_score"
_PROBES = 200


@lru_cache(maxsize=64)
def _classes_of(told: str) -> Classes:
    """Of a manifest; asked for at each request."""
    return Classes(*json.loads(told))


@lru_cache(maxsize=64)
def _intervals_of(told: str, coverage: float) -> Intervals | None:
    return read_intervals(told, coverage)


@dataclass(frozen=True)
class LoadedModel:
    """A version that passed its checks.

    Attributes:
        manifest: What its promotion wrote.
        definition: The model's definition as it is now; the columns are the version's own.
        score_bins: Lower ends of bins for the scores' distribution: tenths (of many classes of the likeliest's), or
            deciles of a regression's golden scores.
        golden_rows: How many rows it proved itself on.
        golden_difference: The largest between golden and recomputed scores.
        loaded_seconds: How long loading and checking took.
    """

    name: str
    version: int
    manifest: Manifest
    definition: ModelDefinition
    schema: Schema
    scorer: Scorer
    score_bins: tuple[float, ...]
    golden_rows: int
    golden_difference: float
    loaded_seconds: float
    loaded_at: float = field(default_factory=time.time)

    @property
    def classes(self) -> Classes | None:
        """What the codes mean for this version; None for regression."""
        if self.definition.task != "classification":
            return None
        if told := self.manifest.get("classes"):
            return _classes_of(str(told))
        # Registered before versions carried their classes.
        positive = self.definition.positive
        return declared_classes(self.definition) or (Classes(f"not {positive}", positive) if positive else ZERO_ONE)

    @property
    def threshold(self) -> float:
        """From which probability on the label is 1: the definition's, or this version's by what mistakes cost."""
        serving = self.definition.serving
        if serving.cost is None:
            return serving.threshold
        told = json.loads(str(self.manifest.get("threshold") or "{}"))
        # Chosen for other costs than the definition has by now, it says nothing.
        same = all(told.get(name) == value for name, value in serving.cost.model_dump().items())
        return float(told["value"]) if told and same else serving.cost.calibrated_threshold

    @property
    def intervals(self) -> Intervals | None:
        """What a regression's answers are given on both sides; None where none is asked for, or none is had."""
        coverage = self.definition.serving.interval
        return None if coverage is None else _intervals_of(str(self.manifest.get("interval") or ""), coverage)

    @property
    def many(self) -> Classes | None:
        """The classes, where there are more than two."""
        classes = self.classes
        return classes if classes is not None and classes.many else None

    def words(self, scores: Sequence[Any]) -> list[str]:
        """The answers as the target's own words, of many classes the likeliest one; empty for regression."""
        if (many := self.many) is not None:
            return [many.label(code) for code in likeliest(np.array(scores, ndmin=2))]
        classes, threshold = self.classes, self.threshold
        return [] if classes is None else [classes.label(float(score >= threshold)) for score in scores]

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])


def load_version(folder: Path, manifest: Manifest, definition: ModelDefinition) -> LoadedModel:
    """Load a fetched version and check it: digest, trusted types, golden scores, fast path.

    Raises:
        RegistryError: Its files are not what was registered, or it does not give its golden scores.
    """
    started = time.perf_counter()
    training = definition.training
    pipeline = load_model(
        folder / "model", digest=str(manifest["digest"]), trusted=training.trusted_types,
        allow_pickle=training.allow_pickle,
    )  # fmt: skip
    golden = pd.read_parquet(folder / GOLDEN_FILE)
    schema = _schema(golden, definition, pipeline)
    rows = golden_rows(golden, schema)
    difference = _golden_difference(pipeline, golden, schema, rows, definition)
    scorer = Scorer(pipeline, schema, definition.task, rows[:_PROBES], _known_crossover(folder))
    _write_proof(folder, scorer.proof)
    return LoadedModel(
        name=definition.name,
        version=int(manifest["version"]),
        manifest=manifest,
        definition=definition,
        schema=schema,
        scorer=scorer,
        score_bins=_score_bins(golden, definition),
        golden_rows=len(golden),
        golden_difference=difference,
        loaded_seconds=time.perf_counter() - started,
    )


def _known_crossover(folder: Path) -> dict[str, int]:
    """What an earlier load of this version on this machine measured, by the fast path's kind."""
    try:
        found = json.loads((folder / PROOF_FILE).read_text(encoding="utf-8"))
        kind, rows = found["kind"], found["fast_rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(kind): rows} if isinstance(rows, int) and rows > 0 else {}


def _write_proof(folder: Path, proof: Proof) -> None:
    """Keep the proof beside the version; a folder that can't be written costs the next load a measurement."""
    staged = folder / f".{PROOF_FILE}.{os.getpid()}"
    with contextlib.suppress(OSError):
        staged.write_text(json.dumps(asdict(proof)), encoding="utf-8")
        staged.replace(folder / PROOF_FILE)


def _score_bins(golden: pd.DataFrame, definition: ModelDefinition) -> tuple[float, ...]:
    if definition.task == "classification":
        return tuple(number / 10 for number in range(10))
    deciles = np.quantile(golden[_SCORE].to_numpy(dtype=np.float64), np.arange(1, 10) / 10)
    return (-math.inf, *dict.fromkeys(float(f"{edge:.6g}") for edge in deciles))


def golden_rows(golden: pd.DataFrame, schema: Schema) -> list[Row]:
    """The golden rows in the clean form; they may have been stored in older spellings."""
    columns = []
    for name, kind, known in zip(schema.columns, schema.kinds, schema.known, strict=True):
        if kind == "datetime":
            counted, _ = moments(golden[name])
            columns.append([None if cell == MISSING else cell for cell in counted.tolist()])
            continue
        cells = golden[name].tolist()
        if kind not in ("numeric", "boolean"):
            cells = [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells]
        if kind == "categorical":
            cells = [cell if known is not None and cell in known else spelled(cell) for cell in cells]
        columns.append(cells)
    return [list(row) for row in zip(*columns, strict=True)]


def _golden_difference(
    pipeline: Any, golden: pd.DataFrame, schema: Schema, rows: list[Row], definition: ModelDefinition
) -> float:
    wanted = score_array(golden[_SCORE])
    if not len(wanted):
        raise RegistryError(f"{definition.name}: the version has no golden rows", "Retrain it")
    # Training may have seen images as paths; the API never opens a path that a client names, but these are ours.
    current = _is_current(schema, definition)
    frame = stored_frame(golden, definition.features, pipeline) if current else schema.frame(rows)
    try:
        found = pipeline_scores(pipeline, frame, definition.task)
    except Exception as error:
        raise RegistryError(
            f"{definition.name}: the version fails on its golden rows: {error}", "Retrain it"
        ) from error
    difference = float(np.max(np.abs(found - wanted))) if found.shape == wanted.shape else math.inf
    scale = 1.0 if definition.task == "classification" else max(1.0, float(np.max(np.abs(wanted))))
    if not difference <= definition.gate.golden_tolerance * scale:
        raise RegistryError(
            f"{definition.name}: the version's golden scores are off by {difference:g}, "
            f"allowed is {definition.gate.golden_tolerance:g}",
            "Its libraries differ from those it was trained with: compare environment.json, or retrain",
        )
    return difference


def _is_current(schema: Schema, definition: ModelDefinition) -> bool:
    return set(schema.columns) == set(definition.features.columns)


def _schema(golden: pd.DataFrame, definition: ModelDefinition, pipeline: Any) -> Schema:
    names = tuple(str(name) for name in golden.columns if name != _SCORE)
    kinds = tuple(_kind(name, golden, definition) for name in names)
    bare = Schema(names, kinds, {}, definition.data.id_columns, definition.data.time)
    inner = pipeline.pipeline if isinstance(pipeline, Recalibrated) else pipeline
    preprocess = getattr(inner, "named_steps", {}).get("preprocess")
    known = known_categories(preprocess, bare)
    return Schema(
        names, kinds, _example(golden, names, kinds), definition.data.id_columns, definition.data.time, known,
        dict(definition.features.epoch_units),
    )  # fmt: skip


def _kind(name: str, golden: pd.DataFrame, definition: ModelDefinition) -> Kind:
    features = definition.features
    by_name: Mapping[Kind, tuple[str, ...]] = {
        "numeric": features.numeric,
        "categorical": features.categorical,
        "text": features.text,
        "image": features.image,
        "boolean": features.boolean,
    }
    if pd.api.types.is_datetime64_any_dtype(golden[name].dtype):
        return "datetime"
    numeric = pd.api.types.is_numeric_dtype(golden[name].dtype)
    for kind, columns in by_name.items():
        # What the version learned goes before what the definition has become.
        if name in columns and (kind in ("numeric", "boolean")) == numeric:
            return "numeric" if kind == "boolean" and not golden[name].dropna().isin((0.0, 1.0)).all() else kind
    if numeric:
        return "numeric"
    return "image" if any(isinstance(cell, bytes) for cell in golden[name].head(20)) else "categorical"


def _example(golden: pd.DataFrame, names: tuple[str, ...], kinds: tuple[Kind, ...]) -> dict[str, Any]:
    """The golden row with the fewest gaps, as JSON has it."""
    place = int(golden[list(names)].isna().sum(axis=1).to_numpy().argmin())
    row = golden.iloc[place]
    example: dict[str, Any] = {}
    for name, kind in zip(names, kinds, strict=True):
        cell = row[name]
        if kind == "image":
            example[name] = base64.b64encode(cell).decode() if isinstance(cell, bytes) and len(cell) < 4096 else None
        elif cell is None or cell != cell:
            example[name] = None
        elif kind == "boolean":
            example[name] = bool(cell)
        elif kind == "datetime":
            example[name] = moment_text(int(moments(golden[name].iloc[place : place + 1])[0][0]))
        else:
            example[name] = float(cell) if kind == "numeric" else str(cell)
    return example
