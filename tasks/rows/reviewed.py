"""What rests on people's reviews alone among the labels: who may judge by it, and how much it counts. Writes nothing.

A row that people were shown because the model was in doubt, or did not know its like, is not like the others: a loss
over such rows is far too high. Only what was drawn at random judges, and what has its truth from elsewhere too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from perennial.review.events import Reviews, read_reviews
from perennial.review.items import votes
from perennial.state.store import Store, among
from tasks.rows.frames import known_labels

ROW_WEIGHT = "_weight"


@dataclass(frozen=True)
class Reviewed:
    """What was reviewed up to a moment.

    Attributes:
        only: The rows whose truth is known by review alone, each with the chance that it had to be put up.
        chosen: Those of them that were not drawn at random, but chosen for what they are: they judge nothing.
        drawn: Of each row that was drawn at random, answered or not, for how many of its day it stands.
    """

    only: Mapping[str, float]
    chosen: frozenset[str]
    drawn: Mapping[str, float]


def reviewed(store: Store, model: str, *, as_of: datetime) -> Reviewed | None:
    """What was reviewed by a moment; None of a model of which nothing ever was put up."""
    reviews = read_reviews(store, model, as_of=as_of)
    if not reviews.offers:
        return None
    only = _by_review_alone(store, model, reviews, as_of)
    offers = reviews.offers
    return Reviewed(
        only={name: offers[name].propensity for name in only},
        chosen=frozenset(name for name in only if not offers[name].drawn),
        drawn={name: 1.0 / offer.share for name, offer in offers.items() if offer.drawn and offer.share > 0},
    )


def _by_review_alone(store: Store, model: str, reviews: Reviews, as_of: datetime) -> list[str]:
    """The ids with an answer whose truths were all said by those who reviewed them."""
    people = {
        name: set(votes(answers)) | ({reviews.known[name].author} if name in reviews.known else set())
        for name, answers in reviews.answers.items()
        if name in reviews.offers and not reviews.offers[name].is_gold
    }
    where = among("id", sorted(people)) & (pc.field("labelled_at") <= as_of)
    steps = store.frame(model, "labels", columns=["id", "truth", "author"], where=where)
    steps = steps[steps["truth"].notna()]
    foreign = [author not in people[name] for name, author in zip(steps["id"], steps["author"], strict=True)]
    return sorted(set(steps["id"]) - set(steps["id"][np.array(foreign, dtype=bool)]))


def judging_labels(
    store: Store, model: str, *, as_of: datetime, ids: pd.Series[Any] | None = None, version: int | None = None
) -> pd.DataFrame:
    """As `known_labels`, without those that are known only because their row was chosen for review."""
    labels = known_labels(store, model, as_of=as_of, ids=ids, version=version)
    found = reviewed(store, model, as_of=as_of)
    if found is None or not found.chosen:
        return labels
    return labels[~labels["id"].isin(list(found.chosen))].reset_index(drop=True)


def training_weights(ids: pd.Series[Any], found: Reviewed, most: float) -> np.ndarray:
    """How much each row counts in a training, float64 of shape (n,): 1 for all that were not reviewed.

    Of those known by review alone, each counts in proportion to the rows of its day that it stands for, the inverse of
    its chance; at most `most` times another, since few rows that stand for very many would be all that is learned; and
    1 on average, so that they count as many as they are.
    """
    chances = ids.map(dict(found.only)).to_numpy(dtype=np.float64)
    mine = np.isfinite(chances)
    weights = np.ones(len(ids), dtype=np.float64)
    if mine.any():
        stands_for = 1.0 / np.maximum(chances[mine], 1e-9)
        clipped = np.minimum(stands_for, most * stands_for.min())
        weights[mine] = clipped / clipped.mean()
    return weights
