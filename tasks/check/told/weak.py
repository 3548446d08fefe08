"""The search for weak segments on a check's mature rows, each beside what it was at promotion. It blocks nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.definition import Segments
from perennial.model.scores import known_scores, score_array
from perennial.state.tables import ROW_ID
from tasks.check.inputs import Aside, mature_rows
from tasks.check.reference import Reference
from tasks.measures.quality import MeanLoss, mean_loss, row_losses
from tasks.measures.segments import MOST_TOLD, Levels, Segment, make_levels, search

LEAST_ROWS = 30


def look_for_segments(reference: Reference, aside: Aside, wanted: Segments, joined: pd.DataFrame) -> dict[str, Any]:
    """Segments of the mature rows whose loss is surely higher than elsewhere, cut as the training's columns are."""
    nothing: dict[str, Any] = {
        "looked_at": 0,
        "columns": wanted.columns,
        "metric": reference.loss,
        "found": [],
        "of": 0,
    }
    rows = with_features(joined, aside)
    if rows is None or aside.sample is None or len(rows) < 2 * wanted.minimum_rows:
        return nothing | {"rows": 0 if rows is None else len(rows)}
    names = wanted.among or (*reference.numeric, *reference.categorical)
    levels = make_levels(aside.sample[[name for name in names if name in aside.sample and name in rows]])
    losses = row_losses(rows["truth"].to_numpy(dtype=np.float64), score_array(rows["score"]), reference.loss)
    found = search(
        losses, rows, levels, columns=wanted.columns, minimum_rows=wanted.minimum_rows, confidence=wanted.confidence
    )
    told = found.to_dict(reference.loss, wanted.columns)
    for item, segment in zip(told["found"], found.found[:MOST_TOLD], strict=True):
        item["at_promotion"] = _before(reference, aside, levels, segment)
    return told | {"rows": len(rows), "confidence": wanted.confidence}


def with_features(joined: pd.DataFrame, aside: Aside) -> pd.DataFrame | None:
    """The mature rows that can be judged, in order of time, with what is known of their features."""
    if aside.mature_features is None:
        return None
    features = aside.mature_features.drop_duplicates(ROW_ID).rename(columns={ROW_ID: "id"})
    kept = [name for name in mature_rows(joined).columns if name == "id" or name not in features]
    return mature_rows(joined)[kept].merge(features, on="id", how="inner")


def promotion_loss(reference: Reference, aside: Aside, inside: NDArray[np.bool_]) -> MeanLoss | None:
    """The mean loss at promotion of some of the sample's rows; None of too few that were judged."""
    assert aside.sample is not None
    rows = aside.sample[inside]
    if "_score" not in rows or aside.target not in rows:
        return None
    truth = pd.to_numeric(rows[aside.target], errors="coerce").to_numpy(dtype=np.float64)
    known = rows["_score"].notna().to_numpy() & np.isfinite(truth)
    if int(known.sum()) < LEAST_ROWS:
        return None
    score = score_array(rows["_score"][known])
    sure = known_scores(score)
    return mean_loss(row_losses(truth[known][sure], score[sure], reference.loss))


def _before(reference: Reference, aside: Aside, levels: tuple[Levels, ...], segment: Segment) -> dict[str, Any] | None:
    assert aside.sample is not None
    known = {each.column: each for each in levels}
    parts = [known[column].codes(aside.sample[column]) == code for column, code in segment.parts]
    found = promotion_loss(reference, aside, np.logical_and.reduce(parts))
    if found is None:
        return None
    low, high = found.interval()
    return {"loss": found.mean, "low": low, "high": high, "rows": found.rows}
