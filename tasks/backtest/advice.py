"""Which policy a backtest recommends, and how sure that is. Pure: losses to a name with its reason, or to a refusal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from perennial.definition import duration_text
from tasks.backtest.past import Floats, Positions
from tasks.backtest.results import PolicyResult
from tasks.measures.bootstrap import Interval, paired_improvement

LEAST_WINDOWS = 12
MARGIN = 0.05
CONFIDENCE = 0.95
RULE = (
    f"the fewest trainings among the policies that keep at most {MARGIN:g} less than the best one; "
    "of equal ones the model's own, then the one that keeps most; one whose estimate without labels may ask for a "
    "training only where it surely saves loss against the same policy without it"
)


@dataclass(frozen=True)
class Advice:
    """A recommendation.

    Attributes:
        name: The policy; None where the history doesn't tell.
        reason: Why, in one or two sentences with the numbers.
        best: The policy that keeps most.
        shortfall: What the recommended one keeps less than the best, and its interval.
        gain: Never's mean loss less always's: what there is to keep, and its interval.
        windows: Measured windows; `windows_needed` are the least for advice.
        estimate: What the trigger `estimate` would bring to the own policy, in a sentence; empty if it was not tried.
        doubt: The same of the other answer of the gate where it doubts.
    """

    name: str | None
    reason: str
    rule: str
    best: str
    shortfall: float
    shortfall_interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]
    windows: int
    windows_needed: int = LEAST_WINDOWS
    estimate: str = ""
    doubt: str = ""


def advise(
    results: Sequence[PolicyResult], losses: Mapping[str, Floats], window: Positions, every: timedelta
) -> Advice:
    """Choose among the policies that a YAML can hold; baselines are for comparison only.

    Args:
        results: All of them.
        losses: Of each, the loss per row, shape (n,), on the same rows.
        window: The rows' window, shape (n,): windows are drawn together.
        every: A window's length, for the text.
    """
    can = [item for item in results if item.policy is not None]
    can = [item for item in can if _estimate_helps(item, results, losses, window)] or can
    gain = mean_saved(losses["never"], losses["always"], window)
    best = min(can, key=lambda item: item.loss)
    near = [item for item in can if item.kept >= best.kept - MARGIN] or [best]
    chosen = min(near, key=lambda item: (item.retrains, item.kind != "own", item.loss))
    windows = len(np.unique(window))
    short = share_interval(losses[chosen.name], losses[best.name], window, gain.estimate)
    refusal = _refusal(windows, gain, every)
    reason = refusal or _reason(chosen, best, short)
    return Advice(
        name=None if refusal else chosen.name,
        reason=reason,
        rule=RULE,
        best=best.name,
        shortfall=best.kept - chosen.kept,
        shortfall_interval=short,
        gain=gain.estimate,
        gain_interval=(gain.low, gain.high),
        windows=windows,
        estimate=_told_estimate(results, losses, window),
        doubt=_told_doubt(results, losses, window),
    )


def _estimate_helps(
    item: PolicyResult, results: Sequence[PolicyResult], losses: Mapping[str, Floats], window: Positions
) -> bool:
    """Whether the policy's estimates ask for nothing, or surely save loss against the same policy without them."""
    assert item.policy is not None
    if not item.policy.triggers.estimate:
        return True
    other = _without_estimate(item, results)
    return other is not None and mean_saved(losses[other], losses[item.name], window).low > 0


def _without_estimate(item: PolicyResult, results: Sequence[PolicyResult]) -> str | None:
    """The name of the policy that differs in that trigger only."""
    assert item.policy is not None
    triggers = item.policy.triggers.model_copy(update={"estimate": False})
    wanted = item.policy.model_copy(update={"triggers": triggers})
    named = next((each.name for each in results if each.policy == wanted), None)
    if named is None and not item.policy.recalibrate and not any(on for _, on in triggers):
        return "never"
    return named


def _told_estimate(results: Sequence[PolicyResult], losses: Mapping[str, Floats], window: Positions) -> str:
    tried = [item for item in results if item.name in ("own", "own with estimate") and item.policy is not None]
    item = next((each for each in tried if each.policy and each.policy.triggers.estimate), None)
    other = None if item is None else _without_estimate(item, results)
    if item is None or other is None:
        return ""
    saved = mean_saved(losses[other], losses[item.name], window)
    more = item.retrains - next(each.retrains for each in results if each.name == other)
    verdict = "it helps" if saved.low > 0 else "not proven to help, so it is not recommended"
    return (
        f"monitoring.triggers.estimate saves the own policy {saved.estimate:.3g} loss per row [{saved.low:.3g}, "
        f"{saved.high:.3g}], with {more:+d} trainings: {verdict}"
    )


def _told_doubt(results: Sequence[PolicyResult], losses: Mapping[str, Floats], window: Positions) -> str:
    item = next((each for each in results if each.kind == "doubt"), None)
    own = next((each for each in results if each.kind == "own"), None)
    if item is None or own is None:
        return ""
    saved = mean_saved(losses[own.name], losses[item.name], window)
    verdict = "it helps" if saved.low > 0 else "it harms" if saved.high < 0 else "not proven to help or harm"
    return (
        f"with the other answer, gate.doubt: {item.name.removesuffix('s').split()[-1]}, the own policy saves "
        f"{saved.estimate:.3g} loss per row [{saved.low:.3g}, {saved.high:.3g}], with {item.promoted} promotions for "
        f"{own.promoted}, {item.undone} for {own.undone} rolled back: {verdict}"
    )


def mean_saved(losses: Floats, reference: Floats, window: Positions) -> Interval:
    """By how much `reference` loses less per row, with its interval: a paired bootstrap over windows."""
    # Losses are errors from nought: the mean absolute error of them is the mean loss itself.
    return paired_improvement(
        "mae", np.zeros(len(losses)), reference, losses, blocks=window, confidence=CONFIDENCE, seed=0
    )


def share_interval(losses: Floats, reference: Floats, window: Positions, gain: float) -> tuple[float, float]:
    """The interval of what `reference` loses less, as a share of the gain, which is taken as known."""
    if not gain > 0:
        return (math.nan, math.nan)
    found = mean_saved(losses, reference, window)
    low, high = sorted((found.low / gain, found.high / gain))
    return (low, high)


def _refusal(windows: int, gain: Interval, every: timedelta) -> str:
    if windows < LEAST_WINDOWS:
        missing = LEAST_WINDOWS - windows
        return (
            f"{windows} windows of {duration_text(every)} are too few to tell policies apart: {LEAST_WINDOWS} are "
            f"needed, that is {missing} more ({duration_text(missing * every)})"
        )
    if not gain.low > 0:
        return (
            f"always retraining saves {gain.estimate:.3g} loss per row against never, somewhere from {gain.low:.3g} to "
            f"{gain.high:.3g}: on this history there is no sure gain of which a policy could keep a share"
        )
    return ""


def _reason(chosen: PolicyResult, best: PolicyResult, short: tuple[float, float]) -> str:
    says = f"{chosen.name} keeps {chosen.kept:.2f} of the gain with {_times(chosen.retrains, 'training')}"
    if chosen.maps_promoted:
        says += f" and {_times(chosen.maps_promoted, 'new map')}"
    if chosen.name == best.name:
        return f"{says}; no policy keeps more"
    interval = f"[{short[0]:.2f}, {short[1]:.2f}]"
    return (
        f"{says}; the best, {best.name}, keeps {best.kept:.2f} with {_times(best.retrains, 'training')}, "
        f"which is {best.kept - chosen.kept:.2f} {interval} more"
    )


def _times(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
