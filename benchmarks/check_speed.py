"""What a check costs in CPU seconds: whole, and its drift part beside Evidently's default preset.

    python benchmarks/check_speed.py [--rows 6000 1000000] [--evidently-rows 100000] [--stream-rows 0]
        [--described-rows 1000] [--json FILE]

Frames have 20 columns (15 numbers, 5 categories) with some values missing. The preset's time grows with the rows, so
by default it is measured at 100,000 rows, and at the full size with `--evidently-rows 1000000`. `--stream-rows
10000000` profiles that many rows in pieces and reports the process's peak memory. `--described-rows` gives a window
of that many rows ten columns of texts (scikit-learn's descriptions, about 220 characters) and two of photographs (JPEG
of 256 × 256 pixels), and measures its check beside the same without them, and each text and image by itself.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from perennial.definition import Monitoring
from perennial.state.tables import ROW_ID
from tasks.check.decision import CheckInputs, check
from tasks.check.drift import measure_drift
from tasks.check.estimate.estimates import FEATURE_ROWS, sample_ids
from tasks.check.estimate.record import PAST_WINDOWS, past_rows
from tasks.check.evidence import gather
from tasks.check.health import Freshness
from tasks.check.history import read_history
from tasks.check.inputs import Aside
from tasks.check.reference import Reference, build_reference
from tasks.measures.described.columns import describe
from tasks.measures.profiles import Profile, microseconds, profile

START = datetime(2024, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
NUMERIC = tuple(f"number_{i}" for i in range(15))
CATEGORICAL = tuple(f"category_{i}" for i in range(5))
TEXT = tuple(f"text_{i}" for i in range(10))
IMAGE = ("photo", "drawing")
REFERENCE_ROWS = 80_000
PIECE_ROWS = 500_000


def make_frame(rows: int, start: datetime, length: timedelta, seed: int) -> pd.DataFrame:
    """Rows evenly over the time, 1 % of each column missing."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.random(rows)) * length.total_seconds()
    frame: dict[str, Any] = {
        "time": pd.Series(pd.Timestamp(start) + pd.to_timedelta(seconds, unit="s")).astype("datetime64[us, UTC]")
    }
    for i, name in enumerate(NUMERIC):
        values = rng.normal(i, 1 + i, rows) if i % 3 else rng.exponential(1 + i, rows)
        frame[name] = np.where(rng.random(rows) < 0.01, np.nan, values)
    for i, name in enumerate(CATEGORICAL):
        words = pd.Index([f"value {j}" for j in range(4 + 20 * i)])
        frame[name] = pd.Series(words.take(rng.integers(0, len(words), rows)).astype("str"))
    return pd.DataFrame(frame)


def make_inputs(reference: Reference, rows: int, as_of: datetime) -> CheckInputs:
    """A full check: features, predictions, a mature window with all its labels, and twelve weeks of past estimates."""
    rng = np.random.default_rng(1)
    window = make_frame(rows, as_of - WEEK, WEEK, 2)
    chance = rng.beta(2, 5, rows)
    ids = pd.Series(np.arange(rows)).astype("str")
    logged = pd.DataFrame({"id": ids, "time": window["time"], "score": chance, "version": "1"})
    labels = pd.DataFrame({"id": ids, "truth": (rng.random(rows) < chance).astype(float)})
    ledger = [past_check(as_of - week * WEEK) for week in range(PAST_WINDOWS, 0, -1)]
    past = past_rows(
        read_history(ledger, as_of), WEEK, as_of - WEEK,
        lambda _, end: logged.assign(time=logged["time"] - (as_of - end)),
    )  # fmt: skip
    features = window.assign(**{ROW_ID: ids}).iloc[sample_ids(ids, FEATURE_ROWS)]
    return CheckInputs(
        model="speed",
        champion_version="1",
        reference=reference,
        time="time",
        window=window,
        predictions=logged,
        mature=logged.assign(time=logged["time"] - WEEK),
        labels=labels.assign(labelled_at=pd.Timestamp(as_of)),
        label_delay=WEEK,
        labelled_rows=REFERENCE_ROWS,
        freshness=Freshness(latest_event=window["time"].max().to_pydatetime()),
        ledger=tuple(ledger),
        past=past,
        window_features=features,
        mature_features=features,
        aside=Aside(),
    )


