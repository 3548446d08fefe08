"""One check with its input and output: gather what was known at a moment, decide, write the ledger. No rule is here.

What a signal is and what verdict it leads to is in tasks.check.evidence and tasks.check.decision, which are pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.errors import ConflictError, NotFoundError, ServiceError
from perennial.model.scores import score_column
from perennial.model.truth import standing
from perennial.state.registry import Registry, Reign, Version
from perennial.state.store import Store, between
from perennial.state.tables import ROW_ID, ROW_INGESTED_AT, ROW_TIME
from perennial.workspace import Workspace
from tasks.calibration.maps import base_version, base_versions, map_in_force, same_model
from tasks.check.complaints.complaint import doubted_span, read_complaints
from tasks.check.decision import CheckInputs, Decision, check
from tasks.check.estimate.estimates import FEATURE_ROWS, judged_rows, sample_ids
from tasks.check.estimate.record import past_rows
from tasks.check.health import Freshness, repeating_deliveries
from tasks.check.history import History, read_history
from tasks.check.inputs import Aside, mature_windows, suffice
from tasks.check.reference import Reference
from tasks.check.window import WindowFacts, add_up, read_facts
from tasks.compute.cluster import open_cluster
from tasks.gate.probation import EVIDENCE, PROBATION
from tasks.intake.quarantine import RELEASES
from tasks.measures.described.images import readable_images
from tasks.measures.propensity import Experiment
from tasks.measures.statistics import to_row
from tasks.review.basis import ReviewBasis
from tasks.rows.classes import require_settled
from tasks.rows.experiment import STANDS_FOR, read_experiment, untreated
from tasks.rows.frames import known_labels, require_known_rows, window_rows
from tasks.rows.reviewed import reviewed
from tasks.steps.register import REFERENCE_FILE, SAMPLE_FILE
from tasks.steps.score import load_version, predictions_between, require_champion, score_rows, version_intervals

PART_ROWS = 500_000
PICTURED_ROWS = 2_000  # so many images are held at a time


def run_check(workspace: Workspace, definition: ModelDefinition, *, as_of: datetime) -> Decision:
    """The decision for a moment, from what was known then; nothing is written.

    Raises:
        NotFoundError: The model had no champion at that moment.
        DataError: There are rows of the past, but none was known at that moment.
        ConflictError: The definition means other classes than the champion answers.
    """
    champion = _champion_before(workspace.registry, definition.name, as_of)
    require_settled(workspace.store, definition)
    require_known_rows(workspace.store, definition.name, as_of=as_of)
    inputs = gather_inputs(workspace, definition, champion, as_of=as_of)
    return check(inputs, definition.monitoring, as_of=as_of)


def _champion_before(registry: Registry, model: str, as_of: datetime) -> Version:
    """Who was champion when the moment came: a check repeated after its own promotion sees the same one again."""
    before = [line for line in registry.history(model) if _came_before(line, as_of)]
    return registry.version(model, before[-1].version) if before else require_champion(registry, model, as_of=as_of)


def _came_before(line: Reign, as_of: datetime) -> bool:
    """A check first ends what its moment ends, a probation or a wait, and judges whoever is champion then."""
    return line.at < as_of or (line.at == as_of and line.by in (PROBATION, EVIDENCE))


def gather_inputs(
    workspace: Workspace, definition: ModelDefinition, champion: Version, *, as_of: datetime
) -> CheckInputs:
    """Everything that a check of this champion reads."""
    store, model, policy = workspace.store, definition.name, definition.monitoring
    mature_end = as_of - definition.data.label_delay
    start = as_of - policy.window

    @cache
    def matured(windows: int) -> pd.DataFrame:
        return _predictions(store, model, mature_end - windows * policy.window, mature_end, as_of)

    def count(windows: int) -> tuple[int, int]:
        logged = matured(windows)
        ids = logged["id"][_of_champion(workspace, champion, logged) | _unseen(champion, logged)]
        if suffice(policy, len(ids), 0):
            return len(ids), 0
        return len(ids), known_labels(store, model, as_of=as_of, ids=ids)["id"].nunique()

    windows = mature_windows(policy, count)
    mature, mature_start = matured(windows), mature_end - windows * policy.window
    predictions = _predictions(store, model, start, as_of, as_of)
    ledger = tuple(workspace.ledger(model).rows(as_of=as_of))
    history = read_history(ledger, as_of)
    past = past_rows(
        history,
        policy.window,
        mature_end,
        lambda first, last: _predictions(store, model, first, last, as_of),
    )
    suspects = _suspects(store, definition, history, mature_end, as_of)
    experiment = _experiment(store, definition, (mature, past), as_of)
    judged = [mature["id"], *([] if past is None else [past["id"]]), *([] if suspects is None else [suspects[ROW_ID]])]
    judged_ids = pd.concat(judged, ignore_index=True)
    by_people = reviewed(store, model, as_of=as_of)
    labels = known_labels(store, model, as_of=as_of, ids=judged_ids)
    left_out = labels["id"].isin([] if by_people is None else list(by_people.chosen))
    bases = base_versions(workspace.registry, model)
    same = [name for name, base in bases.items() if base == base_version(champion)]
    own = predictions[predictions["version"].astype(str).isin(same)]
    reference, sample = champion_reference(workspace.registry, champion), reference_sample(workspace.registry, champion)
    window = read_window(store, definition, reference, start=start, as_of=as_of)
    return CheckInputs(
        model=model,
        champion_version=str(champion.number),
        reference=reference,
        time=ROW_TIME,
        window=window,
        predictions=predictions,
        mature=champion_answers(workspace, definition, champion, mature, as_of=as_of),
        labels=labels[~left_out].reset_index(drop=True),
        label_delay=definition.data.label_delay,
        labelled_rows=count_labelled(store, definition, champion, as_of=as_of),
        freshness=freshness(store, model, start=start, as_of=as_of),
        ledger=ledger,
        base_versions=bases,
        recalibrator=map_in_force(champion),
        gate=definition.gate,
        intervals=version_intervals(champion, definition),
        metric=definition.loss,
        seed=definition.training.seed,
        past=past,
        window_features=_features_of(store, definition, reference, own["id"], start, as_of, as_of),
        mature_features=_features_of(store, definition, reference, mature["id"], mature_start, mature_end, as_of),
        holdout=judged_rows(sample, definition.data.target),
        suspects=suspects,
        aside=aside_of(
            workspace, definition, champion, window, predictions["id"], mature["id"], mature_start, sample, as_of=as_of
        ),
        review=None if by_people is None else ReviewBasis(by_people.drawn, int(left_out.sum())),
        experiment=experiment,
    )


def _experiment(
    store: Store, definition: ModelDefinition, logged: Sequence[pd.DataFrame | None], as_of: datetime
) -> Experiment | None:
    """Which of the logged rows were acted on; what was asked before its event is found a window earlier."""
    oldest = min((frame["time"].min() for frame in logged if frame is not None and len(frame)), default=None)
    start = None if oldest is None else oldest.to_pydatetime() - definition.monitoring.window
    return read_experiment(store, definition, as_of=as_of, start=start)


def aside_of(
    workspace: Workspace, definition: ModelDefinition, champion: Version, window: pd.DataFrame | WindowFacts,
    ids: pd.Series[Any], mature: pd.Series[Any], mature_start: datetime, sample: pd.DataFrame, *, as_of: datetime,
) -> Aside:  # fmt: skip
    """What the check tells beside its verdict, with the champion, which is loaded only where a column moved.

    Args:
        window: As it was read; of one read in parts a sample of the rows that were answered (by `ids`) is read.
        mature: Ids of the predictions whose truth is due, from `mature_start` on.
        sample: Of the champion's training.
    """
    store, policy = workspace.store, definition.monitoring

    def rows(names: pd.Series[Any], start: datetime, end: datetime, columns: Sequence[str] | None) -> pd.DataFrame:
        return window_rows(store, definition, start=start, end=end, known_at=as_of, ids=names, columns=columns)

    def answer(frame: pd.DataFrame) -> np.ndarray:
        return score_rows(load_version(workspace.registry, champion, definition), definition, frame)[0]

    if isinstance(window, WindowFacts):
        chosen = ids.iloc[sample_ids(ids, FEATURE_ROWS)]
        window = rows(chosen, as_of - policy.window, as_of, None)
    wanted = list(definition.gate.slices)
    if definition.segments:
        features = definition.features
        named = definition.segments.among or (*features.numeric, *features.categorical, *features.boolean)
        wanted = list(dict.fromkeys([*wanted, *named]))
    due = as_of - definition.data.label_delay
    return Aside(
        window=window,
        sample=sample,
        target=definition.data.target,
        # Of images the window has what can be said of them, by which nobody can be asked.
        answer=None if definition.features.image else answer,
        slices=definition.gate.slices,
        search=definition.segments,
        mature_features=rows(mature, mature_start, due, wanted) if wanted and len(mature) else None,
    )


def _suspects(
    store: Store, definition: ModelDefinition, history: History, mature_until: datetime, known_at: datetime
) -> pd.DataFrame | None:
    """A sample of the rows that earlier checks complained of and whose truth is due, with what was answered."""
    span = doubted_span(read_complaints(history.decisions), mature_until)
    if span is None:
        return None
    answers = _predictions(store, definition.name, *span, known_at)[["id", "score"]].drop_duplicates("id")
    rows = window_rows(store, definition, start=span[0], end=span[1], known_at=known_at)
    rows = untreated(store, definition, rows, ids=ROW_ID, times=ROW_TIME, as_of=known_at)
    rows = rows.drop(columns=STANDS_FOR, errors="ignore").iloc[sample_ids(rows[ROW_ID], FEATURE_ROWS)]
    scores = rows[ROW_ID].map(answers.set_index("id")["score"])
    return rows.assign(_score=scores).reset_index(drop=True)


def _features_of(
    store: Store,
    definition: ModelDefinition,
    reference: Reference,
    ids: pd.Series[Any],
    start: datetime,
    end: datetime,
    known_at: datetime,
) -> pd.DataFrame | None:
    """`_id` and features of a sample of the rows, by which a regression's loss is estimated; None for a class."""
    if definition.task == "classification" or not len(ids):
        return None
    sample = ids.iloc[sample_ids(ids, FEATURE_ROWS)]
    rows = window_rows(store, definition, start=start, end=end, known_at=known_at, ids=sample)
    return reference.described(rows).drop(columns=ROW_TIME)


