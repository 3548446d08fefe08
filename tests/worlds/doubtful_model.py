"""A small model whose second training is in doubt: what it has learned anew holds before and after its holdout.

Of the dark images of some days the labels are turned round. The challenger has learned from such days, its holdout has
none, and in what comes later they are back.
"""

from __future__ import annotations

import small_model

from perennial.definition import ModelDefinition
from perennial.workspace import Workspace
from tasks.rows.labels import label_frame

CHAMPION_AT, CHALLENGER_AT, LATER_AT = small_model.day(13), small_model.day(19), small_model.day(24.5)


def define(workspace: Workspace, name: str = "digits", **gate: object) -> ModelDefinition:
    return small_model.define(
        workspace, name=name, gate={"slices": [], "confidence": 0.999, **gate}, monitoring={"recalibrate": False}
    )


def fill(
    workspace: Workspace, definition: ModelDefinition, *, since: float = 0, until: float = 24.5, labelled: bool = True
) -> None:
    """The rows of days 0, 12 or 18 up to 12, 18 or 24.5 with their labels, each known when it came.

    Args:
        labelled: Whether the truth of what comes after the second training, from day 18 on, comes too.
    """
    turned = [(13.8, 15.0), (18.0, 24.5)]
    frame = small_model.rows(0, 24.5)
    dark = frame["shade"] == "dark"
    for first, last in turned:
        inside = (frame["when"] >= small_model.day(first)) & (frame["when"] < small_model.day(last)) & dark
        frame.loc[inside, "even"] = 1 - frame.loc[inside, "even"]
    if not since:
        past = frame[frame["when"] < small_model.day(12)].reset_index(drop=True)
        small_model.add(workspace, definition, past, as_of=CHAMPION_AT, history=True)
    for first, last in ((12, 18), (18, 24.5)):
        if not since <= first < until:
            continue
        new = frame[(frame["when"] >= small_model.day(first)) & (frame["when"] < small_model.day(last))]
        new = new.reset_index(drop=True)
        small_model.add(workspace, definition, new.drop(columns="even"), as_of=small_model.day(last))
        if labelled or last == 18:
            label_frame(workspace.store, definition, new, as_of=small_model.day(last), author="test")
