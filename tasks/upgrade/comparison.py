"""What differs between a model's answers under two sets of packages. Pure: figures to a report and its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from perennial.model.scores import is_many, likeliest


@dataclass(frozen=True)
class Apart:
    """Two lists of scores for the same rows.

    Attributes:
        rows: How many.
        changed: Of them those whose score differs by more than the tolerance.
        largest: The largest difference.
        flips: Rows whose class is another; None of a regression.
        problem: Why there are none, of one of both; empty otherwise.
    """

    rows: int = 0
    changed: int = 0
    largest: float = 0.0
    flips: int | None = None
    problem: str = ""

    @property
    def alike(self) -> bool:
        return not self.problem and not self.changed and not self.flips


@dataclass(frozen=True)
class Compared:
    """One model under both.

    Attributes:
        golden: Of the stored champion, which is what would be served.
        fit: Of a model that is fitted anew, the same way.
        loss: The short backtest's name of the loss, its value now, and with the new lock; None where there is none.
        verdicts: How many of its checks say something else.
        problem: Why there is no backtest.
    """

    model: str
    version: int
    golden: Apart
    fit: Apart
    loss: tuple[str, float, float] | None
    windows: int
    verdicts: int
    problem: str

    @property
    def alike(self) -> bool:
        same = self.loss is None or np.isclose(self.loss[1], self.loss[2], rtol=1e-6, atol=1e-12)
        return bool(self.golden.alike and self.fit.alike and same and not self.verdicts and not self.problem)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"alike": self.alike}


def compare(
    model: str, version: int, now: Mapping[str, Any], new: Mapping[str, Any], *, threshold: float | None,
    tolerance: float,
) -> Compared:  # fmt: skip
    """Two answers of `tasks.upgrade.measuring`.

    Args:
        threshold: From which score on the class is the positive one, of two; None of a regression.
        tolerance: Differences up to it are none, as at the gate: of a regression times the largest score.
    """
    golden, fit = (_apart(now.get(part), new.get(part), threshold, tolerance) for part in ("golden", "fit"))
    before, after = now.get("backtest") or {}, new.get("backtest") or {}
    problem = _problem(before, after)
    if problem or not before:
        return Compared(model, version, golden, fit, None, 0, 0, problem)
    verdicts = sum(one != other for one, other in zip(before["verdicts"], after["verdicts"], strict=False))
    verdicts += abs(len(before["verdicts"]) - len(after["verdicts"]))
    loss = (before["name"], before["loss"], after["loss"])
    return Compared(model, version, golden, fit, loss, before["windows"], verdicts, "")


def _apart(
    now: Mapping[str, Any] | None, new: Mapping[str, Any] | None, threshold: float | None, tolerance: float
) -> Apart:
    if now is None or new is None:
        return Apart()
    if problem := _problem(now, new):
        return Apart(problem=problem)
    ours, theirs = (np.asarray(side["scores"], dtype=np.float64) for side in (now, new))
    if ours.shape != theirs.shape:
        return Apart(len(ours), problem=f"scores are of shape {theirs.shape} instead of {ours.shape}")
    far = np.abs(ours - theirs)
    if is_many(ours):
        flips: int | None = int((likeliest(ours) != likeliest(theirs)).sum())
        far = far.max(axis=1)
    else:
        flips = None if threshold is None else int(((ours >= threshold) != (theirs >= threshold)).sum())
    scale = 1.0 if threshold is not None or is_many(ours) else max(1.0, float(np.abs(ours).max(initial=0.0)))
    changed = int((~(far <= tolerance * scale)).sum())  # a NaN is a change
    return Apart(len(ours), changed, float(np.max(far, initial=0.0)), flips)


def _problem(now: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if "problem" in now:
        return f"here, already: {now['problem']}"
    return f"with the new lock: {new['problem']}" if "problem" in new else ""


def told(found: Compared) -> list[str]:
    """For people, a line each."""
    lines = [f"golden rows: {_scores(found.golden)}", f"a fit anew: {_scores(found.fit)}"]
    if found.problem:
        lines.append(f"backtest: none, {found.problem}")
    elif found.loss is not None:
        name, now, new = found.loss
        change = "the same" if np.isclose(now, new, rtol=1e-6, atol=1e-12) else f"{new / now - 1:+.2%}" if now else "–"
        lines.append(
            f"backtest of {found.windows} windows: {name} {now:.5g} now, {new:.5g} then ({change}); "
            f"{found.verdicts} verdicts differ"
        )
    if found.golden.problem or found.golden.changed:
        lines.append(
            "the API would refuse this version with those packages: retrain under them, and deploy both together"
        )
    return lines


def _scores(found: Apart) -> str:
    if found.problem:
        return found.problem
    if not found.rows:
        return "not looked at"
    flips = "" if found.flips is None else f", {found.flips} change their class"
    if found.alike:
        return f"all {found.rows} as now (largest difference {found.largest:.2g})"
    return f"{found.changed} of {found.rows} change, by up to {found.largest:.4g}{flips}"
