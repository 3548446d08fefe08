"""Which of a day's predictions are put up for people: by margin, unfamiliar ones, a random share; gold. Pure.

What is chosen for what it is has a chance of 1 to be put up, and every other row that of the random draw: with these
chances all reviewed rows together stand for the whole day, and those drawn at random do so by themselves. (Horvitz and
Thompson, A Generalization of Sampling Without Replacement From a Finite Universe, JASA 47, 1952.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perennial.definition import Review
from perennial.review.events import Offer

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """What can be put up on a day.

    Attributes:
        rows: id, time, score, predicted, version, `margin` (how far the answer is from another one; NaN of a
            regression, which has none) and `unfamiliar` (0 of a familiar row) of each prediction, in any order.
        gold: id, time, truth (a word), score, predicted and version of rows whose truth is known.
    """

    rows: pd.DataFrame
    gold: pd.DataFrame


def choose(pool: Pool, review: Review, *, already: Collection[str], at: datetime, seed: int) -> list[Offer]:
    """The day's offers, in no telling order; the same pool, day and seed give the same.

    Args:
        already: Ids that were put up before: none is ever put up twice.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    rows = _fresh(pool.rows, already)
    count, expires_at = len(rows), at + review.expires
    chosen = _chosen(rows, review) if count > review.per_day else {}
    drawn = _drawn(rng.permutation(count), chosen, review.per_day - len(chosen))
    share = drawn.sum() / count if count else 0.0
    propensity = min(1.0, (review.per_day - len(chosen)) / max(1, count - len(chosen)))
    places = sorted({*chosen, *np.flatnonzero(drawn).tolist()})
    double = set(rng.choice(places, size=round(review.double_share * len(places)), replace=False)) if places else set()
    offers = [
        Offer(
            id=str(rows["id"].iloc[place]), at=at, reason=chosen.get(place, "random"),  # type: ignore[arg-type]
            propensity=1.0 if place in chosen else propensity, share=float(share), drawn=bool(drawn[place]),
            wanted=2 if place in double else 1, expires_at=expires_at, **_answered(rows, place),
        )
        for place in places
    ]  # fmt: skip
    return offers + _gold(pool.gold, review, {*already, *(offer.id for offer in offers)}, at, rng)


def _drawn(order: npt.NDArray[np.int64], chosen: Mapping[int, str], wanted: int) -> npt.NDArray[np.bool_]:
    """Which rows are drawn, shape (n,): in a random order, until so many of them are not chosen anyway.

    So the day's number comes out whole, each row that is not chosen has the same chance, and those drawn are as
    likely to be chosen ones as any.
    """
    drawn = np.zeros(len(order), dtype=bool)
    new = np.cumsum(~np.isin(order, list(chosen)))
    last = int(np.searchsorted(new, wanted)) + 1 if wanted > 0 else 0
    drawn[order[:last]] = True
    return drawn


def _part(review: Review) -> int:
    return round(review.per_day * review.random_share)


def _chosen(rows: pd.DataFrame, review: Review) -> dict[int, str]:
    """Positions of the rows that are chosen for what they are, with the reason; ties are broken by their ids' hash."""
    ties = pd.util.hash_array(rows["id"].to_numpy(dtype=object))
    strange = rows["unfamiliar"].to_numpy(dtype=np.float64)
    order = np.lexsort((ties, -strange))
    most = round(review.per_day * review.unfamiliar_share)
    found = {int(place): "unfamiliar" for place in order[:most] if strange[place] > 0}
    margin = rows["margin"].to_numpy(dtype=np.float64)
    left = min(review.per_day - _part(review) - len(found), int(np.isfinite(margin).sum()))
    by_margin = (int(place) for place in np.lexsort((ties, margin)) if int(place) not in found)
    return found | {place: "margin" for place, _ in zip(by_margin, range(left), strict=False)}


def _gold(
    gold: pd.DataFrame, review: Review, taken: Collection[str], at: datetime, rng: np.random.Generator
) -> list[Offer]:
    rows = _fresh(gold, taken)
    wanted = min(len(rows), round(review.per_day * review.gold_share))
    return [
        Offer(
            id=str(rows["id"].iloc[place]), at=at, reason="gold", propensity=1.0, share=0.0, drawn=False, wanted=0,
            expires_at=at + review.expires, truth=str(rows["truth"].iloc[place]), **_answered(rows, place),
        )
        for place in sorted(rng.choice(len(rows), size=wanted, replace=False).tolist())
    ]  # fmt: skip


def _fresh(rows: pd.DataFrame, taken: Collection[str]) -> pd.DataFrame:
    """Each id once, in order of ids: the draw must not depend on how the rows were read."""
    kept = rows[~rows["id"].isin(list(taken))].drop_duplicates("id")
    return kept.sort_values("id", ignore_index=True)


def _answered(rows: pd.DataFrame, place: int) -> dict[str, Any]:
    score, version, predicted = (rows[name].iloc[place] for name in ("score", "version", "predicted"))
    return {
        "predicted": None if pd.isna(predicted) else str(predicted),
        "time": rows["time"].iloc[place].to_pydatetime(),
        "score": None if pd.isna(score) else float(score),
        "version": None if pd.isna(version) else int(version),
    }


def unfamiliarity(
    features: pd.DataFrame, categories: Mapping[str, frozenset[str]], ranges: Mapping[str, tuple[float, float]]
) -> Floats:
    """How strange each row is to a model, float64 of shape (n,); 0 for one of which each value was seen in training.

    The number of categories that training never saw; and for numbers outside of its range, more the farther out, but
    less than one unseen category.

    Args:
        features: A feature frame.
        categories: By column, what the model knows.
        ranges: By column, the least and the greatest number of its training.
    """
    strange = np.zeros(len(features), dtype=np.float64)
    for name, known in categories.items():
        column = features[name]
        strange += (column.notna() & ~column.isin(known)).to_numpy(dtype=np.float64)
    outside = np.zeros(len(features), dtype=np.float64)
    for name, (low, high) in ranges.items():
        values = features[name].to_numpy(dtype=np.float64)
        beyond = np.maximum(low - values, values - high) / (high - low or 1.0)
        outside = np.maximum(outside, np.nan_to_num(beyond, nan=0.0))
    return strange + outside / (1.0 + outside)
