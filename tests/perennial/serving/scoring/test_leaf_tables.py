"""Tests of scoring trees by tables: the very scores of scikit-learn, for any number of rows, or no tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import treelite
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier

from perennial.serving.scoring import leaf_tables
from perennial.serving.scoring.leaf_tables import LeafTables, Untabled


def rows_of(count: int, seed: int) -> np.ndarray:
    """Two categorical columns, one of them wide, a coarse number, others, and gaps in all."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(count, 6))
    values[:, 0] = generator.integers(0, 40, count)
    values[:, 3] = np.round(values[:, 3], 1)  # many rows lie on a threshold
    values[:, 4] = generator.integers(0, 3, count)
    values[generator.random((count, 6)) < 0.15] = np.nan
    return values


def fitted(kind: Any, **parameters: Any) -> Any:
    values = rows_of(1500, 0)
    target = np.nansum(values * [0.2, 1, 1, 2, 1, 0], axis=1) + np.sin(5 * np.nan_to_num(values[:, 1]))
    target = (target > np.median(target)).astype(int) if kind is HistGradientBoostingClassifier else target
    if parameters.get("loss") == "poisson":
        target = np.abs(target)
    made = kind(max_iter=25, min_samples_leaf=3, categorical_features=[0, 4], random_state=0, **parameters)
    return made.fit(values, target)


def tables_of(model: Any) -> LeafTables:
    with np.errstate(invalid="ignore"):
        return LeafTables(treelite.sklearn.import_model(model))


@pytest.mark.parametrize("leaves", [2, 7, 32, 33, 127])
@pytest.mark.parametrize(
    ("kind", "parameters"),
    [(HistGradientBoostingClassifier, {}), (HistGradientBoostingRegressor, {}),
     (HistGradientBoostingRegressor, {"loss": "poisson"})],
)  # fmt: skip
def test_the_tables_give_scikit_learns_scores(kind: Any, parameters: dict[str, Any], leaves: int) -> None:
    model = fitted(kind, max_leaf_nodes=leaves, **parameters)
    tables, rows = tables_of(model), rows_of(700, 1)
    rows[:2] = np.nan
    rows[2, 1:3] = (1e300, -1e300)
    wanted = model.predict_proba(rows)[:, 1] if hasattr(model, "predict_proba") else model.predict(rows)
    np.testing.assert_allclose(tables.scores(rows), wanted, rtol=0, atol=1e-12 * max(1.0, np.abs(wanted).max()))
    for count in (1, 5, 6):
        found = tables.scores(np.asfortranarray(rows[:count]))
        np.testing.assert_allclose(found, wanted[:count], rtol=1e-12, atol=1e-12)


def test_categories_that_are_in_no_list_go_where_treelite_sends_them() -> None:
    model = fitted(HistGradientBoostingRegressor)
    with np.errstate(invalid="ignore"):
        trees = treelite.sklearn.import_model(model)
    rows = rows_of(60, 3)
    rows[:20, 0], rows[20:40, 0], rows[40:, 4] = 39.5, -3.0, 1e12
    wanted = treelite.gtil.predict(trees, rows, nthread=1).ravel()
    tables = LeafTables(trees)
    np.testing.assert_allclose(tables.scores(rows), wanted, rtol=1e-12)
    np.testing.assert_allclose([float(tables.scores(row[None])[0]) for row in rows], wanted, rtol=1e-12)


def test_what_has_no_tables_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.nan_to_num(rows_of(200, 0))
    three = np.arange(200) % 3
    with pytest.raises(Untabled, match="several outputs"):
        tables_of(HistGradientBoostingClassifier(max_iter=2).fit(values, three))
    with pytest.raises(Untabled):
        tables_of(RandomForestClassifier(3).fit(values, three % 2))
    with pytest.raises(Untabled, match="without a split"):
        tables_of(HistGradientBoostingRegressor(max_iter=2).fit(values, np.ones(200)))
    monkeypatch.setattr(leaf_tables, "_MOST_BYTES", 1000)
    with pytest.raises(Untabled, match="MiB"):
        tables_of(fitted(HistGradientBoostingRegressor))
