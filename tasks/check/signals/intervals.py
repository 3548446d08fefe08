"""The signal of a regression's intervals: how many truths lie inside, beside how many were promised. No verdict.

It asks for nothing by itself: what a wider interval could mend is no fall of quality, and a new map or a training
remakes the intervals anyway. It tells.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from perennial.definition import Monitoring
from tasks.check.inputs import CheckInputs
from tasks.check.signal import Signal


def interval_signals(inputs: CheckInputs, policy: Monitoring, joined: pd.DataFrame) -> tuple[Signal, ...]:
    """The covered share of the champion's own mature answers that had an interval; nothing where none was answered.

    Off is a share further from the promise than `quality_sigmas` standard errors: of a share of so many rows, and of
    the rows that the interval was made of, which is no surer.
    """
    made = inputs.intervals
    if made is None:
        return ()
    source = f"promised {made.coverage:.0%}, less {policy.quality_sigmas:.2g} standard errors"
    if "lower" not in joined or "upper" not in joined:
        return (
            Signal("interval", "quality", None, None, source, False, False, "no answer with an interval is mature"),
        )
    truth, lower, upper = (joined[name].to_numpy(dtype=np.float64) for name in ("truth", "lower", "upper"))
    known = np.isfinite(truth) & np.isfinite(lower) & np.isfinite(upper)
    known &= (joined["version"].astype("str") == inputs.champion_version).to_numpy(dtype=bool)
    known &= ~joined["refused"].to_numpy(dtype=bool)
    rows = int(known.sum())
    if rows < policy.minimum_rows:
        told = f"{rows} mature answers with an interval have labels; {policy.minimum_rows} are needed to judge"
        return (Signal("interval", "quality", None, None, source, False, False, told),)
    share = float(((lower <= truth) & (truth <= upper))[known].mean())
    error = float(np.sqrt(made.coverage * (1 - made.coverage) * (1 / rows + 1 / made.rows)))
    low, high = made.coverage - policy.quality_sigmas * error, made.coverage + policy.quality_sigmas * error
    fired = share < low
    says = "fewer than" if fired else "more than" if share > high else "as many as"
    detail = (
        f"{share:.1%} of {rows} mature truths lie within their interval, {says} the {made.coverage:.0%} that it "
        f"promises [{low:.1%}, {min(high, 1.0):.1%}]" + ("; a recalibration or a training remakes it" if fired else "")
    )
    return (Signal("interval", "quality", share, low, source, fired, False, detail),)
