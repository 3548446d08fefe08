"""The trial of a complaint by the truth of its own rows: does it hurt to learn from them as they are? No ledger here.

Two small models are fitted on rows that nobody doubts and on the earlier rows in question, once as they are and once
without what is doubted (the column's values as missing; the rows left out). What tells is the difference of their
losses on the later rows in question, and on sound rows that neither has seen. A world that moved is learned from its
own rows, and sound rows lose nothing by it; a scrambled column helps on neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.check.complaints.complaint import GONE
from tasks.measures.quality import mean_loss

Floats = NDArray[np.float64]

HARM_SIGMAS = 1.5
HELP_SIGMAS = 2.0
LASTING_WINDOWS = 4.0
TRIED_ROWS = 3_000
TRIED_COLUMNS = 25
TRIED_CLASSES = 5
SMOOTHING = 10.0
_TREES: Mapping[str, Any] = {
    "n_estimators": 40, "max_depth": 3, "learning_rate": 0.15, "subsample": 0.5, "min_samples_leaf": 10,
    "random_state": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Effect:
    """What something gains in loss per row, as a share of the loss without it; negative is harm.

    Attributes:
        error: Its standard error.
        rows: How many it was measured on.
    """

    gain: float
    error: float
    rows: int

    @property
    def sigmas(self) -> float:
        return self.gain / self.error if self.error > 0 else 0.0

    def told(self) -> str:
        return f"{self.gain:+.1%} ± {self.error:.1%} on {self.rows} rows"


@dataclass(frozen=True)
class Ruling:
    """What the truth says.

    Attributes:
        judged_until: Rows before it were heard.
    """

    state: Literal["dissolved", "confirmed"]
    reason: str
    judged_until: datetime
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Findings:
    """What a trial measured.

    Attributes:
        later: Of learning from the earlier rows in question as they are, on the later ones; None with too few rows.
        sound: The same, on sound rows that were not learned from.
        undone: Of a conversion undone, for a model of sound rows only; None where none fits.
        champion: What the champion does better on the rows in question than elsewhere; negative is worse.
        decimal: The values look multiplied or divided by ten, a hundred or a thousand: no world moves so.
        windows: How many windows the rows in question span.
    """

    later: Effect | None = None
    sound: Effect | None = None
    undone: Effect | None = None
    champion: Effect | None = None
    decimal: bool = False
    windows: float = 1.0


def rule(kind: str, found: Findings) -> tuple[Literal["dissolved", "confirmed"], str] | None:
    """What follows from the findings, and why; None where they are too few to say.

    What was broken for long, and helps as it is, has become the world.
    """
    if kind in GONE:
        return "confirmed", "Missing values teach nothing wrong: learning goes on, with these rows as they are"
    if kind == "unreadable":
        return (
            "confirmed",
            "Nothing is learned from what can't be read: these values are left out, the rest goes on",
        )
    if found.later is None or (kind in ("constant", "repeated") and found.champion is None):
        return None
    told = "having learned from the earlier of these rows as they are changes the loss on the later ones by "
    told += _loss(found.later) + (f", and on sound rows by {_loss(found.sound)}" if found.sound else "")
    told += f"; the champion's own is {_loss(found.champion)} beside elsewhere" if found.champion else ""
    lasting = found.windows >= LASTING_WINDOWS and found.later.sigmas >= HELP_SIGMAS
    if lasting:
        return "dissolved", f"It is how the world is now, by the truth of its rows: {told}"
    if kind == "unit of" and found.undone is not None and found.undone.sigmas >= HELP_SIGMAS:
        return (
            "confirmed",
            f"Its rows' truth says it is broken: undone, the loss changes by {_loss(found.undone)}; {told}",
        )
    if found.decimal and found.later.sigmas < HELP_SIGMAS:
        return "confirmed", f"Their truth does not say that numbers so far off mean what they did: {told}"
    hurts = any(effect is not None and effect.sigmas < -HARM_SIGMAS for effect in (found.later, found.sound))
    if kind in ("constant", "repeated"):
        hurts |= found.champion is not None and found.champion.sigmas < -1.0
    if hurts:
        return "confirmed", f"Its rows' truth says that it is broken: {told}"
    return "dissolved", f"The world moved, and nothing is broken, by the truth of its rows: {told}"


def hold_trial(
    suspects: pd.DataFrame, sound: pd.DataFrame, columns: Sequence[str], *, undo: tuple[float, float] | None,
    classes: int = 0,
) -> Findings:  # fmt: skip
    """Fit the small models and compare them.

    Args:
        suspects: The rows in question with their truth, in order of time: features and `_truth`.
        sound: Rows that nobody doubts, in order of time, with the same columns.
        columns: The feature in question, or all that stand for it; none where the rows are.
        undo: Factor and shift of a conversion that may have been made of the one column.
        classes: Of more than two classes how many: then the truth is a code, and each class's chance is learned.
    """
    targets = _targets(suspects, classes)
    suspects, sound = _spaced(suspects), _spaced(sound)
    masked = suspects.assign(**{name: _nothing(suspects[name]) for name in columns})
    half, most = len(suspects) // 2, int(len(sound) * 0.6)
    later = _compare(
        with_it=(pd.concat([sound, suspects[:half]]), suspects[half:]),
        without=(pd.concat([sound, masked[:half]]) if columns else sound, masked[half:]),
        targets=targets,
    )
    kept = None
    # Rows that are not learned at all: sound ones of another time would lose by it, and it would say nothing.
    if columns and len(sound) - most >= len(suspects) // 10 and len(sound) - most >= 30:
        first, held = sound[:most], sound[most:]
        pairs = ((pd.concat([first, suspects]), held), (pd.concat([first, masked]), held))
        kept = _compare(with_it=pairs[0], without=pairs[1], targets=targets)
    undone = None
    if undo is not None and columns and len(sound):
        as_before = suspects.assign(**{name: (suspects[name] - undo[1]) / undo[0] for name in columns})
        undone = _compare(with_it=(sound, as_before), without=(sound, suspects), targets=targets)
    return Findings(later=later, sound=kept, undone=undone)


def _compare(
    *, with_it: tuple[pd.DataFrame, pd.DataFrame], without: tuple[pd.DataFrame, pd.DataFrame],
    targets: tuple[float | None, ...],
) -> Effect | None:  # fmt: skip
    """Each a pair: what is learned, and the rows judged; None where nothing can be learned.

    Args:
        targets: Codes of classes, each against the rest, whose losses add up; None is the truth as it is.
    """
    if not min(len(part) for part in (*with_it, *without)):
        return None
    losses = [np.sum([_squares(*pair, target) for target in targets], axis=0) for pair in (with_it, without)]
    saved, level = mean_loss(losses[1] - losses[0]), float(losses[1].mean())
    if not level > 0 or not np.isfinite(saved.standard_error):
        return None
    return Effect(saved.mean / level, saved.standard_error / level, len(with_it[1]))


def _targets(rows: pd.DataFrame, classes: int) -> tuple[float | None, ...]:
    """The most frequent classes of many; of two, and of numbers, the truth itself."""
    if classes <= 2:
        return (None,)
    return tuple(float(code) for code in rows["_truth"].value_counts().index[:TRIED_CLASSES])


def _squares(learned: pd.DataFrame, judged: pd.DataFrame, target: float | None) -> Floats:
    if target is not None:
        learned, judged = (part.assign(_truth=(part["_truth"] == target).astype(float)) for part in (learned, judged))
    return np.asarray((judged["_truth"].to_numpy(dtype=np.float64) - _answers(learned, judged)) ** 2)


def _answers(learned: pd.DataFrame, judged: pd.DataFrame) -> Floats:
    """Expected truth by least squares, which for a class is its chance."""
    # Not the histogram kind: its threads meet those of a backtest in Python's one list of warning filters.
    from sklearn.ensemble import GradientBoostingRegressor

    truth = learned["_truth"].to_numpy(dtype=np.float64)
    if np.ptp(truth) == 0:
        return np.full(len(judged), truth[0])
    columns = [name for name in learned if name != "_truth"]
    inputs = [_numbers(learned[name], judged[name], truth) for name in columns]
    model = GradientBoostingRegressor(**_TREES).fit(np.column_stack([pair[0] for pair in inputs]), truth)
    return np.asarray(model.predict(np.column_stack([pair[1] for pair in inputs])), dtype=np.float64)


def _numbers(learned: pd.Series[Any], judged: pd.Series[Any], truth: Floats) -> tuple[Floats, Floats]:
    """Numbers as they are, missing ones below all; of categories the mean truth learned, drawn towards that of all."""
    if pd.api.types.is_numeric_dtype(learned) and pd.api.types.is_numeric_dtype(judged):
        known, later = (part.to_numpy(dtype=np.float64, na_value=np.nan) for part in (learned, judged))
        finite = np.concatenate([known[np.isfinite(known)], later[np.isfinite(later)]])
        below = float(finite.min() - max(1.0, np.ptp(finite))) if len(finite) else 0.0
        return tuple(np.clip(np.where(np.isnan(part), below, part), -1e30, 1e30) for part in (known, later))  # type: ignore[return-value]
    names = [part.astype("object").where(part.notna(), "\0").astype(str) for part in (learned, judged)]
    mean = float(truth.mean())
    groups = pd.Series(truth).groupby(names[0].to_numpy()).agg(["sum", "size"])
    means = (groups["sum"] + SMOOTHING * mean) / (groups["size"] + SMOOTHING)
    return tuple(part.map(means).fillna(mean).to_numpy(dtype=np.float64) for part in names)  # type: ignore[return-value]


def _spaced(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[:: max(1, -(-len(rows) // TRIED_ROWS))].reset_index(drop=True)


def _nothing(values: pd.Series[Any]) -> pd.Series[Any]:
    return (
        pd.Series(np.nan, values.index) if pd.api.types.is_numeric_dtype(values) else values.where(values.isna(), None)
    )


def _loss(effect: Effect) -> str:
    return f"{-effect.gain:+.1%} ± {effect.error:.1%} ({effect.rows} rows)"
