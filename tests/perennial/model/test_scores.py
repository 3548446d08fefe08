"""Scores of two classes and of many go through frames, tables and files alike, and nothing is lost on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perennial.errors import DataError
from perennial.model.scores import (
    class_scores,
    improbable,
    known_scores,
    likeliest,
    of_truth,
    own_scores,
    score_array,
    score_arrow,
    score_column,
)
from perennial.state.store import Store

MANY = np.array([[0.2, 0.5, 0.3], [np.nan, np.nan, np.nan], [0.0, 0.0, 1.0]])
ONE = np.array([0.2, np.nan, 1.0])


@pytest.mark.parametrize("scores", [ONE, MANY])
def test_a_column_gives_back_its_scores(scores: np.ndarray) -> None:
    column = score_column(scores)
    np.testing.assert_array_equal(score_array(column), scores)
    assert column.isna().tolist() == [False, True, False]
    frame = pd.DataFrame({"id": list("abc"), "score": column})
    joined = pd.DataFrame({"id": list("cax")}).merge(frame, on="id", how="left")
    np.testing.assert_array_equal(known_scores(score_array(joined["score"])), [True, True, False])


@pytest.mark.parametrize("scores", [ONE, MANY])
def test_a_table_gives_back_its_scores(scores: np.ndarray, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    at = pd.Timestamp("2026-01-01", tz="UTC")
    known = scores[[0, 2]]
    rows = pd.DataFrame({"id": ["a", "c"], "time": at, "version": 1, "predicted_at": at, "origin": "t"})
    for _ in range(2):
        store.append("m", "predictions", rows.assign(score=score_column(known), raw_score=score_column(known)))
    read = store.frame("m", "predictions")
    np.testing.assert_array_equal(score_array(read["score"]), np.concatenate([known, known]))
    np.testing.assert_array_equal(score_array(own_scores(read)), np.concatenate([known, known]))
    assert score_arrow(known).to_pylist() == known.tolist()


def test_a_table_of_one_kind_of_scores_refuses_the_other(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    at = pd.Timestamp("2026-01-01", tz="UTC")
    rows = pd.DataFrame({"id": ["a"], "time": at, "version": 1, "predicted_at": at, "origin": "t"})
    store.append("m", "predictions", rows.assign(score=0.5))
    with pytest.raises(DataError, match="column score holds list"):
        store.append("m", "predictions", rows.assign(score=score_column(MANY[:1])))


def test_scores_of_other_classes_are_not_mixed() -> None:
    with pytest.raises(DataError, match="the scores are of 2 and 3 classes"):
        score_array(pd.Series([[0.5, 0.5], [0.2, 0.3, 0.5]], dtype=object))


def test_what_estimators_give_becomes_scores_of_all_classes() -> None:
    two = np.array([[0.3, 0.7]])
    np.testing.assert_array_equal(class_scores(two, [0, 1]), [0.7])
    np.testing.assert_array_equal(class_scores(two, [1, 0]), [0.3])
    np.testing.assert_array_equal(class_scores(two, [0, 2], 3), [[0.3, 0.0, 0.7]])  # a fold that lacks a class
    np.testing.assert_array_equal(class_scores(two, [0, 2]), [[0.3, 0.0, 0.7]])
    three = np.array([[0.2, 0.3, 0.5]])
    np.testing.assert_array_equal(class_scores(three, [2, 0, 1]), [[0.3, 0.5, 0.2]])
    with pytest.raises(DataError, match="2 probabilities a row for 3 classes"):
        class_scores(two, [0, 1, 2])


def test_answers_and_faults_of_rows() -> None:
    scores = np.array([[0.2, 0.5, 0.3], [0.6, 0.2, 0.1], [0.5, 0.6, -0.1]])
    np.testing.assert_array_equal(improbable(scores), [False, True, True])
    np.testing.assert_array_equal(likeliest(scores), [1, 0, 1])
    np.testing.assert_array_equal(of_truth(scores, np.array([2.0, 0.0, 1.0])), [0.3, 0.6, 0.6])
    np.testing.assert_array_equal(improbable(np.array([0.5, 1.2, np.nan])), [False, True, True])
    np.testing.assert_allclose(of_truth(np.array([0.3, 0.3]), np.array([1.0, 0.0])), [0.3, 0.7])
