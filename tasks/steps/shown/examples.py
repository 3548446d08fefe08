"""Examples of what moved at a check: of each text or image three values from the window and three from training.

They lie beside the check's report and go when it goes; the ledger holds none of them. Nothing is decided here.
"""

from __future__ import annotations

import base64
import json
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.state.store import between
from perennial.state.tables import ROW_ID, ROW_INGESTED_AT, ROW_TIME
from perennial.workspace import Workspace
from tasks.check.decision import Decision
from tasks.check.estimate.estimates import sample_ids
from tasks.check.reference import Reference
from tasks.check.signals.moved import Moved
from tasks.measures.described.images import thumbnail
from tasks.measures.described.texts import SCRIPT
from tasks.rows.frames import window_rows
from tasks.steps.monitor import champion_reference, reference_sample

EXAMPLES = 3
LOOKED_AT = 200
MOST_TOLD = 4
EXCERPT = 200
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """One value: of a text an excerpt, of an image a small JPEG in base64, or why there is nothing to show.

    Attributes:
        row: The row's id; empty for a row of training.
    """

    row: str
    text: str = ""
    picture: str = ""


@dataclass(frozen=True)
class Example:
    """What moved, and values that show it.

    Attributes:
        told: One sentence.
        hidden: Why no values are shown; empty where they are.
    """

    told: str
    column: str
    feature: str
    before: tuple[Shown, ...] = ()
    now: tuple[Shown, ...] = ()
    hidden: str = ""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Example:
        before, now = (tuple(Shown(**item) for item in raw[name]) for name in ("before", "now"))
        return cls(**{**raw, "before": before, "now": now})


def write_examples(workspace: Workspace, definition: ModelDefinition, decision: Decision) -> tuple[Example, ...]:
    """Find and keep them beside the report; none, with a warning, where that fails: the decision stands without."""
    if not decision.evidence.get("moved"):
        return ()
    target = workspace.reports_folder(definition.name) / file_name(decision.to_dict())
    if target.exists():
        return read_examples(target)
    try:
        found = find_examples(workspace, definition, decision)
    except Exception as error:  # noqa: BLE001 - whatever lies in the rows, the decision is made
        _log.warning("no examples for decision %s: %s: %s", decision.decision_id, type(error).__name__, error)
        return ()
    staged = target.with_suffix(".part")
    staged.write_text(json.dumps([asdict(item) for item in found], ensure_ascii=False), encoding="utf-8")
    staged.replace(target)
    return found


def file_name(entry: Mapping[str, Any]) -> str:
    """What a decision's examples are kept under, in the model's folder of reports."""
    moment = str(entry["as_of"])[:19].replace("-", "").replace(":", "")
    return f"{moment}-{entry['decision_id'][:8]}.examples.json"


def read_examples(path: Path) -> tuple[Example, ...]:
    return tuple(Example.from_dict(raw) for raw in json.loads(path.read_text(encoding="utf-8")))


def find_examples(workspace: Workspace, definition: ModelDefinition, decision: Decision) -> tuple[Example, ...]:
    """The examples of a decision, one for each feature that moved, of what moved furthest."""
    moved: dict[str, Moved] = {}
    for raw in decision.evidence.get("moved", ()):
        moved.setdefault(raw["feature"], Moved.from_dict(raw))
    chosen = list(moved.values())[:MOST_TOLD]
    shown = [item.feature for item in chosen if item.feature not in definition.serving.redact and not item.gone]
    window, training, reference = pd.DataFrame(), pd.DataFrame(), None
    if shown:
        version = workspace.registry.version(definition.name, int(decision.champion_version))
        reference = champion_reference(workspace.registry, version)
        window = _window_sample(workspace, definition, decision, shown)
        training = _training_sample(reference_sample(workspace.registry, version), shown)
    found = []
    for item in chosen:
        if reference is None or item.feature not in shown:
            why = "its values are redacted" if item.feature in definition.serving.redact else "there is nothing to show"
            found.append(Example(item.told, item.column, item.feature, hidden=why))
            continue
        found.append(
            Example(
                item.told,
                item.column,
                item.feature,
                before=_values(training, reference, item, item.before, now=False),
                now=_values(window, reference, item, item.after, now=True),
            )
        )
    return tuple(found)


def _window_sample(
    workspace: Workspace, definition: ModelDefinition, decision: Decision, features: Sequence[str]
) -> pd.DataFrame:
    """Some rows of the window, chosen by a hash of their ids."""
    store, end = workspace.store, decision.as_of
    start = end - definition.monitoring.window
    where = between(ROW_TIME, start, end) & (pc.field(ROW_INGESTED_AT) <= end)
    ids = store.frame(definition.name, "batches", columns=[ROW_ID], where=where)[ROW_ID]
    chosen = ids.iloc[sample_ids(ids, LOOKED_AT)]
    rows = window_rows(store, definition, start=start, end=end, known_at=end, columns=features, ids=chosen)
    return rows.iloc[sample_ids(rows[ROW_ID], LOOKED_AT)].reset_index(drop=True)


