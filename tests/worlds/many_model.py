"""The small model's images with more than two classes: how many loops has the digit, and which digit is it?"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from small_model import RAW, day, merge, rows

LOOPS = ("none", "one", "two")
_LOOPS = {0: "one", 4: "one", 6: "one", 9: "one", 8: "two"}
MANY: dict[str, Any] = merge(
    {key: value for key, value in RAW.items() if key != "gate"},
    {
        "name": "loops",
        "classes": list(LOOPS),
        "data": {"target": "loops"},
        "training": {
            "estimator": "hist_gradient_boosting",
            "parameters": {"max_iter": 60, "min_samples_leaf": 8, "learning_rate": 0.15},
            "tuning": {"trials": 2},
        },
        "gate": {"minimum_rows": 50, "slices": ["shade"], "slice_minimum_rows": 30},
    },
)


@cache
def _targets() -> dict[str, np.ndarray]:
    digits = load_digits().target
    return {"loops": np.array([_LOOPS.get(digit, "none") for digit in digits]), "digit": digits}


def many_rows(first: float = 0, last: float = 100) -> pd.DataFrame:
    """The images of the days [first, last) with `loops` (none, one, two) and `digit` (0 to 9)."""
    found = rows(first, last).drop(columns="even")
    start = len(rows(0, first))
    return found.assign(**{name: values[start : start + len(found)] for name, values in _targets().items()})


__all__ = ["LOOPS", "MANY", "day", "many_rows"]
