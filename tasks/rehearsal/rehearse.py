"""One file through everything that a definition says, with nothing kept: a report in lines, problems marked. No server.

Columns, kinds, classes, ids, times, the suite on the rows as they would be kept, a fit of a sample, and whether
another process can load what was fitted.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition, Monitoring, duration_text
from perennial.errors import DataError, PerennialError
from perennial.model.artifacts import folder_digest, save_model
from perennial.model.scores import score_column
from perennial.model.truth import Classes, code_truth, count_words, declared_classes, learn_classes
from perennial.serving.versions.proving import prove
from perennial.state.tables import ROW_ID, ROW_TIME
from tasks.intake.judging import NamedRows, id_name, refuse_truths
from tasks.intake.readable import read_rows
from tasks.intake.refusals import Refusals
from tasks.intake.spool import Spool
from tasks.intake.twins import find_within
from tasks.learning.fitting import fit, predict_score
from tasks.measures.described.images import stored_features
from tasks.rows.classes import Coding, of_codes
from tasks.rows.files import read_parts
from tasks.steps.ingest import PART_ROWS
from tasks.steps.register import GOLDEN_FILE
from tasks.validation.fitness import unfit_expectations
from tasks.validation.judging import validate
from tasks.validation.report import summary
from tasks.validation.spelling import in_normal_form
from tasks.validation.suites import Suite

SAMPLE_ROWS = 3000
GOLDEN_ROWS = 200
LEAST_WINDOWS = 3
_MANY = 0.5


@dataclass(frozen=True)
class Line:
    """One thing that was found; a problem is what would stop an ingestion or a training, or make it wrong."""

    topic: str
    text: str
    problem: bool = False


@dataclass
class _File:
    """What reading the file gave."""

    spool: Spool
    rows: int = 0
    columns: list[str] = field(default_factory=list)
    refused: Refusals = field(default_factory=Refusals)
    classes: Counter[str] = field(default_factory=Counter)
    without_truth: int = 0
    coding: Coding = field(default_factory=lambda: Coding(None, {}))
    unclear: str = ""


def rehearse(definition: ModelDefinition, suite: Suite, path: Path, *, as_of: datetime) -> Iterator[Line]:
    """Everything that can be said of the definition and the file, in the order in which it would go wrong.

    Args:
        as_of: Now, by which rows are dated in the future.
    """
    for problem in unfit_expectations(suite, definition):
        yield Line("suite", problem, problem=True)
    with Spool() as spool:
        found = _File(spool)
        try:
            _read(found, path, definition)
        except PerennialError as error:
            yield Line("columns", str(error), problem=True)
            return
        yield from _columns(found, definition)
        yield from _refused(found, definition)
        yield from _classes(found, definition)
        if not spool.rows:
            yield Line("rows", "no row is left", problem=True)
            return
        yield from _ids(found, definition)
        yield from _times(found, as_of)
        yield from _windows(found, definition.monitoring)
        yield from _kinds(found, definition)
        yield from _suite(found, definition, suite)
        yield from _fit(found, definition)


def _coding(path: Path, definition: ModelDefinition) -> tuple[Coding, str]:
    """What the codes would mean if this file were the first one, or why that is not clear."""
    target = definition.data.target
    if definition.task != "classification":
        return Coding(None, {}), ""
    if declared := declared_classes(definition):
        return Coding(declared, {}), ""
    truths = [part[target] for part in read_parts(path, definition, PART_ROWS) if target in part.columns]
    if not truths:
        return Coding(None, {}), ""
    try:
        learnt = learn_classes(pd.concat(truths, ignore_index=True), definition)
    except DataError as error:
        return Coding(None, {}), str(error)
    return (Coding(None, {}) if learnt is None else Coding(*learnt)), ""


def _read(found: _File, path: Path, definition: ModelDefinition) -> None:
    target = definition.data.target
    found.coding, found.unclear = _coding(path, definition)
    for part in read_parts(path, definition, PART_ROWS):
        found.columns = found.columns or list(map(str, part.columns))
        if target in part.columns:
            values = part[target].dropna()
            found.without_truth += len(part) - len(values)
            if definition.task == "classification":
                found.classes.update(count_words(values))
        readable = read_rows(part, definition)
        found.refused.update(readable.refused, found.rows)
        readable.rows.index += found.rows
        found.spool.add(readable.rows)
        found.rows += len(part)
    refuse_truths(definition, found.spool, found.refused, found.coding)


def _columns(found: _File, definition: ModelDefinition) -> Iterator[Line]:
    data, features = definition.data, definition.features
    yield Line("columns", f"{found.rows:,} rows, {len(found.columns)} columns; all that the definition reads are there")
    used = {*data.id_columns, data.time, data.target, *features.columns}
    if unused := [name for name in found.columns if name not in used]:
        yield Line("columns", f"not read: {', '.join(unused[:30])}{', …' if len(unused) > 30 else ''}")


def _refused(found: _File, definition: ModelDefinition) -> Iterator[Line]:
    if not len(found.refused):
        return
    count, limit = len(found.refused), definition.data.refused_share
    whole = count > 1 and count > limit * found.rows
    became = f"so the batch is refused (data.refused_share = {limit:g})" if whole else "the others are let in"
    yield Line("rows", f"{count:,} of {found.rows:,} rows can't be read and go to quarantine; {became}", problem=whole)
    for sentence in found.refused.told(8):
        yield Line("rows", sentence, problem=whole)


def _classes(found: _File, definition: ModelDefinition) -> Iterator[Line]:
    target = definition.data.target
    if target not in found.columns:
        yield Line("truth", f"there is no column {target!r}: rows without truth, for which labels come later")
        return
    missing = f"; {found.without_truth:,} rows have none" if found.without_truth else ""
    if definition.task != "classification":
        yield Line("truth", f"{target}: {found.rows - found.without_truth:,} values{missing}")
        return
    total = max(1, sum(found.classes.values()))
    shares = ", ".join(f"{name!r} {count:,} ({count / total:.1%})" for name, count in found.classes.most_common(8))
    yield Line("truth", f"{target}: {shares or 'no value'}{missing}")
    if found.unclear:
        yield Line("truth", found.unclear, problem=True)
    elif found.coding.classes is not None:
        yield Line("truth", _answered(found.coding.classes))


def _answered(classes: Classes) -> str:
    if classes.many:
        return f"{len(classes.names)} classes, {classes.told()}: the model answers the probability of each"
    return f"positive is {classes.positive!r}: the model answers its probability"


def _ids(found: _File, definition: ModelDefinition) -> Iterator[Line]:
    ids = found.spool.take([ROW_ID])[ROW_ID]
    several = ids.duplicated(keep=False).to_numpy()
    name = " and ".join(definition.data.id_columns)
    if not several.any():
        yield Line("ids", f"{name} names every row once, such as {ids.iloc[0]!r}")
        return
    twins = find_within(found.spool.pick(several), definition)
    count = len(twins.conflicts)
    if not count:
        yield Line("ids", f"{int(twins.repeats.sum()):,} rows repeat others whole; they are taken once")
        return
    names = ", ".join(dict.fromkeys((*definition.data.id_columns, definition.data.time)))
    yield Line(
        "ids",
        f"{name} names no row: {count:,} rows contradict another of their id, such as "
        f"{twins.conflicts.text(next(iter(twins.conflicts)))}. Name the columns that do together: "
        f"`data: {{id: [{names}]}}`",
        problem=True,
    )


def _times(found: _File, as_of: datetime) -> Iterator[Line]:
    times = found.spool.take([ROW_TIME])[ROW_TIME]
    yield Line("times", f"from {times.min():%Y-%m-%d %H:%M} to {times.max():%Y-%m-%d %H:%M}, read as UTC")
    if later := int((times > as_of).sum()):
        text = f"{later:,} rows are dated after now: a check will ask for repair (clock ahead). Give the event's time"
        yield Line("times", text, problem=True)


def _windows(found: _File, policy: Monitoring) -> Iterator[Line]:
    """Whether a check's window would hold rows enough; only where the file has several windows."""
    times = found.spool.take([ROW_TIME])[ROW_TIME]
    windows = (times.max() - times.min()) / policy.window
    if windows < LEAST_WINDOWS or (rows := len(times) / windows) >= policy.minimum_rows:
        return
    yield Line(
        "times",
        f"about {rows:,.0f} rows in a window of {duration_text(policy.window)}, and monitoring.minimum_rows = "
        f"{policy.minimum_rows:,}: no check would measure drift or look at the columns. Give monitoring.window more "
        "days, or lower minimum_rows",
    )


