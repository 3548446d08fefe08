"""What is put up: never twice, never too much, with the chances that are written beside it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.definition import Review
from perennial.review.events import Offer
from tasks.review.basis import ReviewBasis, facts, on_random_share, sentences
from tasks.review.choosing import Pool, choose, unfamiliarity

T = datetime(2026, 1, 1, tzinfo=UTC)
NO_GOLD = pd.DataFrame({"id": [], "time": [], "predicted": [], "truth": [], "score": [], "version": []}).astype(
    {"id": "str"}
)


def pool(count: int, seed: int = 0, *, strange: int = 0, threshold: float | None = 0.5, gold: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"id": [f"r{number:05}" for number in range(count)], "score": rng.random(count), "version": 3})
    rows["time"] = pd.Timestamp(T)
    rows["predicted"] = np.where(rows["score"] >= 0.5, "yes", "no")
    rows["margin"] = np.nan if threshold is None else (rows["score"] - threshold).abs()
    rows["unfamiliar"] = np.where(np.arange(count) < strange, 1.0, 0.0)
    known = pd.DataFrame({"id": [f"g{number}" for number in range(gold)], "truth": "yes", "score": 0.4, "version": 2})
    known = known.assign(time=pd.Timestamp(T), predicted="no")
    return Pool(rows, known if gold else NO_GOLD)


def chosen(made: Pool, already: Any = (), seed: int = 1, **keys: Any) -> list[Offer]:
    return choose(made, Review(**{"per_day": 20} | keys), already=already, at=T, seed=seed)


def test_a_day_by_margin_at_random_and_of_what_is_unfamiliar() -> None:
    made = pool(1000, strange=10)
    offers = chosen(made, random_share=0.3, unfamiliar_share=0.2, double_share=0.5, expires="3d")
    counts = Counter(offer.reason for offer in offers)
    assert counts["margin"] == 10
    assert counts["unfamiliar"] == 4
    assert counts["random"] == 6
    margins = (made.rows.set_index("id")["score"] - 0.5).abs()
    by_margin = {offer.id for offer in offers if offer.reason == "margin"}
    strange = {offer.id for offer in offers if offer.reason == "unfamiliar"}
    assert by_margin == set(margins.drop(list(strange)).nsmallest(10).index)
    assert {offer.propensity for offer in offers if offer.reason == "random"} == {6 / (1000 - 14)}
    assert {offer.propensity for offer in offers if offer.reason != "random"} == {1.0}
    assert sum(offer.wanted == 2 for offer in offers) == 10
    assert {offer.expires_at for offer in offers} == {T + timedelta(days=3)}
    assert {offer.version for offer in offers} == {3}


def test_all_of_a_small_day_are_put_up_and_stand_for_themselves() -> None:
    offers = chosen(pool(7))
    assert len(offers) == 7
    assert {(offer.drawn, offer.share, offer.propensity) for offer in offers} == {(True, 1.0, 1.0)}
    assert chosen(pool(0)) == []


def test_a_regression_has_no_margin() -> None:
    offers = chosen(pool(500, strange=3, threshold=None), unfamiliar_share=0.5)
    assert Counter(offer.reason for offer in offers) == {"unfamiliar": 3, "random": 17}


def test_gold_comes_beside_of_each_and_knows_its_truth() -> None:
    offers = chosen(pool(100, gold=8), gold_share=0.25, already={"g0", "g1"})
    gold = [offer for offer in offers if offer.is_gold]
    assert len(gold) == 5
    assert {(offer.truth, offer.wanted) for offer in gold} == {("yes", 0)}
    assert not {"g0", "g1"} & {offer.id for offer in gold}


@settings(max_examples=25)
@given(
    st.integers(0, 80), st.integers(1, 30), st.floats(0, 0.6), st.floats(0, 0.4), st.floats(0, 1), st.integers(0, 9),
    st.sampled_from([None, 0.5, 0.05]),
)  # fmt: skip
def test_never_twice_never_too_many_and_the_same_whatever_the_order(
    count: int, per_day: int, random: float, strange: float, double: float, seed: int, threshold: float | None
) -> None:
    made = pool(count, seed, strange=count // 5, threshold=threshold)
    keys = {"per_day": per_day, "random_share": random, "unfamiliar_share": strange, "double_share": double}
    first = chosen(made, seed=seed, **keys)
    ids = [offer.id for offer in first]
    assert len(ids) == len(set(ids)) == min(per_day, count)
    shuffled = Pool(made.rows.sample(frac=1, random_state=seed), made.gold)
    assert chosen(shuffled, seed=seed, **keys) == first
    assert not set(ids) & {offer.id for offer in chosen(made, already=ids, seed=seed, **keys)}
    assert all(0 < offer.propensity <= 1 for offer in first)
    assert all(offer.drawn for offer in first if offer.reason == "random")


def test_the_chances_are_true() -> None:
    """Over many days' draws each row is put up as often as is written beside it, and the weighted mean is the day's."""
    made = pool(60, strange=6)
    losses = pd.Series((made.rows["score"] - 0.5).abs().to_numpy(), index=made.rows["id"])
    seen: Counter[str] = Counter()
    weighted, drawn, chances = [], [], {}
    for seed in range(200):
        offers = chosen(made, seed=seed, per_day=12, random_share=0.5)
        seen.update(offer.id for offer in offers)
        chances |= {offer.id: offer.propensity for offer in offers}
        weighted.append(sum(losses[offer.id] / offer.propensity for offer in offers) / len(losses))
        drawn.append(np.mean([losses[offer.id] for offer in offers if offer.drawn]))
    assert len(chances) == 60
    off = [abs(seen[name] / 200 - chance) for name, chance in chances.items()]
    assert max(off) < 0.14
    assert np.mean(weighted) == pytest.approx(losses.mean(), abs=0.015)
    assert np.mean(drawn) == pytest.approx(losses.mean(), abs=0.015)
    naive = np.mean([losses[name] for name, chance in chances.items() if chance == 1.0])
    assert naive < 0.7 * losses.mean()  # what was chosen by margin is not like the day


def test_unseen_categories_come_before_numbers_out_of_range() -> None:
    frame = pd.DataFrame({"kind": ["a", "b", "z", None], "size": [1.0, 30.0, np.nan, 2.0]})
    found = unfamiliarity(frame, {"kind": frozenset("ab")}, {"size": (0.0, 10.0)})
    assert found[0] == found[3] == 0.0
    assert 0 < found[1] < 1 == found[2]


def judged(truths: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"r{n}" for n in range(10)]}).assign(truth=lambda rows: rows["id"].map(truths))


def test_the_random_share_judges_only_where_few_labels_come() -> None:
    basis = ReviewBasis({"r0": 5.0, "r1": 2.0, "r2": 2.0}, left_out=4)
    many = judged({f"r{number}": 1.0 for number in range(6)})
    assert on_random_share(many, basis, 0.5, 1) is many
    few = judged({"r0": 1.0, "r1": 0.0, "r9": 1.0})
    assert on_random_share(few, None, 0.5, 1) is few
    assert on_random_share(few, basis, 0.5, 3) is few  # too few answers to judge by
    found = on_random_share(few, basis, 0.5, 2)
    assert found["id"].tolist() == ["r0", "r1", "r2"]
    assert found["weight"].tolist() == [5.0, 2.0, 2.0]
    told = sentences(facts(basis, found))
    assert told[0].startswith("4 labels are left out")
    assert "the 3 rows drawn at random" in told[1]
    assert facts(None, found) is None
    assert sentences(None) == []
