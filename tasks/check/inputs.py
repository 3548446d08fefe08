"""What a check is given, and its mature predictions joined with their truth. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.definition import GatePolicy, Monitoring, Segments
from perennial.errors import DataError
from perennial.model.answers.intervals import Intervals
from perennial.model.scores import known_scores, own_scores, score_array, score_column
from tasks.calibration.fit import Recalibrator
from tasks.check.complaints.complaint import read_complaints
from tasks.check.complaints.masks import is_refused
from tasks.check.health import Freshness
from tasks.check.history import RECENT_WINDOWS, read_history
from tasks.check.reference import Reference
from tasks.check.window import WindowFacts, read_facts
from tasks.measures.profiles import microseconds
from tasks.measures.propensity import Experiment
from tasks.measures.quality import AGES, complete_ages
from tasks.review.basis import ReviewBasis, on_random_share

Floats = NDArray[np.float64]

MOST_MATURE_WINDOWS = 12
LEAST_COVERAGE = 0.1


@dataclass(frozen=True)
class Aside:
    """What a check reads to tell more than it decides by. Each column's statistics are told wherever this is given.

    Attributes:
        window: Features of the window's rows; of a large window, of an even sample.
        sample: Rows of the champion's training: features, `_score`, and the target of those that it was judged on.
        target: The target's column in `sample`.
        answer: What the champion answers to rows of features, shape (n,) or (n, k). It is loaded when it is called.
        slices: Columns whose values are looked at one by one.
        search: How weak segments are looked for; None looks nowhere.
        mature_features: `_id`, the slices and the columns that are searched, of the mature predictions; None where
            neither is asked for.
    """

    window: pd.DataFrame | None = None
    sample: pd.DataFrame | None = None
    target: str = ""
    answer: Callable[[pd.DataFrame], Floats] | None = None
    slices: tuple[str, ...] = ()
    search: Segments | None = None
    mature_features: pd.DataFrame | None = None


@dataclass(frozen=True)
class CheckInputs:
    """All that a check knows; the caller reads it as of the check's moment.

    Attributes:
        model: Its name.
        champion_version: The version judged.
        base_versions: Of each version the one that was trained, which differs from it by the score's map only; one that
            is absent is its own. Predictions and checks of versions of one base count as one model's.
        recalibrator: The map in force, from raw_score to score; None when there is none.
        reference: What that version was trained on.
        time: The time column of `window`.
        window: Features and time of rows with as_of - window ≤ time < as_of, any order; labels are not needed. Texts
            and images as they are, or described. Of a large one the facts of its parts, added up.
        predictions: Columns id, time, score, version: the champion's predictions of the window; may be empty.
        mature: Columns id, time, score, version and, where a map is in force, raw_score: logged predictions of the
            newest windows before as_of - label_delay, as many as `mature_windows` says; more do no harm. Where another
            model answered rows that the champion has not learned from, what the champion says to them, as its own.
        labels: Columns id, truth, labelled_at: known at as_of (later ones are ignored); of several for an id the
            newest counts.
        label_delay: How long until the truth is known.
        labelled_rows: How many labelled rows there are now from `reference.trained_from` on. With a sliding window of
            training, rows that have left it count too: growth is about how much is new, not how much is kept.
        freshness: What ingestion knows.
        ledger: Earlier rows, oldest first (tasks.check.history).
        past: As `mature`, but as they were logged, of the windows whose estimates have met their labels
            (tasks.check.estimate.record.past_windows); a sample per window will do. Without it, no estimate is trusted.
        intervals: What the champion's intervals promise; None where it answers none.
        window_features, mature_features: `_id` and features of a sample of the champion's predictions and of the
            mature ones, for the estimate of a regression's loss; a class needs none.
        holdout: A sample of what the champion was judged on before its promotion: features, `_score`, `_truth`.
            Estimates rest on it until there are mature labels.
        suspects: Time, `_id`, features and `_score` (as logged) of a sample of the rows that earlier checks complained
            of and whose truth is due by now (tasks.check.complaints.complaint.doubted_span). Without them a complaint
            that truth could judge is confirmed when its time is up.
        aside: What is told beside the verdict, where somebody reads it; None measures nothing of it.
        review: What was drawn at random for people's review; None of a model without reviews. Labels that are known
            only because their row was chosen for review are not in `labels`.
        experiment: Which rows were acted on while a control group was set; None of a model without one. Those judge
            nothing.
        gate: By which a new map would be judged.
        metric: The gate's; empty for the task's proper loss.
        seed: Of the gate's resampling.
    """

    model: str
    champion_version: str
    reference: Reference
    time: str
    window: pd.DataFrame | WindowFacts
    predictions: pd.DataFrame
    mature: pd.DataFrame
    labels: pd.DataFrame
    label_delay: timedelta
    labelled_rows: int
    freshness: Freshness = field(default_factory=Freshness)
    ledger: tuple[Mapping[str, Any], ...] = ()
    base_versions: Mapping[str, str] = field(default_factory=dict)
    recalibrator: Recalibrator | None = None
    gate: GatePolicy = field(default_factory=GatePolicy)
    metric: str = ""
    seed: int = 0
    past: pd.DataFrame | None = None
    intervals: Intervals | None = None
    window_features: pd.DataFrame | None = None
    mature_features: pd.DataFrame | None = None
    holdout: pd.DataFrame | None = None
    suspects: pd.DataFrame | None = None
    review: ReviewBasis | None = None
    experiment: Experiment | None = None
    aside: Aside | None = None

    @property
    def versions(self) -> frozenset[str]:
        """The champion's version and those of the same model."""
        base = self.base_of(self.champion_version)
        return frozenset((self.champion_version, *(name for name in self.base_versions if self.base_of(name) == base)))

    def base_of(self, version: str) -> str:
        return self.base_versions.get(version, version)


