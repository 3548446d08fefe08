"""`python -m tasks.upgrade.measuring REQUEST ANSWER`: what one model answers with the packages of this very process.

Run once by the Python of now and once by that of a new lock. It reads tables and files, and writes its answer alone:
no registry is opened, whose database another MLflow would change.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from perennial.surroundings import collect_seldom

_SCORE = "_score"


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Golden rows, one fit and a short backtest; each its figures, or `problem` with the reason why there are none."""
    from perennial.definition import load_definition

    definition = load_definition(Path(request["definition"]))
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "golden": lambda: _golden(request, definition),
        "fit": lambda: _fit(request, definition),
        "backtest": lambda: _backtest(request, definition),
    }
    return {name: _told(part) for name, part in parts.items() if name in request["parts"]}


def _told(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return part()
    except Exception as error:  # noqa: BLE001 - whatever a library of another version raises is what is asked for
        return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}


def _golden(request: dict[str, Any], definition: Any) -> dict[str, Any]:
    """What the stored champion answers to its golden rows, and what it answered when it was registered."""
    from perennial.model.artifacts import load_model
    from perennial.model.scores import score_array

    training = definition.training
    pipeline = load_model(
        Path(request["model"]), digest=request["digest"], trusted=training.trusted_types,
        allow_pickle=training.allow_pickle,
    )  # fmt: skip
    golden = _rows(request)
    return {
        "scores": _answers(pipeline, golden, definition),
        "recorded": score_array(golden[_SCORE]).tolist(),
    }


def _fit(request: dict[str, Any], definition: Any) -> dict[str, Any]:
    """What a model says to the golden rows that is fitted here, by the champion's parameters, on the newest rows."""
    from perennial.state.store import Store
    from perennial.state.tables import ROW_TIME, ROW_TRUTH
    from tasks.learning.fitting import fit
    from tasks.rows.classes import known_coding, of_codes
    from tasks.rows.frames import labelled_rows

    store, as_of = Store(request["tables"]), datetime.fromisoformat(request["as_of"])
    coding = known_coding(store, definition)
    data = labelled_rows(store, definition, as_of=as_of)
    named = {ROW_TIME: definition.data.time, ROW_TRUTH: definition.data.target}
    frame = data.frame.tail(int(request["fit_rows"])).rename(columns=named).reset_index(drop=True)
    encoded = of_codes(definition, coding.classes)
    fitted = fit(encoded, frame, request["parameters"], definition.training.seed)
    return {"scores": _answers(fitted.pipeline, _rows(request), definition), "rows": len(frame)}


def _backtest(request: dict[str, Any], definition: Any) -> dict[str, Any]:
    """The last windows under the model's own policy: its loss and each check's verdict."""
    import pandas as pd

    from perennial.state.store import Store
    from tasks.backtest.comparison import run_backtest
    from tasks.backtest.past import load_past
    from tasks.backtest.policies import Candidate

    past = load_past(Store(request["tables"]), definition, until=datetime.fromisoformat(request["as_of"]))
    every: timedelta = definition.monitoring.window
    newest = pd.Timestamp(past.times[np.flatnonzero(np.isfinite(past.truth))[-1]], unit="us", tz="UTC")
    start = newest.to_pydatetime() - int(request["windows"]) * every
    own = Candidate("own", "own", definition.monitoring)
    found = run_backtest(past, (own,), every=every, start=start, parameters=request["parameters"], jobs=1)
    result = found.result("own")
    return {
        "loss": result.loss, "name": found.loss, "windows": found.windows, "rows": found.rows,
        "verdicts": [decision.verdict for decision in found.decisions["own"]], "promoted": result.promoted,
    }  # fmt: skip


def _rows(request: dict[str, Any]) -> Any:
    import pandas as pd

    return pd.read_parquet(request["golden"])


def _answers(pipeline: Any, golden: Any, definition: Any) -> list[Any]:
    from perennial.model.known import stored_frame
    from tasks.learning.fitting import predict_score

    frame = stored_frame(golden.drop(columns=_SCORE), definition.features, pipeline)
    answers: list[Any] = np.asarray(predict_score(pipeline, frame, definition.task)).tolist()
    return answers


def main() -> None:
    warnings.filterwarnings("ignore")  # of versions that differ: that they do is what is looked at
    request, answer = (Path(argument) for argument in sys.argv[1:3])
    answer.write_text(json.dumps(measure(json.loads(request.read_text(encoding="utf-8")))), encoding="utf-8")


if __name__ == "__main__":
    collect_seldom()
    main()
