"""From a table and what a person said of it to a definition and a suite, with reasons. It asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition, duration_text
from perennial.definition.values import class_word
from perennial.errors import DataError
from perennial.model.cells.moments import MISSING, moments
from tasks.measures.leakage import separations
from tasks.proposal.looks import Look, look_at
from tasks.proposal.roles import (
    Choice,
    choose_classes,
    choose_id,
    choose_target,
    choose_task,
    choose_time,
    class_words,
    may_be_features,
    year_column,
)
from tasks.proposal.rows import MADE_ID, MADE_TIME, with_id, with_time
from tasks.proposal.suite import learn_suite
from tasks.proposal.writing import Key, definition_text

_SMALL, _TINY = 1000, 200
_WINDOWS = (timedelta(days=1), timedelta(days=7), timedelta(days=14), timedelta(days=28), timedelta(days=91))
_LEAK = 0.999
_PROBE_ROWS = 20_000
_MOST_CLASSES = 50


@dataclass(frozen=True)
class Answers:
    """What a person or a flag said; what is None is proposed.

    Attributes:
        source: `data.source` as the definition will have it.
        origin: What the table came from, for people.
        without: Columns that are no features.
    """

    name: str
    source: Mapping[str, str]
    origin: str
    target: str | None = None
    time: str | None = None
    id: tuple[str, ...] = ()
    task: str | None = None
    positive: str | None = None
    label_delay: timedelta | None = None
    estimator: str | None = None
    without: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class Proposal:
    """A definition, a suite, and what is to be said of them.

    Attributes:
        raw: The definition's keys and values.
        comments: The reason of each choice, by its path.
        suite: As its JSON file has it.
        doubts: What was not understood, or should be looked at, in sentences.
        caveats: What the table is too small or too poor for, in sentences.
        frame: The table with an id or a time made, where it lacked one; None where it is as it came.
    """

    raw: dict[str, Any]
    comments: dict[Key, str]
    suite: dict[str, Any]
    doubts: tuple[str, ...]
    caveats: tuple[str, ...]
    frame: pd.DataFrame | None
    head: tuple[str, ...] = field(default=())

    @cached_property
    def definition(self) -> ModelDefinition:
        """The definition, checked by its own rules."""
        return ModelDefinition.model_validate(self.raw)

    @property
    def text(self) -> str:
        """The YAML."""
        return definition_text(self.raw, self.comments, self.head)


@dataclass(frozen=True)
class Table:
    """A table and what its columns hold."""

    frame: pd.DataFrame
    looks: dict[str, Look]

    def require(self, name: str, role: str) -> Look:
        if name not in self.looks:
            raise DataError(
                f"there is no column {name!r} for the {role}; there are {', '.join(self.looks)}", "Correct the name"
            )
        return self.looks[name]


def look_at_table(frame: pd.DataFrame) -> Table:
    """Look at each column.

    Raises:
        DataError: There is nothing to look at.
    """
    if not len(frame) or len(frame.columns) < 2:
        raise DataError(f"the table has {len(frame)} rows and {len(frame.columns)} columns", "Give a history")
    frame = frame.rename(columns=str).reset_index(drop=True)
    return Table(frame, {str(name): look_at(frame[name]) for name in frame.columns})


def roles(table: Table, answers: Answers) -> dict[str, Choice]:
    """Target, time and id: as they were said, else as they are proposed; an empty choice where nothing fits."""
    said = "you said so"
    target = Choice((answers.target,), said) if answers.target else choose_target(table.looks, answers.name)
    if not target.columns:
        raise DataError(target.why, "Name the target's column with --target")
    name = table.require(target.columns[0], "target").name
    time = Choice((answers.time,), said) if answers.time else choose_time(table.looks, name)
    moment = table.require(time.columns[0], "time") if time.columns else None
    if moment is not None and moment.kind != "datetime":
        raise DataError(
            f"{moment.name} holds no times that can be read: it {_as_sentence(moment)}", "Give ISO 8601 times"
        )
    for column in answers.id:
        table.require(column, "id")
    id = Choice(answers.id, said) if answers.id else choose_id(table.looks, moment.name if moment else None, name)
    return {"target": target, "time": time, "id": id}


def propose(table: Table, answers: Answers, *, as_of: datetime) -> Proposal:
    """The whole proposal.

    Raises:
        DataError: A named column is not there, or nothing can be predicted or learned from.
    """
    return _Proposing(table, answers, as_of).proposal()


class _Proposing:
    """One proposal in the making: `raw`, `comments`, and what is to be told."""

    def __init__(self, table: Table, answers: Answers, as_of: datetime) -> None:
        self.table, self.answers, self.as_of = table, answers, as_of
        self.raw: dict[str, Any] = {"name": answers.name}
        self.comments: dict[Key, str] = {}
        self.doubts: list[str] = []
        self.caveats: list[str] = []
        chosen = roles(table, answers)
        self.target = chosen["target"].columns[0]
        self.look = table.looks[self.target]
        self.frame, self.made = table.frame, False
        self.labelled = len(self.look.values) - self.look.missing
        self.time = self._choose_time(chosen["time"])
        self.id = self._choose_id(chosen["id"])
        self._target_reason = chosen["target"]

    def proposal(self) -> Proposal:
        if not self.labelled:
            raise DataError(f"{self.target} is missing in every row", "Name another --target, or give labelled rows")
        self._task()
        self._data()
        kinds = self._features()
        self._training()
        self._watching()
        suite = learn_suite(
            self.answers.name, self.table.looks, kinds,
            self.look if self.raw["task"] == "regression" else None, len(self.frame),
        )  # fmt: skip
        return Proposal(
            self.raw, self.comments, suite, tuple(self.doubts), tuple(self.caveats),
            typed(self.frame, self.table.looks) if self.made else None, tuple(self._head()),
        )  # fmt: skip

    def _choose_time(self, choice: Choice) -> str:
        if choice.columns:
            self.comments["data", "time"] = _sentence(f"When it happened: {choice.why}")
            if choice.doubtful:
                self.doubts.append(f"the time is {choice.columns[0]}: {choice.why}")
            return choice.columns[0]
        year = year_column(self.table.looks, self.target)
        until = self.as_of - (self.answers.label_delay or timedelta(0))
        years = None if year is None else self.table.looks[year].values
        self._add(with_time(self.frame, until=until, years=years).frame, MADE_TIME)
        self.caveats += with_time(self.frame.head(1), until=until, years=None if years is None else years.head(1)).told
        self.comments["data", "time"] = "Made by `perennial init`: the table has no time of its own."
        return MADE_TIME

    def _choose_id(self, choice: Choice) -> tuple[str, ...]:
        if choice.columns:
            self.comments["data", "id"] = _sentence(f"What names a row: {choice.why}")
            if choice.doubtful:
                self.doubts.append(f"the id is {' and '.join(choice.columns)}: {choice.why}")
            return choice.columns
        made = with_id(self.frame, self.answers.name)
        self._add(made.frame, MADE_ID)
        self.caveats += made.told
        self.comments["data", "id"] = "Made by `perennial init`: nothing in the table names a row."
        return (MADE_ID,)

    def _add(self, frame: pd.DataFrame, name: str) -> None:
        if name in self.table.looks:
            raise DataError(f"the table has a column {name} already, which is neither id nor time", "Rename it")
        self.frame, self.made = frame, True

    def _task(self) -> None:
        task, why = choose_task(self.look)
        if self.answers.task:
            task, why = self.answers.task, "you said so"
        elif self.look.kind == "numeric" and self.look.whole and 2 < self.look.distinct <= 12:
            self.doubts.append(f"the task is {task}: {self.target} has {why}")
        if self.look.kind not in ("numeric", "categorical", "boolean"):
            raise DataError(f"{self.target} can't be predicted: it {_as_sentence(self.look)}", "Name another --target")
        if task == "regression" and self.look.kind != "numeric":
            raise DataError(f"{self.target} holds {self.look.why}, no numbers", "Say --task classification")
        if self.answers.description:
            self.raw["description"] = self.answers.description
        self.raw["task"] = task
        self.comments["task",] = _sentence(f"What is predicted: {self.target} ({self._target_reason.why}); {why}")
        if self._target_reason.doubtful:
            self.doubts.append(f"the target is {self.target}: {self._target_reason.why}")
        if task == "classification":
            self._classes()
        elif self.answers.positive:
            raise DataError("a regression has no positive class", "Leave --positive out, or say --task classification")

    def _classes(self) -> None:
        values = self.frame[self.target]
        classes, why = choose_classes(values)
        if not 2 <= len(classes) <= _MOST_CLASSES:
            raise DataError(
                f"{self.target} has {len(classes)} values, too {'few' if len(classes) < 2 else 'many'} to be classes",
                "Name another --target, or say --task regression",
            )
        if self.answers.positive is not None:
            positive = class_word(self.answers.positive)
            if positive not in classes:
                raise DataError(f"{positive!r} is none of the classes {', '.join(classes)}", "Correct --positive")
            classes, why = tuple(sorted(classes, key=lambda name: name == positive)), "you said so"
        self.raw["classes"] = list(classes)
        counts = class_words(values).value_counts()
        shares = ", ".join(f"{name} {counts[name] / counts.sum():.1%}" for name in classes[:8])
        if len(classes) == 2:
            text = f"As the data writes them, the positive one last: {why}. In the history: {shares}"
            self.comments["classes",] = _sentence(text)
        else:
            self.comments["classes",] = _sentence(f"As the data writes them. In the history: {shares}")
        rare = int(counts.min())
        if rare < 50:
            self.caveats.append(f"only {rare} rows are {counts.idxmin()!r}: what is said of that class is hardly sure")

    def _data(self) -> None:
        delay = self.answers.label_delay
        id = list(self.id) if len(self.id) > 1 else self.id[0]
        self.raw["data"] = {
            "source": dict(self.answers.source), "id": id, "time": self.time, "target": self.target,
            "label_delay": duration_text(delay or timedelta(0)),
        }  # fmt: skip
        self.comments["data", "source"] = (
            "Where rows come from: `perennial ingest` without a file reads what is new there."
        )
        if delay is None:
            self.comments["data", "label_delay"] = (
                "How long after the event the truth is known: NOT TOLD, taken as at once. A history can't say it; "
                "where it is wrong, models are judged by truths that nobody had yet."
            )
            self.doubts.append(
                "label_delay is 0s, for nobody said how long after the event its truth is known: set it, for a "
                "champion is judged only by rows whose truth had that long to come"
            )
        else:
            self.comments["data", "label_delay"] = "How long after the event the truth is known: you said so."

    def _features(self) -> dict[str, str]:
        # A part of an id, such as a store beside a day, may tell something; a whole id names rows only.
        names = self.id if len(self.id) == 1 else ()
        taken = {self.target, self.time, *names, *self.answers.without}
        for name in self.answers.without:
            self.table.require(name, "columns left out")
        leaks = self._leaks([look for look in may_be_features(self.table.looks, taken) if look.kind != "none"])
        kinds: dict[str, list[str]] = {
            "numeric": [], "categorical": [], "text": [], "image": [], "boolean": [], "datetime": [],
        }  # fmt: skip
        left_out: list[str] = []
        told: list[str] = []
        for look in may_be_features(self.table.looks, taken):
            if look.name.startswith("_"):
                left_out.append(f"{look.name} (names that start with an underscore are ours)")
            elif look.name in leaks:
                left_out.append(f"{look.name} (it tells {self.target} by itself: is it known only afterwards?)")
            elif look.kind == "none":
                left_out.append(f"{look.name} ({look.why})")
            elif look.kind == "datetime" and (why := self._unfit_moments(look)):
                left_out.append(f"{look.name} ({why})")
            elif look.unique and look.whole and _counts_rows(look):
                left_out.append(f"{look.name} (it counts the rows)")
            else:
                kinds[look.kind].append(look.name)
                if look.doubtful or "if they" in look.why:
                    told.append(f"{look.name}: {look.why}")
                if look.doubtful:
                    self.doubts.append(f"{look.name}: {look.why}")
                if look.kind == "datetime" and (rows := self._later_rows(look)):
                    self.doubts.append(
                        f"{look.name} lies after {self.time} in {rows:,} rows: is it known when the model is asked?"
                    )
        self.doubts += [f"left out: {text}" for text in left_out if text.split(" ", 1)[0] not in taken]
        if not any(kinds.values()):
            raise DataError("no column can be a feature", "Give a table with columns to learn from")
        self.raw["features"] = {kind: names for kind, names in kinds.items() if names}
        parts = ["What the model reads, by kind"]
        parts += [f"To look at: {'; '.join(told)}"] if told else []
        parts += [f"Left out: {'; '.join(left_out)}"] if left_out else []
        parts += [f"Left out as you said: {', '.join(self.answers.without)}"] if self.answers.without else []
        self.comments["features",] = _sentence(". ".join(parts))
        return {name: kind for kind, names in kinds.items() for name in names}

    def _unfit_moments(self, look: Look) -> str:
        """Why a column of times can be no feature; empty where it can."""
        if look.distinct == 1 and not look.missing:
            return f"is {look.values.iloc[0]} in every row"
        wrong = moments(self.frame[look.name])[1]
        if wrong.any():
            shown = self.frame[look.name][wrong].iloc[0]
            return f"{int(wrong.sum()):,} cells such as {str(shown)!r} are no ISO 8601 times with dashes"
        return ""

    def _later_rows(self, look: Look) -> int:
        own = self.table.looks.get(self.time)
        return 0 if own is None else int((look.values > own.values).sum())

    def _leaks(self, looks: Sequence[Look]) -> list[str]:
        """Columns that tell the truth by themselves: of classes, whether the most frequent one is told."""
        known = self.look.values.notna().to_numpy()
        rows = np.flatnonzero(known)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _PROBE_ROWS)).astype(np.int64)]
        probed = {
            look.name: look.values.iloc[rows].to_numpy()
            for look in looks
            if look.kind in ("numeric", "categorical", "boolean")
        }
        for look in (look for look in looks if look.kind == "datetime"):
            counted, _ = moments(look.values.iloc[rows])
            probed[look.name] = np.where(counted == MISSING, np.nan, counted)
        frame = pd.DataFrame(probed)
        if self.raw["task"] == "regression":
            truth = self.look.values.iloc[rows].to_numpy(dtype=np.float64)
        else:
            words = class_words(self.frame[self.target]).iloc[rows]
            truth = (words == words.mode().iloc[0]).to_numpy(dtype=np.float64)
        found = separations(frame, truth, self.raw["task"])
        return [name for name, value in found.items() if value >= _LEAK]

    def _training(self) -> None:
        small = self.labelled < _SMALL
        estimator = self.answers.estimator or ("linear" if small else "hist_gradient_boosting")
        training: dict[str, Any] = {"estimator": estimator}
        why = "you said so" if self.answers.estimator else (
            f"{self.labelled:,} labelled rows teach a straight model more surely than trees" if small
            else "trees take gaps, categories and any scale as they are"
        )  # fmt: skip
        self.comments["training", "estimator"] = _sentence(f"Of hist_gradient_boosting, random_forest, linear: {why}")
        if small:
            training["minimum_rows"] = max(10, min(500, self.labelled // 2))
            self.comments["training", "minimum_rows"] = "Fewer labelled rows than this refuse the training."
        training["tuning"] = {"trials": 10, "seconds": 20} if small else {"trials": 20, "seconds": 40}
        self.comments["training", "tuning"] = "Whichever of both runs out first ends the search."
        self.raw["training"] = training
        judged = int(0.2 * self.labelled)
        if judged < 100:
            self.raw["gate"] = {"minimum_rows": max(20, min(50, judged))}
            self.comments["gate", "minimum_rows"] = "On fewer rows than this nobody is judged."
            self.caveats.append(
                f"{self.labelled:,} labelled rows leave {judged} to judge by: a first model must beat the "
                "baseline there, and the interval of every figure is wide; give more history as soon as there is some"
            )

    def _watching(self) -> None:
        times = pd.to_datetime(self.frame[self.time], utc=True, format="ISO8601") if self.time != MADE_TIME else (
            self.frame[MADE_TIME]
        )  # fmt: skip
        span = times.max() - times.min()
        window, rows = choose_window(len(times), span.to_pytimedelta())
        monitoring: dict[str, Any] = {"schedule": _schedule(window), "window": duration_text(window)}
        self.comments["monitoring", "window"] = _sentence(
            f"Judged at a time: about {rows:,.0f} rows; the history spans {span.days:,} days"
        )
        self.comments["monitoring", "schedule"] = "When the champion is checked, UTC."
        if rows < 100:
            monitoring["minimum_rows"] = max(20, int(rows * 0.5))
            self.comments["monitoring", "minimum_rows"] = "Fewer rows than this judge neither quality nor drift."
        if span < 5 * window:
            self.caveats.append(
                f"the history spans {span.days:,} days: a drift alarm needs five windows of training data, and "
                f"monitoring.window is {duration_text(window)}"
            )
        self.raw["monitoring"] = monitoring
        daily = window <= timedelta(days=7)
        self.raw["ingestion"] = {"schedule": "0 5 * * *" if daily else "0 5 * * 1"}
        self.raw["scoring"] = {"schedule": "30 5 * * *" if daily else "30 5 * * 1"}
        self.comments["ingestion",] = (
            "When new rows are read and scored, once `perennial up` runs. Retraining follows evidence, not a schedule."
        )

    def _head(self) -> Iterator[str]:
        rows = f"{len(self.frame):,} rows, {len(self.table.looks)} columns"
        yield (
            f"Made by `perennial init` from {self.answers.origin}: {rows}. Each choice says why: change what is wrong, "
            f"then try it with `perennial validate-config {self.answers.name} --data FILE`."
        )
        for text in self.caveats:
            yield f"Mind: {text}."


def typed(frame: pd.DataFrame, looks: Mapping[str, Look]) -> pd.DataFrame:
    """The rows with their numbers as numbers, where a file had texts; what may not be exact stays as it is written."""
    numbers: dict[str, Any] = {}
    for name, look in looks.items():
        if look.kind != "numeric" or look.doubtful:
            continue
        exact = look.values.abs().max() < 2**53
        if not look.whole or exact:
            numbers[name] = look.values.astype("Int64") if look.whole else look.values
    return frame.assign(**numbers)


def choose_window(rows: int, span: timedelta) -> tuple[timedelta, float]:
    """The shortest window that holds 200 rows and of which the history has eight; and how many rows it holds."""
    seconds = max(span.total_seconds(), 1.0)
    for window in _WINDOWS:
        held = rows * window.total_seconds() / seconds
        if held >= 200 and seconds >= 8 * window.total_seconds():
            return window, held
    for window in reversed(_WINDOWS):
        if seconds >= 8 * window.total_seconds():
            return window, rows * window.total_seconds() / seconds
    return _WINDOWS[0], rows * _WINDOWS[0].total_seconds() / seconds


def _schedule(window: timedelta) -> str:
    if window <= timedelta(days=7):
        return "0 6 * * *"
    return "0 6 * * 1" if window <= timedelta(days=28) else "0 6 1 * *"


def _counts_rows(look: Look) -> bool:
    steps = np.diff(look.values.to_numpy(dtype=np.float64))
    return bool(len(steps)) and bool((steps == 1).all())


def _as_sentence(look: Look) -> str:
    return look.why if look.why.split(" ", 1)[0] in ("holds", "is") else f"holds {look.why}"


def _sentence(text: str) -> str:
    return text.rstrip(".") + "."