def past_check(at: datetime) -> dict[str, Any]:
    """What an earlier check left in the ledger, as far as an estimate's record reads it."""
    estimate = {"value": 0.6, "promotion": 0.6, "recent": 0.6, "versions": ["1"], "map": None}
    evidence = {"window_start": (at - WEEK).isoformat(), "estimate": estimate, "judged": False, "window": None}
    return {"kind": "decision", "decision_id": at.isoformat(), "as_of": at.isoformat(), "champion_version": "1",
            "verdict": "hold", "signals": [], "evidence": evidence}  # fmt: skip


def cpu(function: Any, repeats: int = 3) -> float:
    """The least CPU seconds of some runs."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        function()
        taken.append(time.process_time() - began)
    return min(taken)


def measure_check(reference: Reference, rows: int) -> dict[str, float]:
    """CPU seconds of the whole check and of its drift part: profile of the window, distances, limits."""
    as_of = START + 14 * WEEK
    inputs, policy = make_inputs(reference, rows, as_of), Monitoring(window=WEEK)
    gather(inputs, policy, read_history(inputs.ledger, as_of), as_of, "-")
    whole = cpu(lambda: check(inputs, policy, as_of=as_of), 3 if rows < 100_000 else 1)
    drift = cpu(lambda: drift_part(reference, inputs.window), 3)
    return {"check_cpu_seconds": whole, "drift_cpu_seconds": drift}


def drift_part(reference: Reference, window: pd.DataFrame) -> None:
    """What the check does for drift, by itself."""
    made = profile(window, microseconds(window["time"]), reference.profile.columns, 86_400.0)
    measure_drift(reference.profile, reference.null, made.counts.sum(axis=0), reference.importance, 0.01)


def evidently_part(reference: pd.DataFrame, window: pd.DataFrame) -> None:
    """Evidently's default drift preset on the same frames."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=list(NUMERIC), categorical_columns=list(CATEGORICAL))
    sides = [Dataset.from_pandas(side.drop(columns="time"), definition) for side in (window, reference)]
    Report([DataDriftPreset()]).run(*sides).json()


def measure_stream(reference: Reference, rows: int) -> dict[str, float]:
    """Profile rows piece by piece; the pieces are made as they are read."""
    merged: Profile | None = None
    spent = 0.0
    for number in range(0, rows, PIECE_ROWS):
        piece = make_frame(min(PIECE_ROWS, rows - number), START + 14 * WEEK, WEEK, number)
        began = time.process_time()
        made = profile(piece, microseconds(piece["time"]), reference.columns, 86_400.0)
        merged = made if merged is None else merged.merge(made)
        spent += time.process_time() - began
    assert merged is not None
    assert merged.rows == rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": rows, "cpu_seconds": spent, "peak_megabytes": peak}


def describable(rows: int, seed: int) -> pd.DataFrame:
    """Ten columns of texts and two of photographs, drawn from a few hundred of each."""
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_sample_images, load_wine

    rng = np.random.default_rng(seed)
    told = " ".join(loader().DESCR for loader in (load_breast_cancer, load_diabetes, load_digits, load_wine)).split()
    texts = np.array([" ".join(told[at : at + 34]) for at in range(0, len(told) - 34, 7)], dtype=object)
    files = np.empty(100, dtype=object)
    for number in range(len(files)):
        whole = load_sample_images().images[number % 2]
        top, left = (int(rng.integers(0, length - 256)) for length in whole.shape[:2])
        made = io.BytesIO()
        Image.fromarray(whole[top : top + 256, left : left + 256]).save(made, "JPEG", quality=85)
        files[number] = made.getvalue()
    columns: dict[str, Any] = {name: pd.Series(rng.choice(texts, rows), dtype="str") for name in TEXT}
    return pd.DataFrame(columns | {name: pd.Series(rng.choice(files, rows), dtype=object) for name in IMAGE})