@dataclass(frozen=True)
class _Parts:
    """What the parts of a window have in common; a worker has the keys of the tables' storage from its environment."""

    root: str
    definition: ModelDefinition
    reference: Reference
    as_of: datetime
    version: int | None
    rows: int


def read_window(
    store: Store, definition: ModelDefinition, reference: Reference, *, start: datetime, as_of: datetime
) -> pd.DataFrame | WindowFacts:
    """The rows of [start, as_of); of more than PART_ROWS the facts, part by part, on the definition's cluster if any.

    Workers read their parts from the tables themselves.

    Raises:
        ServiceError: The workers do not see the tables.
    """
    where = between(ROW_TIME, start, as_of) & (pc.field(ROW_INGESTED_AT) <= as_of)
    version = store.version(definition.name, "batches")
    rows = 0 if version is None else store.count(definition.name, "batches", where=where, version=version)
    if version is None or rows <= PART_ROWS:
        common = _Parts(store.root, definition, reference, as_of, version, rows)
        return _rows_of(store, common, start, as_of)
    parts = -(-rows // PART_ROWS)
    edges = [start + (as_of - start) * number / parts for number in range(parts + 1)]
    common, spans = _Parts(store.root, definition, reference, as_of, version, rows), list(pairwise(edges))
    with open_cluster(definition) as cluster:
        if cluster is None:
            return add_up(_read_part(common, span) for span in spans)
        with cluster.share(common) as shared:
            total = add_up(shared.map(_read_part, spans))
    if total.rows != rows:
        raise ServiceError(
            f"the Dask workers see {total.rows} of {rows} rows of {store.root}/{definition.name}/batches",
            "Keep the tables where every worker reads them, such as PERENNIAL_TABLES=s3://…",
        )
    return total


def _read_part(common: _Parts, span: tuple[datetime, datetime]) -> WindowFacts:
    """The facts of the rows of a span, as the table stood when they were counted."""
    start, end = span
    try:
        rows = _rows_of(Store(common.root), common, start, end)
    except NotFoundError:  # another machine's folder: the sum tells
        return WindowFacts(0)
    return read_facts(common.reference, rows, ROW_TIME, total_rows=common.rows, statistics=True)


def _rows_of(store: Store, common: _Parts, start: datetime, end: datetime) -> pd.DataFrame:
    """A span's rows without their ids; those with images described already, a few thousand images at a time."""
    definition, edges = common.definition, [start, end]
    if definition.features.image:
        where = between(ROW_TIME, start, end) & (pc.field(ROW_INGESTED_AT) <= common.as_of)
        parts = -(-store.count(definition.name, "batches", where=where, version=common.version) // PICTURED_ROWS) or 1
        edges = [start + (end - start) * number / parts for number in range(parts)] + [end]
    found = []
    for first, last in pairwise(edges):
        rows = window_rows(
            store, definition, start=first, end=last, known_at=common.as_of, version=common.version
        ).drop(columns=ROW_ID)
        found.append(common.reference.described(rows) if definition.features.image else rows)
    return found[0] if len(found) == 1 else pd.concat(found, ignore_index=True)


def champion_answers(
    workspace: Workspace, definition: ModelDefinition, champion: Version, logged: pd.DataFrame, *, as_of: datetime
) -> pd.DataFrame:
    """The log, with the champion's own scores where another model answered rows that the champion has not learned from.

    A new champion is so judged, and its scores recalibrated, as soon as labels are there: not only when its own
    predictions have them.
    """
    foreign = ~_of_champion(workspace, champion, logged) & _unseen(champion, logged)
    if not foreign.any():
        return logged
    start, end = logged.loc[foreign, "time"].min(), logged.loc[foreign, "time"].max() + pd.Timedelta(microseconds=1)
    rows = window_rows(
        workspace.store, definition, start=start.to_pydatetime(), end=end.to_pydatetime(), known_at=as_of
    )  # fmt: skip
    rows = rows[rows[ROW_ID].isin(logged.loc[foreign, "id"])].drop_duplicates(ROW_ID).reset_index(drop=True)
    rows = readable_images(rows, definition.features.image)
    score, raw = score_rows(load_version(workspace.registry, champion, definition), definition, rows)
    made = pd.DataFrame({"score": score_column(score), "raw_score": score_column(raw)}).set_axis(rows[ROW_ID])
    found = foreign & logged["id"].isin(made.index)
    answers = made.loc[logged.loc[found, "id"]].set_axis(logged.index[found])
    replaced = logged.assign(raw_score=logged["raw_score"] if "raw_score" in logged else logged["score"])
    for name in ("score", "raw_score"):
        replaced[name] = replaced[name].where(~found, answers[name])
    replaced.loc[found, "version"] = champion.number
    if (intervals := version_intervals(champion, definition)) is not None:
        ends = intervals.bounds(answers["score"].to_numpy(dtype=np.float64))
        for name, values in zip(("lower", "upper"), ends, strict=True):
            replaced[name] = logged.get(name, np.nan)
            replaced.loc[found, name] = values
    return replaced


def _of_champion(workspace: Workspace, champion: Version, logged: pd.DataFrame) -> pd.Series[bool]:
    """Which rows the champion answered, or another version of its model."""
    own = {str(champion.number), *same_model(workspace.registry, champion)}
    return logged["version"].astype("str").isin(own)


def _unseen(champion: Version, logged: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are later than what the champion has learned from."""
    return logged["time"] > pd.Timestamp(champion.tag("trained_until"))


def champion_reference(registry: Registry, champion: Version) -> Reference:
    """What the version was trained on, as it was written down at its registration."""
    path = registry.run_artifact(champion, REFERENCE_FILE)
    return Reference.from_dict(json.loads(path.read_text(encoding="utf-8")))


def reference_sample(registry: Registry, champion: Version) -> pd.DataFrame:
    """Rows of the version's training, for the report that people look at."""
    return pd.read_parquet(registry.run_artifact(champion, SAMPLE_FILE))


def count_labelled(store: Store, definition: ModelDefinition, champion: Version, *, as_of: datetime) -> int:
    """How many labelled rows there are since the champion's oldest; of a model without a window, all there are.

    A sliding window would hide growth: its training always has about as many rows. What a training would leave out,
    since it was acted on, is not new either.
    """
    start = datetime.fromisoformat(champion.tag("trained_from")) if definition.training.window else None
    found = None
    if definition.training.intervention != "ignore":
        found = read_experiment(store, definition, as_of=as_of)
    # In Arrow's columns throughout: this reads all of history, and text as Python objects is what costs.
    inside = between(ROW_TIME, start, as_of) & (pc.field(ROW_INGESTED_AT) <= as_of)
    rows = store.read(
        definition.name, "batches", columns=[ROW_ID, *([ROW_TIME] if found else [])], where=inside
    )  # fmt: skip
    columns = ["id", "truth", "labelled_at"]
    labelled = standing(store.read(definition.name, "labels", columns=columns, where=pc.field("labelled_at") <= as_of))
    known = pc.is_in(rows[ROW_ID], value_set=labelled)
    if found is None:
        return int(pc.sum(known).as_py() or 0)
    kept = rows.filter(known).to_pandas()
    return int((found.weights(kept[ROW_ID], kept[ROW_TIME]) > 0).sum())


def freshness(store: Store, model: str, *, start: datetime, as_of: datetime) -> Freshness:
    """What ingestion knows of the feed: its newest event, rows from the future, deliveries that came twice."""
    accepted = store.frame(
        model, "receipts",
        columns=["batch_id", "source", "time_until", "rows", "kept", "duplicates", "ingested_at"],
        where=(pc.field("ingested_at") <= as_of) & (pc.field("verdict") == "accepted"),
    )  # fmt: skip
    future = (pc.field(ROW_TIME) >= as_of) & (pc.field(ROW_INGESTED_AT) <= as_of)
    recent = repeating_deliveries(accepted[accepted["source"] != RELEASES])
    recent = recent[recent["ingested_at"] >= start]
    return Freshness(
        latest_event=accepted["time_until"].max().to_pydatetime() if len(accepted) else None,
        future_rows=store.count(model, "batches", where=future),
        duplicate_batches=len(recent),
        duplicate_rows=int(recent["duplicates"].sum()),
        example=str(recent["source"].iloc[-1]) if len(recent) else "",
    )


def record_decision(workspace: Workspace, decision: Decision) -> bool:
    """Write the decision into the ledger, and what its window looked like into the table of columns' statistics.

    Returns:
        False if this very check is there already.
    """
    if rows := statistics_rows(decision):
        key = f"statistics:{decision.decision_id}"
        workspace.store.append(decision.model, "column_statistics", pd.DataFrame(rows), key=key)
    return workspace.ledger(decision.model).record(decision.to_dict(), recorded_at=datetime.now(UTC))


def statistics_rows(decision: Decision) -> list[dict[str, Any]]:
    """The decision's rows of the table `column_statistics`, with the quantiles that its record has."""
    window = (decision.evidence.get("window") or {}).get("columns", {})
    common = {
        "decision_id": decision.decision_id,
        "start": pd.Timestamp(decision.evidence["window_start"]),
        "end": pd.Timestamp(decision.as_of),
        "version": int(decision.champion_version),
    }
    return [
        common | {"column": name} | to_row(found, window[name][3] if name in window else ())
        for name, found in decision.statistics.items()
    ]


def open_decisions(
    workspace: Workspace, model: str, *, as_of: datetime, is_alive: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """The newest decision that asks for a run, if none is at work on it and the champion has not changed since.

    Args:
        is_alive: Says of a claim's holder whether it may still be at work: a dead one's decision is open again.
    """
    entry = workspace.ledger(model).newest("retrain", "recalibrate", as_of=as_of)
    if entry is None or entry["outcome"] is not None:
        return []
    if entry["claimed_by"] is not None and is_alive(entry["claimed_by"]):
        return []
    reign = workspace.registry.reign(model, as_of=as_of)
    return [entry] if reign is None or _came_before(reign, datetime.fromisoformat(entry["as_of"])) else []


def require_sound_data(workspace: Workspace, model: str, *, as_of: datetime) -> None:
    """Refuse to learn while the newest check says that the data is broken and nobody has accepted it.

    Raises:
        ConflictError: It does; the complaint and both ways out are named.
    """
    newest = workspace.ledger(model).newest(as_of=as_of)
    if newest is None or newest["verdict"] != "repair" or newest.get("acceptance"):
        return
    raise ConflictError(
        f"the newest check of {model} asks for repair: {newest['reasons'][0]}",
        f"Mend the data and check again, or accept it: `perennial accept {model} {newest['decision_id']} --reason WHY`",
    )


def check_rows(workspace: Workspace, definition: ModelDefinition, *, as_of: datetime, limit: int) -> pd.DataFrame:
    """A sample of the window's rows with scores and known truth, newest labels included, for the report."""
    store, start = workspace.store, as_of - definition.monitoring.window
    rows = window_rows(store, definition, start=start, end=as_of, known_at=as_of)
    if len(rows) > limit:
        rows = rows.iloc[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]
    made = _predictions(store, definition.name, start, as_of, as_of)
    return rows.merge(made[["id", "score"]], left_on=ROW_ID, right_on="id", how="left").drop(columns="id")


def _predictions(store: Store, model: str, start: datetime, end: datetime, known_at: datetime) -> pd.DataFrame:
    return predictions_between(store, model, start=start, end=end, known_at=known_at)