def _kinds(found: _File, definition: ModelDefinition) -> Iterator[Line]:
    features = definition.features
    kinds = ("numeric", "categorical", "text", "image", "boolean", "datetime")
    counts = {kind: len(getattr(features, kind)) for kind in kinds}
    told = [f"{count} {kind}" for kind, count in counts.items() if count or kind in kinds[:4]]
    yield Line("kinds", ", ".join(told))
    for name in features.columns:
        column = found.spool.take([name])[name]
        missing = int(column.isna().sum())
        if missing == len(column):
            yield Line("kinds", f"{name}: every value is missing", problem=True)
        elif name in features.categorical:
            distinct = column.nunique()
            if distinct > 20 and distinct > _MANY * (len(column) - missing):
                yield Line("kinds", f"{name}: {distinct:,} categories in {len(column):,} rows; is it an id or a text?")
        elif name in features.numeric and column.nunique() == 1 and not missing:
            yield Line("kinds", f"{name}: {column.iloc[0]:g} in every row")
        elif name in (*features.boolean, *features.datetime) and column.nunique() == 1 and not missing:
            yield Line("kinds", f"{name}: {column.iloc[0]} in every row")
        if 0 < missing < len(column):
            yield Line("kinds", f"{name}: {missing:,} values missing ({missing / len(column):.1%})")