def _training_sample(sample: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
    spaced = np.unique(np.linspace(0, len(sample) - 1, min(len(sample), LOOKED_AT)).astype(np.int64))
    return sample[list(features)].iloc[spaced].reset_index(drop=True)


def _values(
    rows: pd.DataFrame, reference: Reference, item: Moved, level: float | None, *, now: bool
) -> tuple[Shown, ...]:
    """Rows that show best how it is now, or was: nearest to the middle, with the flag, or in the script."""
    if not len(rows):
        return ()
    told = reference.described(rows[[item.feature]])
    if item.column not in told:  # whether a row repeats another, a sample can't tell
        order = _repeating(rows[item.feature]) if now else np.arange(len(rows))
    elif item.what == SCRIPT:
        order = _of_script(told[item.column], reference, item, now=now)
    elif item.what in ("empty", "unreadable"):
        more = (item.after or 0.0) > (item.before or 0.0)
        order = np.flatnonzero(told[item.column].to_numpy(dtype=np.float64) == float(more == now))
    else:
        apart = np.abs(told[item.column].to_numpy(dtype=np.float64) - (np.nan if level is None else level))
        order = np.argsort(apart, kind="stable")[: int(np.isfinite(apart).sum())]
    return tuple(_shown(rows.iloc[int(place)], item) for place in order[:EXAMPLES])


def _repeating(values: pd.Series[Any]) -> np.ndarray:
    """Rows whose value comes most often, first."""
    known = values.map(lambda value: hash(value) if isinstance(value, str | bytes) else 0)
    counts = known.map(known.value_counts())
    return np.argsort(-counts.to_numpy(), kind="stable")


def _of_script(scripts: pd.Series[Any], reference: Reference, item: Moved, *, now: bool) -> np.ndarray:
    column = reference.column(item.column)
    assert column is not None  # it is by this column that the check saw it
    risen = scripts == item.script if item.script else scripts.notna() & ~scripts.isin(column.categories)
    return np.flatnonzero((risen if now else scripts.notna() & ~risen).to_numpy())


def _shown(row: pd.Series[Any], item: Moved) -> Shown:
    value, name = row[item.feature], str(row.get(ROW_ID, ""))
    if item.kind != "image":
        return Shown(name, text=excerpt(value) if isinstance(value, str) else "")
    made = thumbnail(value)
    if made is None:
        size = f"{len(value):,} bytes" if isinstance(value, bytes) else excerpt(str(value))
        return Shown(name, text=f"can't be read ({size})")
    return Shown(name, picture=base64.b64encode(made).decode("ascii"))


def excerpt(text: str) -> str:
    """The beginning of a text in one line, without what would steer a terminal or turn the line around."""
    plain = "".join(" " if _steers(letter) else letter for letter in text[: 4 * EXCERPT])
    short = " ".join(plain.split())
    return short if len(short) <= EXCERPT and len(text) <= 4 * EXCERPT else short[: EXCERPT - 1] + "…"


def _steers(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs", "Cn", "Co", "Zl", "Zp") or letter in _BIDI


def lines(examples: Sequence[Example]) -> list[str]:
    """For a terminal, and for Markdown as indented code: what is in a text stays a text."""
    told = []
    for item in examples:
        told.append(f"{item.column}: {item.hidden or item.told}")
        for when, values in (("was", item.before), ("is", item.now)):
            told += [f"  {when}  {_line(value)}" for value in values]
    return told


def _line(value: Shown) -> str:
    named = f"{excerpt(value.row)}: " if value.row else ""
    return named + ("a picture: see the page of this decision" if value.picture else value.text or "(empty)")


def render_markdown(examples: Sequence[Example]) -> str:
    """A section for the check's artifact; empty without examples."""
    if not examples:
        return ""
    return "\n".join(["", "## Examples of what moved", "", *(f"    {line}" for line in lines(examples)), ""])


def render_html(examples: Sequence[Example]) -> str:
    """A section for the check's report, without anything from elsewhere; empty without examples."""
    if not examples:
        return ""
    parts = [_section(item) for item in examples]
    style = "font:15px/1.5 sans-serif;padding:1em 2em"
    return f'<section style="{style}"><h2>Examples of what moved</h2>{"".join(parts)}</section>'


def _section(item: Example) -> str:
    rows = "".join(
        f"<tr><th style='text-align:left;padding-right:1em'>{when}</th>{''.join(map(_cell, values))}</tr>"
        for when, values in (("training", item.before), ("now", item.now))
        if values
    )
    told = escape(item.told[:1].upper() + item.told[1:])
    return f"<p>{told}{f' ({escape(item.hidden)})' if item.hidden else ''}</p><table>{rows}</table>"


def _cell(value: Shown) -> str:
    name = escape(value.row)
    if value.picture:
        made = f'<img alt="row {name}" src="data:image/jpeg;base64,{escape(value.picture)}">'
    else:
        made = escape(value.text) or "(empty)"
    return f'<td style="padding:.4em;max-width:20em;vertical-align:top" title="{name}">{made}</td>'
