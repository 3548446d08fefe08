"""What people's reviews are to a check: which rows may stand for all where few labels come. No measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class ReviewBasis:
    """What was drawn at random for review.

    Attributes:
        drawn: Of each such row, answered or not, for how many rows of its day it stands.
        left_out: Labels that are known only because their row was chosen, by margin or as unfamiliar: they are not
            among the check's labels.
    """

    drawn: Mapping[str, float]
    left_out: int = 0


def on_random_share(
    rows: pd.DataFrame, basis: ReviewBasis | None, minimum_coverage: float, minimum_rows: int
) -> pd.DataFrame:
    """The mature predictions that judge: all of them, or, where too few have labels, those drawn at random for review.

    Who was drawn does not depend on the row, so that those stand for all, and what has to be covered is them alone.

    Args:
        rows: With `id` and `truth`, NaN where there is none.
        minimum_coverage: The least share with a truth for all rows to judge.
        minimum_rows: So many truths of drawn rows there must be for them to judge instead.

    Returns:
        Rows with `drawn`, and with `weight`, for how many each stands, only where the drawn ones judge. A weight that
        rows have already is multiplied.
    """
    if basis is None or not len(rows) or rows["truth"].notna().mean() >= minimum_coverage:
        return rows
    weights = rows["id"].map(dict(basis.drawn))
    drawn = weights.notna()
    if int((drawn & rows["truth"].notna()).sum()) < minimum_rows:
        return rows
    stand_for = weights[drawn].astype(np.float64) * (rows["weight"][drawn] if "weight" in rows.columns else 1.0)
    return rows[drawn].assign(weight=stand_for, drawn=True).reset_index(drop=True)


def facts(basis: ReviewBasis | None, rows: pd.DataFrame) -> dict[str, Any] | None:
    """For the record: what judged, and how many labels were left out; None of a model without reviews."""
    if basis is None:
        return None
    judges = "drawn" in rows.columns
    return {"random_share_judges": judges, "drawn": len(rows) if judges else 0, "left_out": basis.left_out}


def sentences(known: Mapping[str, Any] | None) -> list[str]:
    """The same for people."""
    told = []
    if known and known["left_out"]:
        told.append(
            f"{known['left_out']} labels are left out: their rows were chosen for review by margin or as unfamiliar, "
            "and are not like the others"
        )
    if known and known["random_share_judges"]:
        told.append(
            f"few labels come by themselves: the {known['drawn']} rows drawn at random for review stand for all"
        )
    return told
