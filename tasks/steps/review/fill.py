"""Puts the day's predictions up for people. Which ones is chosen in tasks.review.choosing."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.known import frame_as_known, known_categories
from perennial.model.scores import is_many, likeliest, score_array
from perennial.model.truth import Classes
from perennial.review.desk import Desk
from perennial.review.events import Reviews, read_reviews, write_events
from perennial.state.registry import Version
from perennial.state.store import Store, among
from perennial.state.tables import ROW_ID
from perennial.workspace import Workspace
from tasks.measures.described.images import stored_features
from tasks.review.choosing import Floats, Pool, choose, unfamiliarity
from tasks.rows.classes import known_coding
from tasks.rows.frames import known_labels, window_rows
from tasks.steps.monitor import reference_sample
from tasks.steps.review.answers import write_labels
from tasks.steps.score import load_version

_DAY = timedelta(days=1)
# Of more predictions than this a sample is looked at for what training has not seen; margins are compared of all.
_LOOKED_AT = 50_000
_GOLD_LABELS = 20_000


@dataclass(frozen=True)
class Filled:
    """What a fill did.

    Attributes:
        put_up: Offers by reason; empty where the day's were put up before, or nothing was predicted since.
        predictions: How many they were chosen from.
        labels: Labels that people's answers have become by now and that were not written before.
        told: Why nothing was put up; empty otherwise.
    """

    put_up: dict[str, int]
    predictions: int
    labels: int
    told: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def fill_reviews(workspace: Workspace, definition: ModelDefinition, *, as_of: datetime) -> Filled:
    """Put up what was predicted since the last time, once a day, and see to it that every answer is a label.

    Raises:
        DataError: The definition asks for no reviews.
    """
    if not definition.review.per_day:
        raise DataError(f"{definition.name} has no reviews", "Set review.per_day in its definition")
    store, model = workspace.store, definition.name
    champion = workspace.registry.champion(model, as_of=as_of)
    if champion is None:
        return Filled({}, 0, 0, "there is no champion yet, and so no prediction")
    reviews = read_reviews(store, model, as_of=as_of)
    labels = _settle(workspace, definition, reviews, as_of)
    key = f"offers:{as_of:%Y-%m-%d}"
    if store.committed(model, "reviews", key) is not None:
        return Filled({}, 0, labels, f"those of {as_of:%Y-%m-%d} were put up before")
    pool = gather_pool(workspace, definition, champion, reviews, as_of=as_of)
    offers = choose(pool, definition.review, already=reviews.offers, at=as_of, seed=_seed(model, key))
    if not offers:
        return Filled({}, len(pool.rows), labels, "nothing was predicted since the last time that has no truth yet")
    write_events(store, model, offers, key=key)
    return Filled(dict(Counter(offer.reason for offer in offers)), len(pool.rows), labels)


def _settle(workspace: Workspace, definition: ModelDefinition, reviews: Reviews, as_of: datetime) -> int:
    """Labels that a process which died, or the expiry of a wait for a second person, has left to be written."""
    if not reviews.answers:
        return 0
    desk = Desk(workspace.store, definition, known_coding(workspace.store, definition).classes)
    return write_labels(desk, desk.steps(reviews, as_of))


def gather_pool(
    workspace: Workspace, definition: ModelDefinition, champion: Version, reviews: Reviews, *, as_of: datetime
) -> Pool:
    """The predictions since the last fill (a day, or the checks' window, before the first) without a truth; and gold.

    Each prediction is in one day's pool only, so that it has one chance.
    """
    store, model = workspace.store, definition.name
    last = max((offer.at for offer in reviews.offers.values()), default=None)
    start = last if last is not None else as_of - max(_DAY, definition.monitoring.window)
    where = (pc.field("predicted_at") > start) & (pc.field("predicted_at") <= as_of)
    made = store.frame(model, "predictions", where=where)
    made = made.sort_values("predicted_at", kind="stable").drop_duplicates("id", ignore_index=True)
    known = known_labels(store, model, as_of=as_of, ids=made["id"])["id"] if len(made) else made["id"]
    made = made[~made["id"].isin(list(known)) & made["score"].notna()].reset_index(drop=True)
    classes = known_coding(store, definition).classes
    said = _said(made["score"], classes, threshold_of(definition, champion))
    strange = _unfamiliar(workspace, definition, champion, made, as_of)
    rows = pd.concat([made[["id", "time", "version"]], said], axis=1).assign(unfamiliar=strange)
    return Pool(rows, _gold(store, definition, reviews, champion, as_of))


def _said(scores: pd.Series[Any], classes: Classes | None, threshold: float) -> pd.DataFrame:
    """What was answered: score (of the likeliest class, where there are more than two), predicted and margin."""
    given = score_array(scores)
    if classes is None:
        return pd.DataFrame({"score": given, "predicted": None, "margin": np.nan}, index=scores.index)
    codes = likeliest(given, threshold)
    words = [classes.label(code) for code in codes]
    if not is_many(given):
        return pd.DataFrame({"score": given, "predicted": words, "margin": np.abs(given - threshold)})
    ordered = np.sort(given, axis=1)
    return pd.DataFrame({"score": ordered[:, -1], "predicted": words, "margin": ordered[:, -1] - ordered[:, -2]})


def threshold_of(definition: ModelDefinition, version: Version) -> float:
    """From which probability on the version answers the positive class."""
    serving = definition.serving
    if serving.cost is None:
        return serving.threshold
    told = json.loads(version.tag("threshold") or "{}")
    return float(told.get("value", serving.cost.calibrated_threshold))


def _unfamiliar(
    workspace: Workspace, definition: ModelDefinition, champion: Version, made: pd.DataFrame, as_of: datetime
) -> Floats:
    found = np.zeros(len(made), dtype=np.float64)
    if not len(made) or not definition.review.unfamiliar_share:
        return found
    places = np.unique(np.linspace(0, len(made) - 1, min(_LOOKED_AT, len(made))).astype(np.int64))
    sample = made.iloc[places].reset_index(drop=True)
    features = stored_features(_inputs(workspace.store, definition, sample, as_of), definition.features)
    known = known_categories(load_version(workspace.registry, champion, definition))
    ranges = _ranges(reference_sample(workspace.registry, champion), definition)
    found[places] = unfamiliarity(frame_as_known(features, known), known, ranges)
    return found


def _inputs(store: Store, definition: ModelDefinition, made: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    """The features of predictions, in their order: as ingested, else as they were asked with over the API."""
    start, end = made["time"].min().to_pydatetime(), made["time"].max().to_pydatetime() + timedelta(microseconds=1)
    rows = window_rows(store, definition, start=start, end=end, known_at=as_of, ids=made["id"])
    rows = rows.drop_duplicates(ROW_ID).set_index(ROW_ID)
    columns = list(definition.features.columns)
    if "inputs" in made.columns:
        asked = made[made["inputs"].notna() & ~made["id"].isin(rows.index)]
        if len(asked):
            told = pd.DataFrame([json.loads(text) for text in asked["inputs"]], index=asked["id"])
            rows = pd.concat([rows[columns].astype(object), told.reindex(columns=columns).astype(object)])
    return rows.reindex(made["id"])[columns].reset_index(drop=True)


def _ranges(sample: pd.DataFrame, definition: ModelDefinition) -> Mapping[str, tuple[float, float]]:
    """The least and greatest number of each column in what is kept of the champion's training."""
    found = {}
    for name in definition.features.numeric:
        values = sample[name].to_numpy(dtype=np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            found[name] = (float(values.min()), float(values.max()))
    return found


def _gold(
    store: Store, definition: ModelDefinition, reviews: Reviews, champion: Version, as_of: datetime
) -> pd.DataFrame:
    """Predicted rows whose truth came with the data, as `Pool` has them."""
    columns = ("id", "time", "truth", "score", "predicted", "version")
    nothing = pd.DataFrame({name: [] for name in columns}).astype({"id": "str"})
    if not definition.review.gold_share:
        return nothing
    classes = known_coding(store, definition).classes
    labels = known_labels(store, definition.name, as_of=as_of)
    labels = labels[~labels["id"].isin(list(reviews.offers))].nlargest(_GOLD_LABELS, "labelled_at")
    if not len(labels):
        return nothing
    words = [classes.label(value) if classes else repr(float(value)) for value in labels["truth"]]
    truths = pd.Series(words, index=labels["id"].to_numpy(), dtype=object)
    where = among("id", list(truths.index)) & (pc.field("predicted_at") <= as_of)
    made = store.frame(definition.name, "predictions", columns=["id", "time", "score", "version"], where=where)
    made = made[made["score"].notna()].drop_duplicates("id").reset_index(drop=True)
    said = _said(made["score"], classes, threshold_of(definition, champion))
    return made.assign(truth=made["id"].map(truths), score=said["score"], predicted=said["predicted"])


def _seed(model: str, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{model}\n{key}".encode()).digest()[:8], "little")