def mature_windows(policy: Monitoring, count: Callable[[int], tuple[int, int]]) -> int:
    """How many of the newest mature windows a check is given: the policy's, or more where those have too few rows.

    Args:
        count: Of so many windows the rows that could judge the champion, and how many of them have their truth.
    """
    windows = policy.mature_windows
    rows, known = count(windows)
    while rows and windows < MOST_MATURE_WINDOWS and not suffice(policy, rows, known):
        windows += 1
        rows, known = count(windows)
    return windows


def judged_since(rows: pd.DataFrame, known: NDArray[np.bool_], end: pd.Timestamp, policy: Monitoring) -> pd.Timestamp:
    """The start of the newest window, or of as many as it takes where windows have few rows.

    Older rows by themselves judge nothing again. Where a control group is set, it is one window: how large the group
    would have to be is told instead.

    Args:
        rows: Columns time and, with a control group, weight; before `end`.
        known: Shape (n,): which of them can judge.
    """
    start = end - policy.window
    while "weight" not in rows:
        inside = (rows["time"] >= start).to_numpy()
        if (
            inside.all()
            or not (known & inside).any()
            or suffice(policy, int(inside.sum()), int((known & inside).sum()))
        ):
            break
        start -= policy.window
    return start


def suffice(policy: Monitoring, rows: int, known: int) -> bool:
    """Whether rows are enough to judge, or so many that what is missing is their truth: that older rows don't mend."""
    return known >= policy.minimum_rows or rows * max(policy.minimum_coverage, LEAST_COVERAGE) >= policy.minimum_rows


def join_labels(inputs: CheckInputs, policy: Monitoring, as_of: datetime) -> pd.DataFrame:
    """The champion's mature predictions with the newest truth known at `as_of`, NaN where none is; in order of time.

    `score` is what the map in force makes of the raw score: what the champion would answer now. `labelled` says whether
    a row has a label, and `refused` whether the check before left a complaint standing against it; the truth of rows
    too young to have all of theirs is left out, since those that come first are not like the others.
    """
    return join_with_past(inputs, policy, as_of)[0]