def measure_described(rows: int) -> dict[str, float]:
    """CPU seconds of a check with and without texts and images, and of one of each."""
    training = make_frame(3 * rows, START, 13 * WEEK, 0)
    rich = pd.concat([training, describable(len(training), 0)], axis=1)
    as_of, policy = START + 14 * WEEK, Monitoring(window=WEEK)
    common: dict[str, Any] = {
        "time": "time", "task": "classification", "loss": "log_loss", "window_seconds": WEEK.total_seconds(),
        "numeric": NUMERIC, "categorical": CATEGORICAL, "holdout_loss": 0.6, "holdout_error": 0.01,
    }  # fmt: skip
    with_them = build_reference(rich, **common, text=TEXT, image=IMAGE)
    found = {}
    for name, reference in (("plain", build_reference(training, **common)), ("described", with_them)):
        inputs = make_inputs(reference, rows, as_of)
        if name == "described":
            inputs = replace(inputs, window=pd.concat([inputs.window, describable(rows, 1)], axis=1))
        check(inputs, policy, as_of=as_of)
        found[name] = cpu(lambda given=inputs: check(given, policy, as_of=as_of))
    sample = describable(rows, 2)
    texts, images = ([item for item in with_them.watched if item.kind == kind] for kind in ("text", "image"))
    found["text"] = cpu(lambda: describe(sample, texts)) / (rows * len(texts))
    found["image"] = cpu(lambda: describe(sample, images)) / (rows * len(images))
    return found


def main() -> None:
    arguments = _arguments()
    warnings.simplefilter("ignore")
    training = make_frame(REFERENCE_ROWS, START, 13 * WEEK, 0)
    began = time.process_time()
    reference = build_reference(
        training,
        time="time",
        task="classification",
        loss="log_loss",
        window_seconds=WEEK.total_seconds(),
        numeric=NUMERIC,
        categorical=CATEGORICAL,
        holdout_loss=0.6,
        holdout_error=0.01,
    )
    result: dict[str, Any] = {"reference_cpu_seconds": time.process_time() - began}
    print(f"reference of {REFERENCE_ROWS} rows, once per champion: {result['reference_cpu_seconds']:.2f} s CPU")
    result["checks"] = {str(rows): measure_check(reference, rows) for rows in arguments.rows}
    values = replace(reference, task="regression", loss="mse")
    result["regression_checks"] = {str(rows): measure_check(values, rows) for rows in arguments.rows}
    for task, checks in (("class", result["checks"]), ("value", result["regression_checks"])):
        for rows, row in checks.items():
            seconds = f"{row['check_cpu_seconds']:.3f} s CPU, drift {row['drift_cpu_seconds']:.3f} s"
            print(f"check of {rows} rows of a model that answers a {task}: {seconds}")
    if arguments.described_rows:
        told = result["described"] = measure_described(arguments.described_rows)
        print(
            f"check of {arguments.described_rows} rows with {len(TEXT)} texts and {len(IMAGE)} images: "
            f"{told['described']:.3f} s CPU, without them {told['plain']:.3f} s; "
            f"{told['text'] * 1e6:.0f} µs a text, {told['image'] * 1e3:.2f} ms an image"
        )
    if arguments.stream_rows:
        result["stream"] = measure_stream(reference, arguments.stream_rows)
        print(f"streamed: {result['stream']}")
    if arguments.evidently_rows:
        window = make_frame(arguments.evidently_rows, START + 13 * WEEK, WEEK, 2)
        ours = cpu(lambda: drift_part(reference, window))
        evidently_part(training[:1000], window[:1000])
        theirs = cpu(lambda: evidently_part(training, window), 1)
        result["evidently"] = {
            "rows": arguments.evidently_rows,
            "drift_cpu_seconds": ours,
            "preset_cpu_seconds": theirs,
            "ratio": theirs / ours,
        }
        print(f"drift of {len(window)} rows: ours {ours:.3f} s, preset {theirs:.1f} s CPU: {theirs / ours:.0f} ×")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[6_000, 1_000_000])
    parser.add_argument("--evidently-rows", type=int, default=100_000, help="0 leaves Evidently out")
    parser.add_argument("--stream-rows", type=int, default=0)
    parser.add_argument("--described-rows", type=int, default=1_000, help="0 leaves texts and images out")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
