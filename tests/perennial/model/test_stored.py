"""Models stored before a change of the tree load after it: the names of types in them are an interface."""

from __future__ import annotations

import base64
import importlib
import json
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import skops.io

from perennial.model import calibrated, transformers
from perennial.model.transformers import TRUSTED_TYPES

STORED = Path(__file__).parent / "stored_models"  # written by version 0.1.0, when the classes lay at these addresses


def _golden() -> tuple[pd.DataFrame, list[float]]:
    golden = json.loads((STORED / "golden.json").read_text(encoding="utf-8"))
    rows = pd.DataFrame(golden["rows"])
    rows["picture"] = [base64.b64decode(text) for text in rows["picture"]]
    return rows.astype({"empty": "float64"}), golden["scores"]


@pytest.mark.parametrize("stored", ["model.skops", "model.pkl"])
def test_a_model_stored_before_loads_and_answers_as_it_did(stored: str) -> None:
    path = STORED / stored
    model: Any = (
        skops.io.load(path, trusted=list(TRUSTED_TYPES))
        if path.suffix == ".skops"
        else cloudpickle.loads(path.read_bytes())
    )
    rows, scores = _golden()
    assert isinstance(model, calibrated.Recalibrated)
    np.testing.assert_allclose(model.predict_proba(rows)[:, 1], scores, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "kind",
    [transformers.EmptyColumns, transformers.TextVectors, transformers.ImageStatistics, calibrated.Recalibrated],
)
def test_what_is_stored_now_names_the_stable_address(kind: type) -> None:
    address = f"{kind.__module__}.{kind.__qualname__}"
    assert address in TRUSTED_TYPES
    assert not address.startswith("perennial.model.")
    assert getattr(importlib.import_module(kind.__module__), kind.__qualname__) is kind
