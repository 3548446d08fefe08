"""What acting on predictions does to the figures: those of rows left alone beside the naive ones. It decides nothing.

What judges is in `tasks.check.inputs.left_alone`: rows that were acted on never do. Here both are told, and whether
they differ by more than chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import Monitoring
from perennial.model.scores import known_scores, score_array
from tasks.check.inputs import CheckInputs, join_with_past
from tasks.measures.propensity import Figure, differ, figure
from tasks.measures.quality import Floats


def beside_naive(
    inputs: CheckInputs, policy: Monitoring, joined: pd.DataFrame, as_of: datetime, *, judged: bool
) -> dict[str, Any] | None:
    """The newest mature window's figures three times: over all rows, over the control group, by the weights.

    Args:
        joined: As of `join_with_past`: what judges.
        judged: Whether it was enough to judge by.

    Returns:
        JSON's own types, with `told`, the same as sentences, and `warning`; None of a model without an experiment.
    """
    experiment = inputs.experiment
    if experiment is None:
        return None
    everything, _ = join_with_past(replace(inputs, experiment=None, review=None), policy, as_of)
    alone = experiment.weights(everything["id"], everything["time"]) > 0
    edges = as_of - inputs.label_delay - policy.window, as_of - inputs.label_delay
    whole = _known(everything.assign(alone=alone), edges)
    kept = _known(joined, edges)
    mine = kept["id"].isin(list(experiment.chances))
    naive, control = _figure(inputs, whole), _figure(inputs, kept[mine])
    weighted = _figure(inputs, kept, kept["weight"].to_numpy(dtype=np.float64))
    treated = whole[~whole["alone"]]
    acted_on = _figure(inputs, treated)
    apart = {"loss": differ(acted_on.loss, weighted.loss), "seen": differ(acted_on.seen, weighted.seen)}
    found = {
        "rows": len(whole),
        "acted_on": int(treated["id"].isin(experiment.treated).sum()),
        "unknown": int((~treated["id"].isin(experiment.treated)).sum()),
        "control": int(mine.sum()),
        "without_group": int((~mine).sum()),
        "needed": policy.minimum_rows,
        "share_needed": None if judged else _share_needed(int(mine.sum()), len(treated), weighted, policy),
        "judges": judged,
        "naive": naive.to_dict(),
        "control_group": control.to_dict(),
        "weighted": weighted.to_dict(),
        "differs": [name for name, surely in apart.items() if surely],
    }
    loss = inputs.reference.loss
    return found | {"told": _told_of(found, loss), "warning": _warning(found, loss)}


def _told_of(known: Mapping[str, Any], loss: str) -> list[str]:
    """The same for people, beside what else a decision rests on."""
    weighted = known["weighted"]
    left = known["control"] + known["without_group"]
    line = f"{known['acted_on']} of {known['rows']} mature rows with truth could be acted on, {left} were left alone"
    line += f" ({known['control']} of the control group, {known['without_group']} without a group)"
    line += f", worth {weighted['effective_rows']:.0f} by their weights"
    line += "; they alone judge quality, calibration and the truth's mean" if known["judges"] else _too_few(known)
    lines = [line]
    if known["unknown"]:
        lines.append(
            f"{known['unknown']} rows since the first group have none, and the log is a sample (serving.log_share): "
            "they may have been acted on, too, and judge nothing"
        )
    if known["rows"]:
        lines.append(f"left alone, by weight: {_figures(weighted, loss)}")
        if not _same(known["control_group"], weighted):
            lines.append(f"the control group by itself: {_figures(known['control_group'], loss)}")
        lines.append(f"all rows, the naive figures, which judge nothing: {_figures(known['naive'], loss)}")
    return lines


def _warning(known: Mapping[str, Any], loss: str) -> str:
    """One sentence for those who own the product, where acting changes the figures by more than chance; else empty."""
    if not known["differs"]:
        return ""
    naive, weighted = known["naive"], known["weighted"]
    changed = []
    if "seen" in known["differs"]:
        changed.append(f"the truth's mean is {_number(weighted['seen'][0])} where nobody acted, "
                       f"{_number(naive['seen'][0])} over all rows")  # fmt: skip
    if "loss" in known["differs"]:
        changed.append(f"{loss} is {_number(weighted['loss'][0])} where nobody acted, "
                       f"{_number(naive['loss'][0])} over all rows")  # fmt: skip
    said = "what was left alone counts" if known["judges"] else "too little was left alone to judge by"
    return f"Acting on predictions changes what happens: {'; '.join(changed)}; {said}."


def _known(joined: pd.DataFrame, edges: tuple[datetime, datetime]) -> pd.DataFrame:
    """The newest mature window's rows with truth and score, those that `newest_mature` judges."""
    start, end = (pd.Timestamp(edge) for edge in edges)
    known = (joined["time"] >= start) & (joined["time"] < end) & joined["truth"].notna()
    return joined[known & known_scores(score_array(joined["score"]))].reset_index(drop=True)


def _figure(inputs: CheckInputs, rows: pd.DataFrame, weights: Floats | None = None) -> Figure:
    truth, score = rows["truth"].to_numpy(dtype=np.float64), score_array(rows["score"])
    return figure(truth, score, inputs.reference.loss, inputs.reference.task, weights)


def _share_needed(control: int, treated: int, weighted: Figure, policy: Monitoring) -> float | None:
    """How large the control group would have to be at this traffic, in whole per cent; None where none would do."""
    if not control or not weighted.effective_rows:
        return None
    share = control / (control + treated) * policy.minimum_rows / weighted.effective_rows
    rounded = math.ceil(100 * share) / 100
    return rounded if rounded < 1 else None


def _too_few(known: Mapping[str, Any]) -> str:
    told = f"; {known['needed']} are needed to judge, and the others' outcomes are what acting made of them"
    share = known["share_needed"]
    return told + (f"; serving.control_group: {share:.0%} would do at this traffic" if share else "")


def _figures(found: Mapping[str, Any], loss: str) -> str:
    if not found["rows"]:
        return "none"
    said = f"{loss} {_interval(found['loss'])}, truth {_interval(found['seen'])}, said {_number(found['said'])}"
    error = found["calibration_error"]
    return said + ("" if error is None else f", calibration error {_interval(error)}") + f" ({found['rows']} rows)"


def _interval(values: list[float | None]) -> str:
    middle, low, high = (_number(value) for value in values)
    return f"{middle} [{low}, {high}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one["rows"] == other["rows"] and math.isclose(one["loss"][0] or 0, other["loss"][0] or 0))
