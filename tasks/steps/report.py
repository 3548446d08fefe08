"""The report of a check for people: what moved first, then Evidently's pictures. It decides nothing and may fail alone.

It says what the decision says: of the same columns, the same window, against the same training rows. Counts of what is
missing and drift are the check's, of all rows; pictures and metrics are of samples.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from perennial.definition import ModelDefinition
from perennial.model.scores import known_scores, score_array
from perennial.workspace import Workspace
from tasks.check.decision import Decision
from tasks.check.plain import summary
from tasks.check.reference import Reference, is_prediction, prediction_values
from tasks.check.told.sentences import segment_lines, slice_lines
from tasks.measures.metrics import metric_table
from tasks.rows.reviewed import judging_labels
from tasks.steps.monitor import champion_reference, check_rows, reference_sample
from tasks.steps.score import predictions_between
from tasks.steps.shown.drawn import draw_distributions, with_lead
from tasks.steps.shown.examples import file_name, read_examples, render_html

MOST_DRAWN = 30
MOST_PICTURED = 500
LEAST_JUDGED = 30
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sides:
    """What is set side by side.

    Attributes:
        current, reference: Samples of the window's rows and of the champion's training: the columns that the check
            looks at, texts as their numbers.
        numeric, categorical: Those of them that can be drawn, by kind.
        ratios: Each column's movement in times of its limit, the furthest first; 0 where it has no limit yet.
    """

    current: pd.DataFrame
    reference: pd.DataFrame
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    ratios: Mapping[str, float]


def write_report(workspace: Workspace, definition: ModelDefinition, decision: Decision) -> str | None:
    """Write HTML and JSON of the window beside the champion's training rows.

    Returns:
        The HTML file's path; None where the report could not be made: the decision stands without it.
    """
    name = f"{decision.as_of:%Y%m%dT%H%M%S}-{decision.decision_id[:8]}"
    target = workspace.reports_folder(definition.name) / f"{name}.html"
    if target.exists():
        return str(target)
    try:
        version = workspace.registry.version(definition.name, int(decision.champion_version))
        reference = champion_reference(workspace.registry, version)
        sample = reference_sample(workspace.registry, version)
        rows = check_rows(workspace, definition, as_of=decision.as_of, limit=definition.monitoring.report_rows)
        sides = set_beside(reference, rows.rename(columns={"score": "_score"}), sample, decision)
        quality = qualities(workspace, definition, sample, as_of=decision.as_of)
        render(sides, reference, decision, quality, target)
    except Exception as error:  # noqa: BLE001 - whatever a report library throws, the decision is made
        _log.warning("no report for decision %s: %s: %s", decision.decision_id, type(error).__name__, error)
        return None
    return str(target)


def set_beside(reference: Reference, rows: pd.DataFrame, sample: pd.DataFrame, decision: Decision) -> Sides:
    """Both samples in the columns that the check looked at.

    Args:
        reference: The champion's, which names the columns.
        rows, sample: Features and `_score`, of the window and of the training.
        decision: With each column's movement.
    """
    current, before = (_described(frame, reference) for frame in (rows, sample))
    known = decision.evidence.get("drift") or {}
    names = [column.name for column in reference.profile.columns]
    # One column without values aborts a whole page of Evidently's.
    drawn = [name for name in [*known, *(n for n in names if n not in known)] if _usable(current, before, name)]
    drawn = drawn[:MOST_DRAWN]
    kinds = {column.name: column.kind for column in reference.profile.columns}
    return Sides(
        current=current,
        reference=before,
        numeric=tuple(name for name in drawn if kinds.get(name) == "numeric"),
        categorical=tuple(name for name in drawn if kinds.get(name) == "categorical"),
        ratios={name: float(known.get(name, 0.0)) for name in drawn},
    )


def qualities(
    workspace: Workspace, definition: ModelDefinition, sample: pd.DataFrame, *, as_of: datetime
) -> list[tuple[str, float | None, float]]:
    """Each metric at promotion and on the newest mature window: name, before (None where unknown), now.

    None of fewer than `LEAST_JUDGED` rows with truth.
    """
    end = as_of - definition.data.label_delay
    start = end - definition.monitoring.window
    made = predictions_between(workspace.store, definition.name, start=start, end=end, known_at=as_of)
    truths = judging_labels(workspace.store, definition.name, as_of=as_of, ids=made["id"])[["id", "truth"]]
    now = _metrics(definition, made.merge(truths, on="id", how="inner"), "truth", "score")
    before = _metrics(definition, sample, definition.data.target, "_score")
    return [(name, before.get(name), value) for name, value in now.items() if np.isfinite(value)]


def _metrics(definition: ModelDefinition, rows: pd.DataFrame, truth: str, score: str) -> dict[str, float]:
    if not len(rows) or score not in rows or truth not in rows:
        return {}
    known = rows[rows[score].notna()]
    truths, scores = pd.to_numeric(known[truth], errors="coerce").to_numpy(dtype=np.float64), score_array(known[score])
    sure = np.isfinite(truths) & known_scores(scores)
    if int(sure.sum()) < LEAST_JUDGED:
        return {}
    return metric_table(definition.task, truths[sure], scores[sure])


def render(
    sides: Sides, reference: Reference, decision: Decision, quality: Sequence[tuple[str, float | None, float]],
    target: Path,
) -> None:  # fmt: skip
    """Write TARGET.html and TARGET.json."""
    page, metrics = draw_distributions(
        sides.current, sides.reference, sides.numeric, sides.categorical, sides.ratios
    )  # fmt: skip
    window = f"{decision.evidence['window_start'][:16].replace('T', ' ')} to {decision.as_of:%Y-%m-%d %H:%M} UTC"
    title = f"{decision.model} version {decision.champion_version}: {decision.verdict}, {window}"
    lead = _LEAD.render(
        decision=decision, window=window, summary=summary(decision), columns=column_rows(reference, decision),
        quality=quality, loss=decision.evidence.get("loss") or {}, slices=slice_lines(decision.evidence),
        segments=segment_lines(decision.evidence), drawn=len(sides.ratios), rows=len(sides.current),
        trained=len(sides.reference), limits=bool(decision.evidence.get("drift")), examples=_examples(target, decision),
    )  # fmt: skip
    staged = target.with_suffix(".part")
    staged.write_text(with_lead(page, str(escape(title)), lead), encoding="utf-8")
    told = json.loads(metrics)
    target.with_suffix(".json").write_text(json.dumps(told | {"decision_id": decision.decision_id}), encoding="utf-8")
    staged.replace(target)


def _examples(target: Path, decision: Decision) -> Markup:
    """Examples of what moved, where the check has kept any."""
    kept = target.parent / file_name(decision.to_dict())
    return Markup(render_html(read_examples(kept)) if kept.exists() else "")  # noqa: S704 - it escapes what is shown


def column_rows(reference: Reference, decision: Decision) -> list[dict[str, Any]]:
    """What the check says of each column: those that moved first, by what that does to the predictions."""
    known = decision.evidence.get("drift") or {}
    window = (decision.evidence.get("window") or {}).get("columns", {})
    effects = {item["column"]: item for item in decision.evidence.get("effects", ())}
    rows = []
    total = reference.profile.counts.sum(axis=0)
    for place, column in enumerate(reference.profile.columns):
        trained = float(total[place, -1] / max(1, total[place].sum()))
        ratio = known.get(column.name)
        gone = window[column.name][0] if column.name in window else None
        rows.append(
            {"column": column.name, "ratio": ratio, "moved": ratio is not None and ratio > 1, "missing": gone,
             "trained": None if is_prediction(column.name) else trained,
             "change": effects.get(column.name, {}).get("change"), "shift": effects.get(column.name, {}).get("shift")}
        )  # fmt: skip
    return sorted(rows, key=lambda row: (not row["moved"], -(row["change"] or 0.0), -(row["ratio"] or 0.0)))


def _described(frame: pd.DataFrame, reference: Reference) -> pd.DataFrame:
    """The frame in the columns that checks look at: what is said of texts and images, answers as theirs.

    Whether a row repeats another is no matter of a sample. Images cost about a millisecond each: of fewer rows.
    """
    if any(item.kind == "image" for item in reference.watched) and len(frame) > MOST_PICTURED:
        frame = frame.iloc[np.linspace(0, len(frame) - 1, MOST_PICTURED).astype(np.int64)].reset_index(drop=True)
    described = reference.described(frame)
    if "_score" not in frame or not frame["_score"].notna().any():
        return described
    return described.assign(**prediction_values(score_array(frame["_score"]), reference.classes))


def _usable(current: pd.DataFrame, reference: pd.DataFrame, name: str) -> bool:
    return all(name in frame and frame[name].notna().any() for frame in (reference, current)) and not (
        pd.api.types.is_numeric_dtype(current[name]) and np.isinf(current[name]).any()
    )


_LEAD = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""
<style>
.perennial { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 1.5rem auto; padding: 0 1.5rem; color: #222; }
.perennial h1 { font-size: 1.6rem; margin: 0 0 .3rem; } .perennial h2 { font-size: 1.15rem; margin: 1.4rem 0 .4rem; }
.perennial table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.perennial th, .perennial td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #ddd; }
.perennial .n { text-align: right; } .perennial .moved { color: #a33a00; font-weight: 600; }
.perennial .small { color: #666; }
</style>
<main class="perennial">
<h1>{{ decision.model }} version {{ decision.champion_version }}: {{ decision.verdict }}</h1>
<p class="small">Window {{ window }}, {{ "{:,}".format(decision.evidence.rows) }} rows; decision {{ decision.decision_id }}.</p>
<p>{{ summary | join(" ") }}{% if decision.verdict != "hold" %} {{ decision.next_step }}{% endif %}</p>
<h2>{{ "What moved, by what it does to the predictions" if columns and columns[0].moved else "No column moved further than it ordinarily does" if limits else "Drift has no limit here: too little training data, or too few rows" }}</h2>
<table><thead><tr><th>column</th><th class="n">movement, × its limit</th><th class="n">predictions change by</th><th class="n">on average</th><th class="n">missing</th><th class="n">in training</th></tr></thead><tbody>
{% for row in columns %}
<tr><td{% if row.moved %} class="moved"{% endif %}>{{ row.column }}{{ " (moved)" if row.moved }}</td><td class="n">{{ "–" if row.ratio is none else "%.2f" % row.ratio }}</td><td class="n">{{ "–" if row.change is none else "%.3g" % row.change }}</td><td class="n">{{ "–" if row.shift is none else "%+.3g" % row.shift }}</td><td class="n">{{ "–" if row.missing is none else "%.2f %%" % (100 * row.missing) }}</td><td class="n">{{ "–" if row.trained is none else "%.2f %%" % (100 * row.trained) }}</td></tr>
{% endfor %}
</tbody></table>
{{ examples }}
<h2>Quality</h2>
{% if quality %}
<table><thead><tr><th>metric</th><th class="n">newest mature window, as answered</th><th class="n">at promotion, of a sample</th></tr></thead><tbody>
{% for name, before, now in quality %}<tr><td>{{ name }}</td><td class="n">{{ "%.4g" % now }}</td><td class="n">{{ "–" if before is none else "%.4g" % before }}</td></tr>
{% endfor %}</tbody></table>
{% if loss.mean is defined and loss.mean is not none %}<p>The check judged by {{ loss.name }}: {{ "%.4g" % loss.mean }}{% if loss.interval[0] is not none %} [{{ "%.4g" % loss.interval[0] }}, {{ "%.4g" % loss.interval[1] }}]{% endif %} on {{ "{:,}".format(loss.rows) }} rows{% if loss.at_promotion is not none %}, {{ "%.4g" % loss.at_promotion }} at promotion{% endif %}.</p>{% endif %}
{% else %}<p>No truth is known of the newest mature window.</p>{% endif %}
{% for heading, lines in (("Slices", slices), ("Weak segments", segments)) if lines %}
<h2>{{ heading }}</h2><ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>
{% endfor %}
<h2>Distributions</h2>
<p class="small">Of {{ drawn }} columns, those that moved furthest first: {{ "{:,}".format(rows) }} rows of the window beside {{ "{:,}".format(trained) }} of the training. A score is the column's movement in times of its limit, as the check measured it on all rows{{ "" if limits else "; 0 where it has no limit" }}.</p>
</main>
""")  # noqa: E501
