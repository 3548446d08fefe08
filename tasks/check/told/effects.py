"""What a column's movement does to the predictions: each is taken back to how it was in training, alone.

The least change of the window's rows that gives a column the training's distribution is made, and the champion asked
again. Numbers keep their order (rows at a rank get the training's value of that rank: optimal transport in one
dimension); of categories, and of what is missing, only the surplus is moved. So a column that did not move changes
nothing, and what depends on each other stays together as far as it can. An importance times a distance would blame a
column that moved where the model does not look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.model.scores import is_many, known_scores
from tasks.check.inputs import Aside
from tasks.check.reference import Reference, is_prediction

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_COLUMNS = 10
MOST_ROWS = 400
LEAST_ROWS = 30


def what_moved(reference: Reference, aside: Aside, ratios: Mapping[str, float]) -> list[dict[str, Any]]:
    """Columns beyond their limit, by what their movement does to the predictions.

    Args:
        reference: The champion's.
        aside: With the champion, a sample of the window's rows and one of the training's.
        ratios: Each column's movement in times of its limit.

    Returns:
        Per column: `column`, `ratio`, and where it could be measured `change` (how far a prediction lies from what it
        would be, on average; of many classes half the sum over them) and `shift` (the same with its sign; None of many
        classes). Those first whose movement changes most; of the others those furthest beyond their limit.
    """
    beyond = [name for name, ratio in ratios.items() if ratio > 1 and not is_prediction(name)][:MOST_COLUMNS]
    effects = _effects(reference, aside, beyond)
    found = [
        {"column": name, "ratio": ratios[name], "change": None, "shift": None} | effects.get(name, {})
        for name in beyond
    ]
    return sorted(found, key=lambda item: (-(item["change"] or 0.0), -item["ratio"]))


def _effects(reference: Reference, aside: Aside, names: list[str]) -> dict[str, dict[str, float | None]]:
    window, sample = aside.window, aside.sample
    if aside.answer is None or window is None or sample is None or len(window) < LEAST_ROWS:
        return {}
    rows = window.iloc[np.linspace(0, len(window) - 1, min(len(window), MOST_ROWS)).astype(np.int64)]
    rows = rows.reset_index(drop=True)
    # Texts' and images' numbers are no inputs of the model: there is no text that is the same but shorter.
    inputs = {*reference.numeric, *reference.categorical} & set(rows) & set(sample)
    names = [name for name in names if name in inputs and sample[name].notna().any()]
    if not names:
        return {}
    changed = [
        rows.assign(**{name: taken_back(rows[name], sample[name], numeric=name in reference.numeric)}) for name in names
    ]
    answers = np.asarray(aside.answer(pd.concat([rows, *changed], ignore_index=True)), dtype=np.float64)
    parts = answers.reshape(len(names) + 1, len(rows), *answers.shape[1:])
    return {name: _difference(parts[0], part) for name, part in zip(names, parts[1:], strict=True)}


def _difference(now: Floats, back: Floats) -> dict[str, float | None]:
    known = known_scores(now) & known_scores(back)
    apart = (now - back)[known]
    if not len(apart):
        return {"change": None, "shift": None}
    if is_many(now):
        return {"change": float(np.abs(apart).sum(axis=1).mean() / 2), "shift": None}
    return {"change": float(np.abs(apart).mean()), "shift": float(apart.mean())}


def taken_back(window: pd.Series[Any], training: pd.Series[Any], *, numeric: bool, seed: int = 0) -> pd.Series[Any]:
    """The window's values, changed as little as gives them the training's distribution.

    Args:
        window, training: One column's values of both.
        numeric: Whether they have an order.
        seed: Of who among equals is changed.
    """
    random = np.random.default_rng(seed)
    if not numeric:
        return _categories_back(window, training, random)
    values = window.to_numpy(dtype=np.float64, na_value=np.nan).copy()
    known = training.to_numpy(dtype=np.float64, na_value=np.nan)
    gone, present = np.isnan(values), known[~np.isnan(known)]
    wanted = round(float(np.isnan(known).mean()) * len(values))
    surplus = int(gone.sum()) - wanted
    if surplus > 0:
        filled = random.choice(np.flatnonzero(gone), surplus, replace=False)
        values[filled] = random.choice(present, surplus)
    elif surplus < 0:
        values[random.choice(np.flatnonzero(~gone), -surplus, replace=False)] = np.nan
        filled = np.empty(0, dtype=np.int64)
    else:
        filled = np.empty(0, dtype=np.int64)
    there = np.setdiff1d(np.flatnonzero(~np.isnan(values)), filled)
    # Equal values in any order: else a column of few values would be sorted by the rows' order.
    order = there[np.lexsort((random.random(len(there)), values[there]))]
    places = (np.arange(len(order)) + 0.5) / max(1, len(order))
    values[order] = np.quantile(present, places, method="inverted_cdf")
    return pd.Series(values, window.index, name=window.name)


def _categories_back(window: pd.Series[Any], training: pd.Series[Any], random: np.random.Generator) -> pd.Series[Any]:
    codes, names = pd.factorize(pd.concat([window, training]), use_na_sentinel=True)
    now, before = codes[: len(window)] + 1, codes[len(window) :] + 1
    counts = np.bincount(now, minlength=len(names) + 1)
    exact = np.bincount(before, minlength=len(names) + 1) * (len(window) / len(training))
    wanted = np.floor(exact).astype(np.int64)
    rest = len(window) - int(wanted.sum())
    wanted[np.argsort(wanted - exact, kind="stable")[:rest]] += 1
    movable = [
        random.choice(np.flatnonzero(now == code), counts[code] - wanted[code], replace=False)
        for code in np.flatnonzero(counts > wanted)
    ]
    if not movable:
        return window
    rows = random.permutation(np.concatenate(movable))
    lacking = np.flatnonzero(wanted > counts)
    made = now.copy()
    made[rows] = np.repeat(lacking, wanted[lacking] - counts[lacking])
    values = pd.Series(names).take(made - 1).set_axis(window.index)
    return pd.Series(values.where(made > 0).astype(window.dtype), name=window.name)
