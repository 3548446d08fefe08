"""A set replayed window by window: what a check would have been given at each moment. No policy is judged here."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.definition import Data, Features, GatePolicy, ModelDefinition, Monitoring, Source
from perennial.model.scores import score_column, shares
from perennial.state.tables import ROW_ID
from prequential.scores import MaskedScores, ScoreMatrix
from prequential.sets import DriftingSet, Floats
from tasks.check.complaints.complaint import doubted_span, read_complaints
from tasks.check.complaints.masks import is_refused, refusal_name, sound_rows, without_refused
from tasks.check.decision import CheckInputs, Decision
from tasks.check.estimate.estimates import FEATURE_ROWS
from tasks.check.estimate.record import past_rows
from tasks.check.health import Freshness
from tasks.check.history import read_history
from tasks.check.inputs import mature_windows
from tasks.check.reference import Reference, build_reference
from tasks.measures.profiles import microseconds
from tasks.measures.quality import mean_loss, row_losses

WEEK = timedelta(days=7)


class Replay:
    """One set on a clock of equal windows.

    Real times are kept where the windows are equally long; else each window is spread evenly over one week, in order.

    Args:
        data: The set.
        matrix: Every model's scores.
        label_delay: After how many windows a window's labels are known; 0 means at its end.
    """

    def __init__(self, data: DriftingSet, matrix: ScoreMatrix, label_delay: int) -> None:
        self.data, self.matrix, self.label_delay = data, matrix, label_delay
        self.loss = "log_loss" if data.task == "classification" else "mse"
        self.first = np.array([data.first_row(w) for w in range(data.windows + 1)])
        times, self.window, self.origin = _clock(data, self.first)
        self.frame = data.features.assign(time=times)
        self.ids = pd.Series(np.arange(len(times))).astype("str")
        self.micros = microseconds(self.frame["time"])
        self.learned = self.frame
        self.references: dict[int, Reference] = {}

    @property
    def task(self) -> Any:
        return self.data.task

    def run_of_its_own(self) -> Replay:
        """The same replay for one run, whose refusals concern no other."""
        mine, fits = copy(self), self.matrix
        mine.matrix = ScoreMatrix(MaskedScores(self.data, fits.scores, dict(fits.fit_seconds)), dict(fits.fit_seconds))
        mine.references = dict(self.references)
        return mine

    def refuse(self, decision: Decision, model: int) -> None:
        """Let models fitted from now on learn only what the decision's complaints leave; `model` will serve."""
        complaints, scores = read_complaints([decision.to_dict()]), self.matrix.scores
        assert isinstance(scores, MaskedScores)
        name = refusal_name(complaints)
        if name != scores.refused:
            self.references = {number: made for number, made in self.references.items() if number in scores.kept}
            self.learned = without_refused(self.frame, "time", complaints)
            sound = sound_rows(self.frame, "time", complaints)
            scores.refuse(name, self.learned.drop(columns="time"), sound)
        scores.kept.add(model)

    def sound(self, part: slice, decisions: Sequence[dict[str, Any]]) -> NDArray[np.bool_]:
        """Which rows the complaints of the newest of the decisions leave, shape (n,)."""
        standing = read_complaints([row for row in decisions if row.get("kind", "decision") == "decision"])
        sound: NDArray[np.bool_] = ~is_refused(self.frame["time"].iloc[part], standing)
        return sound

    def rows(self, first: int, last: int) -> slice:
        """The rows of the windows first to last, the last one included; none where that lies before the first."""
        start = max(first, 0)
        return slice(int(self.first[start]), int(self.first[max(last + 1, start)]))

    def end(self, window: int) -> datetime:
        """The moment at which a window ends, and the check after it takes place."""
        return self.origin + (window + 1) * self.window

    def share(self, window: int) -> float:
        """The window's share of all rows that are judged, those from `start` on."""
        first = self.first
        return float((first[window + 1] - first[window]) / (first[-1] - first[self.data.start]))

    def known(self, window: int) -> int:
        """How many windows have labels at the end of the given one."""
        return max(self.data.start, window + 1 - self.label_delay)

    def raw(self, model: int, first: int, last: int) -> Floats:
        """Scores of the model trained on the windows before `model`, for the windows first to last."""
        return self.scores(model, self.rows(first, last))

    def scores(self, model: int, part: slice) -> Floats:
        """The same for rows by their positions, none of which it has learned from."""
        offset = self.first[model]
        return self.matrix.scores[model][part.start - offset : part.stop - offset]

    def _mature_windows(self, newest: int, model: int) -> int:
        def count(windows: int) -> tuple[int, int]:
            part = self.rows(max(model, newest - windows + 1), newest)
            return part.stop - part.start, part.stop - part.start

        return mature_windows(self.policy(), count)

    def reference(self, model: int) -> Reference:
        """The champion's reference: its loss at promotion is that of the model without the newest window, on it."""
        if model not in self.references:
            part = self.rows(0, model - 1)
            held = row_losses(
                self.data.target[self.rows(model - 1, model - 1)], self.raw(model - 1, model - 1, model - 1), self.loss
            )
            loss = mean_loss(held)
            self.references[model] = build_reference(
                self.learned.iloc[part],
                time="time",
                task=self.task,
                loss=self.loss,
                window_seconds=self.window.total_seconds(),
                numeric=self.data.numeric,
                categorical=self.data.categorical,
                text=self.data.text,
                truth=self.data.target[part],
                holdout_loss=loss.mean,
                holdout_error=loss.standard_error,
                holdout_rows=loss.rows,
                classes=self.data.classes,
            )
        return self.references[model]

    def inputs(self, window: int, model: int, log: pd.DataFrame, ledger: list[dict[str, Any]]) -> CheckInputs:
        """What the check at the end of a window is given.

        Args:
            window: The window that just ended.
            model: The champion.
            log: Every prediction so far: id, time, score, raw_score, version, by row.
            ledger: Earlier rows.
        """
        part = self.rows(window, window)
        newest = window - self.label_delay
        mature = self.rows(max(self.data.start, newest - self._mature_windows(newest, model) + 1), newest)
        own = max(int(self.first[model]), mature.start)
        answers = log.iloc[mature].reset_index(drop=True)
        if own < mature.stop:  # whoever answered: the champion, too, has not learned from the rows since its training
            mine = log.iloc[own : mature.stop].reset_index(drop=True)
            raw = score_column(self.scores(model, slice(own, mature.stop)))
            mine = mine.assign(score=raw, raw_score=raw, version=str(model))
            answers = pd.concat([log.iloc[mature.start : own], mine], ignore_index=True)
        frame = self.frame.iloc[part].reset_index(drop=True)
        known = self.rows(self.data.start, newest)
        labels = pd.DataFrame(
            {
                "id": self.ids.iloc[known].to_numpy(),
                "truth": self.data.target[known],
                "labelled_at": pd.Timestamp(self.end(window)),
            }
        )
        as_of, delay = self.end(window), self.label_delay * self.window

        def logged(start: datetime, end: datetime) -> pd.DataFrame:
            first, last = np.searchsorted(self.micros, [moment.timestamp() * 1e6 for moment in (start, end)])
            return log.iloc[first:last]

        return CheckInputs(
            model=self.data.name,
            champion_version=str(model),
            reference=self.reference(model),
            time="time",
            window=frame,
            predictions=log.iloc[part].reset_index(drop=True),
            mature=answers,
            labels=labels,
            label_delay=delay,
            labelled_rows=int(self.first[self.known(window)]),
            freshness=Freshness(latest_event=frame["time"].max().to_pydatetime()),
            ledger=tuple(ledger),
            past=past_rows(read_history(tuple(ledger), as_of), self.window, as_of - delay, logged),
            window_features=self.features(part),
            mature_features=self.features(mature),
            holdout=self.holdout(model),
            suspects=self.suspects(ledger, log, as_of - delay),
        )

    def suspects(self, ledger: list[dict[str, Any]], log: pd.DataFrame, mature_until: datetime) -> pd.DataFrame | None:
        """The rows that earlier checks complained of, with what was answered."""
        decisions = [row for row in ledger[-8:] if row["kind"] == "decision"]
        span = doubted_span(read_complaints(decisions), mature_until)
        if span is None:
            return None
        first, last = np.searchsorted(self.micros, [moment.timestamp() * 1e6 for moment in span])
        part = np.arange(first, last)
        part = part[:: max(1, -(-len(part) // FEATURE_ROWS))]
        return self.frame.iloc[part].assign(**{ROW_ID: self.ids.iloc[part], "_score": log["score"].iloc[part]})

    def features(self, part: slice) -> pd.DataFrame | None:
        """Ids and features, which a regression's estimates read."""
        return None if self.task == "classification" else self.frame.iloc[part].assign(**{ROW_ID: self.ids.iloc[part]})

    def holdout(self, model: int) -> pd.DataFrame:
        """What the champion was judged on: its newest window, scored by the model without it."""
        part = self.rows(model - 1, model - 1)
        scores = self.raw(model - 1, model - 1, model - 1)
        return self.learned.iloc[part].assign(_score=score_column(scores).to_numpy(), _truth=self.data.target[part])

    def empty_log(self) -> pd.DataFrame:
        """A log without predictions; version 0 is nobody's."""
        nothing = pd.Series(np.nan, self.ids.index, dtype=object if self.data.classes else "float64")
        log = pd.DataFrame({"id": self.ids, "time": self.frame["time"], "score": nothing, "raw_score": nothing})
        return log.assign(version=pd.Series(["none"] * len(log), dtype="str"))

    def baseline(self, before: int) -> Floats | float:
        """What a model that learned nothing from the rows before a position says."""
        truth = self.data.target[:before]
        return shares(truth, len(self.data.classes)) if self.data.classes else float(truth.mean())

    @staticmethod
    def write(log: pd.DataFrame, part: slice, score: Floats, raw: Floats, model: int) -> None:
        """Log what a model answers to these rows."""
        rows = log.index[part]
        for name, values in (("score", score), ("raw_score", raw)):
            log.loc[rows, name] = score_column(values).to_numpy()
        log.loc[rows, "version"] = str(model)

    def definition(self, policy: Monitoring, gate: GatePolicy) -> ModelDefinition:
        """What live code wants to know of the set."""
        columns = Features(numeric=self.data.numeric, categorical=self.data.categorical, text=self.data.text)
        late = self.label_delay * self.window
        data = Data(source=Source(parquet="-"), id="id", time="time", target="y", label_delay=late)
        return ModelDefinition(
            name="set", task=self.task, data=data, features=columns, gate=gate, monitoring=policy,
            classes=self.data.classes,
        )  # fmt: skip

    def policy(self, **changes: Any) -> Monitoring:
        """The default policy, with this clock's window."""
        return Monitoring(window=self.window, **changes)


def _clock(data: DriftingSet, first: Any) -> tuple[pd.Series[Any], timedelta, datetime]:
    real = microseconds(data.time)
    starts = real[first[:-1]]
    step = np.median(np.diff(starts))
    length = timedelta(days=max(1, round(step / 86_400e6)))
    origin = pd.Timestamp(starts[0], unit="us", tz="UTC").normalize()
    edges = origin.value // 1000 + np.arange(data.windows + 1) * int(length.total_seconds() * 1e6)
    inside = (real >= edges[data.window]) & (real < edges[data.window + 1])
    if inside.all():
        return data.time, length, origin.to_pydatetime()
    position = np.arange(len(real)) - first[data.window]
    size = np.diff(first)[data.window]
    origin = pd.Timestamp("2020-01-06", tz="UTC")
    seconds = (data.window + position / size) * WEEK.total_seconds()
    times = pd.Series(origin + pd.to_timedelta(seconds, unit="s")).astype("datetime64[us, UTC]")
    return times, WEEK, origin.to_pydatetime()