def join_with_past(
    inputs: CheckInputs, policy: Monitoring, as_of: datetime
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The mature predictions of `join_labels`, and `inputs.past` with its truth, and `refused` as there."""
    mine = inputs.mature[inputs.mature["version"].astype(str).isin(inputs.versions)]
    both = mine if inputs.past is None else pd.concat([mine, inputs.past], ignore_index=True)
    known = inputs.labels[inputs.labels["labelled_at"] <= pd.Timestamp(as_of)]
    known = known.sort_values("labelled_at", kind="stable")
    raw = own_scores(both)
    truth = newest_truth(both["id"], known["id"], known["truth"].to_numpy(dtype=np.float64))
    doubted = is_refused(both["time"], read_complaints(read_history(inputs.ledger, as_of).decisions))
    both = both.assign(raw_score=raw, truth=truth, refused=doubted)
    past = None if inputs.past is None else left_alone(both.iloc[len(mine) :], inputs.experiment)
    joined = both.iloc[: len(mine)].sort_values("time", kind="stable", ignore_index=True)
    joined = left_alone(joined, inputs.experiment)
    joined = on_random_share(joined, inputs.review, policy.minimum_coverage, policy.minimum_rows)
    if past is not None and "drawn" in joined.columns:
        past = on_random_share(past, inputs.review, policy.minimum_coverage, 0)
    raw = joined["raw_score"]
    score = raw
    if inputs.recalibrator:
        score = score_column(inputs.recalibrator.apply(score_array(raw)), joined.index)
    end, length = pd.Timestamp(as_of - inputs.label_delay), policy.window / AGES
    labelled = joined["truth"].notna()
    complete = complete_ages(
        microseconds(joined["time"]),
        labelled.to_numpy(),
        int(end.as_unit("ns").value // 1000),
        round(length.total_seconds() * 1e6),
        _reached(past, policy),
    )
    joined = joined.assign(score=score, labelled=labelled, truth=joined["truth"].where(complete))
    return joined, past


def left_alone(rows: pd.DataFrame, experiment: Experiment | None) -> pd.DataFrame:
    """Of predictions those on which nobody acted, with `weight`, for how many each stands; all without a control group.

    Outcomes of the others are what acting made of them, and say nothing of how good the prediction was.
    """
    if experiment is None:
        return rows
    weights = experiment.weights(rows["id"], rows["time"])
    return rows.assign(weight=weights)[weights > 0].reset_index(drop=True)


def _reached(past: pd.DataFrame | None, policy: Monitoring) -> float:
    """The greatest share of labels that one of the newest windows of the past has by now; 0 where none is known."""
    if past is None:
        return 0.0
    age = ((past["time"].max() - past["time"]) // policy.window).to_numpy(dtype=np.int64)
    recent = age < RECENT_WINDOWS
    rows = np.bincount(age[recent], minlength=RECENT_WINDOWS)
    labelled = np.bincount(age[recent & past["truth"].notna().to_numpy()], minlength=RECENT_WINDOWS)
    enough = rows >= max(policy.minimum_rows, 1)
    return float((labelled[enough] / rows[enough]).max(initial=0.0))


def newest_truth(wanted: pd.Series[Any], ids: pd.Series[Any], truth: Floats) -> Floats:
    """Each wanted id's last truth, NaN where it has none; ids are hashed once, which a merge does three times."""
    codes, names = pd.factorize(pd.concat([wanted.astype("str"), ids.astype("str")], ignore_index=True))
    newest = np.full(len(names), np.nan)
    newest[codes[len(wanted) :]] = truth
    return newest[codes[: len(wanted)]]


def with_facts(inputs: CheckInputs) -> CheckInputs:
    """The same, with the facts of its window in place of rows; with statistics where they are told.

    Raises:
        DataError: A frame lacks a column that is read.
    """
    require_columns(inputs)
    if isinstance(inputs.window, WindowFacts):
        return inputs
    facts = read_facts(inputs.reference, inputs.window, inputs.time, statistics=inputs.aside is not None)
    return replace(inputs, window=facts)


def require_columns(inputs: CheckInputs) -> None:
    wanted = {
        **({} if isinstance(inputs.window, WindowFacts) else {"window": (inputs.window, [inputs.time])}),
        "predictions": (inputs.predictions, ["id", "time", "score", "version"]),
        "mature": (inputs.mature, ["id", "time", "score", "version"]),
        "labels": (inputs.labels, ["id", "truth", "labelled_at"]),
    }
    for name, (frame, columns) in wanted.items():
        if absent := [column for column in columns if column not in frame]:
            raise DataError(f"the check's {name} lack {', '.join(absent)}", f"Give {', '.join(columns)}")


def mature_rows(joined: pd.DataFrame) -> pd.DataFrame:
    """The rows of `join_labels` that have both truth and score, and that no complaint stands against."""
    known = np.isfinite(joined["truth"].to_numpy(dtype=np.float64))
    known &= known_scores(score_array(joined["score"]))
    known &= ~joined["refused"].to_numpy(dtype=bool)
    rows: pd.DataFrame = joined[known].reset_index(drop=True)
    return rows


def labelled_scores(joined: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Truth, raw score and answered score of the rows that have all of them."""
    rows = mature_rows(joined)
    return rows["truth"].to_numpy(dtype=np.float64), score_array(rows["raw_score"]), score_array(rows["score"])