def _suite(found: _File, definition: ModelDefinition, suite: Suite) -> Iterator[Line]:
    rows = NamedRows(found.spool, definition)
    report = validate(rows, in_normal_form(suite, definition), id_column=id_name(definition))
    met = len(report.results) - len(report.failures)
    yield Line("suite", f"{report.verdict}: {met} of {len(report.results)} expectations met", problem=report.refused)
    for text in report.problems:
        yield Line("suite", text, problem=True)
    for result in report.failures:
        yield Line("suite", summary(result), problem=result.refuses)
    if not report.refused and len(bad := report.quarantined_rows()):
        yield Line("suite", f"{len(bad):,} rows go to quarantine; the others are let in")


def _fit(found: _File, definition: ModelDefinition) -> Iterator[Line]:
    target = definition.data.target
    if target not in found.spool.columns:
        yield Line("fit", "not tried: there is no truth in the file")
        return
    labelled = found.spool.take([target])[target].notna().to_numpy()
    least = definition.training.minimum_rows
    if labelled.sum() < least:
        text = f"{int(labelled.sum()):,} labelled rows, and training.minimum_rows = {least:,}: no training yet"
        yield Line("fit", text)
    unclear = definition.task == "classification" and found.coding.classes is None
    if unclear or not labelled.any():
        return
    places = np.flatnonzero(labelled)
    chosen = np.zeros(len(labelled), dtype=np.bool_)
    chosen[places[np.linspace(0, len(places) - 1, min(len(places), SAMPLE_ROWS)).astype(np.int64)]] = True
    sample = found.spool.pick(chosen).sort_values(ROW_TIME, ignore_index=True)
    started = time.perf_counter()
    try:
        truth, _ = code_truth(sample[target], definition, found.coding.classes)
        sample = sample.assign(**{target: truth})
        encoded = of_codes(definition, found.coding.classes)
        fitted = fit(
            encoded, sample.rename(columns={ROW_TIME: definition.data.time}), definition.training.parameters,
            definition.training.seed,
        )  # fmt: skip
        scores = predict_score(fitted.pipeline, stored_features(sample, definition.features), definition.task)
    except PerennialError as error:
        yield Line("fit", str(error), problem=True)
        return
    seconds = time.perf_counter() - started
    text = (
        f"{definition.training.estimator} on {len(sample):,} rows in {seconds:.1f} s; answers from {scores.min():.4g}"
    )
    yield Line("fit", f"{text} to {scores.max():.4g}")
    frame = stored_features(sample.head(GOLDEN_ROWS), definition.features)
    yield _load(fitted.pipeline, frame, scores[:GOLDEN_ROWS], definition)


def _load(pipeline: Any, features: pd.DataFrame, scores: np.ndarray, definition: ModelDefinition) -> Line:
    """Stored as a version would be, and asked in another process, as the API is one."""
    with tempfile.TemporaryDirectory(prefix="perennial-rehearsal-") as name:
        model, golden = Path(name) / "model", Path(name) / GOLDEN_FILE
        try:
            save_model(pipeline, model, definition.training)
            features.assign(_score=score_column(scores, features.index)).to_parquet(golden)
            proven = prove(definition, model=model, golden=golden, digest=folder_digest(model))
        except PerennialError as error:
            return Line("load", str(error), problem=True)
    fast = "" if proven.fast_path == "none" else f", the small requests by {proven.fast_path}"
    return Line("load", f"another process loads it and answers {proven.rows} rows alike{fast}")
