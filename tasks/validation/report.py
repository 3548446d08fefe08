"""What a validation found, as frozen values, and how people read it (Markdown, HTML). No checking belongs here.

The verdict fails closed: a batch-level problem, an exception or a failed critical expectation refuses the batch.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

Severity = Literal["critical", "warning"]
Verdict = Literal["passed", "passed with warnings", "refused"]

NOTHING_SEEN = "there was no value to look at"
REASON_COLUMNS = ("row", "column", "expectation", "value", "reason")


@dataclass(frozen=True)
class Example:
    """One row that failed: its position in the batch, its id where an id column was named, its value as text."""

    row: int
    id: str | None
    value: str


@dataclass(frozen=True)
class ExpectationResult:
    """What one expectation of the suite found.

    Attributes:
        type: Great Expectations' name of the expectation.
        column: The column, or several joined by ", "; None for an expectation on the whole table.
        rule: The expectation in words, with its bounds.
        success: False also where Great Expectations says True but nothing was really checked.
        row_level: Whether single rows can fail it.
        observed: The aggregate that was compared; None for row-level expectations.
        unexpected_count: Rows that failed; None where it does not apply.
        unexpected_share: Failed rows over the rows that were looked at (missing values are not, as a rule).
        remark: Why it is a failure although Great Expectations says success: nothing was looked at, or it saw NaN.
        exception: Why it could not be judged; counts as a critical failure whatever the severity is.
        failing: The failed rows' values: one column per column of the expectation, indexed by row position.
    """

    type: str
    column: str | None
    severity: Severity
    success: bool
    rule: str
    notes: str = ""
    row_level: bool = False
    observed: Any = None
    unexpected_count: int | None = None
    unexpected_share: float | None = None
    examples: tuple[Example, ...] = ()
    remark: str | None = None
    exception: str | None = None
    failing: pd.DataFrame | None = field(default=None, repr=False, compare=False)

    @property
    def refuses(self) -> bool:
        """Whether this alone refuses the batch."""
        return self.exception is not None or (not self.success and self.severity == "critical")

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: non-finite numbers become None, times ISO 8601; the failing rows are left out."""
        names = ["type", "column", "severity", "success", "rule", "notes", "row_level", "observed"]
        names += ["unexpected_count", "unexpected_share", "remark", "exception"]
        plain = {name: _plain(getattr(self, name)) for name in names}
        return {**plain, "examples": [{"row": e.row, "id": e.id, "value": e.value} for e in self.examples]}


@dataclass(frozen=True)
class ValidationReport:
    """All that a validation found. `problems` are reasons to refuse that belong to no single expectation."""

    suite: str
    digest: str
    rows: int
    results: tuple[ExpectationResult, ...]
    problems: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        if self.problems or not self.results or any(result.refuses for result in self.results):
            return "refused"
        return "passed" if all(result.success for result in self.results) else "passed with warnings"

    @property
    def refused(self) -> bool:
        return self.verdict == "refused"

    @property
    def failures(self) -> tuple[ExpectationResult, ...]:
        """The failed expectations: those that refuse first, those that saw no value last, else in the suite's order."""
        failed = [result for result in self.results if not result.success]
        return tuple(sorted(failed, key=lambda result: (not result.refuses, result.remark == NOTHING_SEEN)))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the batch was refused, one sentence each; empty unless it was.

        That an expectation saw no value is only said where nothing else says that values are missing.
        """
        refusing = [result for result in self.failures if result.refuses]
        telling = [result for result in refusing if result.remark != NOTHING_SEEN] or refusing
        return (*self.problems, *map(summary, telling))

    def quarantined_rows(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Sorted positions of the rows that failed a critical expectation, shape (k,). Of a refused batch, all."""
        if self.refused:
            return np.arange(self.rows, dtype=np.int64)
        found = [result.failing.index.to_numpy(np.int64) for result in self._row_level("critical")]
        return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)

    def row_reasons(self, severity: Severity | None = "critical") -> pd.DataFrame:
        """Which row failed what, by row position, then in the suite's order.

        Args:
            severity: Only expectations of this severity (critical: the rows that quarantine takes); None for all.

        Returns:
            One line per failed row and expectation, with columns row (int64, position in the batch), column,
            expectation, value and reason (str).
        """
        parts = [_reasons_of(result) for result in self._row_level(severity)]
        if not parts:
            text = {name: pd.Series(dtype="str") for name in REASON_COLUMNS[1:]}
            return pd.DataFrame({"row": pd.Series(dtype="int64"), **text})
        return pd.concat(parts, ignore_index=True).sort_values("row", kind="stable", ignore_index=True)

    def _row_level(self, severity: Severity | None) -> list[Any]:
        wanted = [result for result in self.results if severity in (None, result.severity)]
        return [result for result in wanted if result.failing is not None and len(result.failing)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, for artifacts, tables and `--json`."""
        return {
            "suite": self.suite,
            "digest": self.digest,
            "rows": self.rows,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "problems": list(self.problems),
            "quarantined_rows": len(self.quarantined_rows()),
            "expectations": [result.to_dict() for result in self.results],
        }


def summary(result: ExpectationResult) -> str:
    """One sentence: what was expected of what, and what was found."""
    subject = result.column or "the table"
    return f"{subject}: expected {result.rule}; {finding(result)}"


def finding(result: ExpectationResult) -> str:
    """What was found, without what was expected: an exception, a count with its share, or the observed value."""
    if result.exception:
        return f"not judged: {result.exception}"
    if result.remark:
        return result.remark
    if result.unexpected_count is not None:
        share = "" if result.unexpected_share is None else f" ({_share(result.unexpected_share)})"
        return f"{_count(result.unexpected_count, 'row')} failed{share}"
    return "not met" if result.observed is None else f"found {value_text(result.observed)}"


def value_text(value: Any) -> str:
    """A value as people read it: six significant digits, `missing` for a missing one, at most 200 signs."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "missing"
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{int(number)}" if number.is_integer() and abs(number) < 1e15 else f"{number:.6g}"
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    text = ", ".join(map(value_text, value)) if isinstance(value, list | tuple | set) else str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _share(share: float) -> str:
    percent = 100 * share
    return f"{percent:.1f} %" if percent >= 0.1 or percent == 0 else f"{percent:.2g} %"


def row_texts(failing: pd.DataFrame) -> list[str]:
    """The text of each failed row: its value, or `a = 1, b = 2` for an expectation on several columns."""
    if failing.shape[1] == 1:
        return [value_text(value) for value in failing.iloc[:, 0].tolist()]
    pairs = zip(*([f"{name} = {value_text(v)}" for v in failing[name].tolist()] for name in failing), strict=True)
    return [", ".join(pair) for pair in pairs]


def _reasons_of(result: ExpectationResult) -> pd.DataFrame:
    assert result.failing is not None
    values = row_texts(result.failing)
    lead = "" if result.failing.shape[1] > 1 else f"{result.column} = "
    columns: dict[str, Any] = {
        "row": result.failing.index.to_numpy(np.int64),
        "column": result.column or "",
        "expectation": result.type,
        "value": values,
        "reason": [f"{lead}{value}; expected {result.rule}" for value in values],
    }
    return pd.DataFrame(columns).astype(dict.fromkeys(REASON_COLUMNS[1:], "str"))


def _plain(value: Any) -> Any:
    """The JSON-safe twin of a value."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray):
        return [_plain(item) for item in value]
    if value is pd.NaT or value is pd.NA:
        return None
    return value.isoformat() if isinstance(value, dt.datetime | dt.date) else str(value)


def _headline(report: ValidationReport) -> str:
    passed = len(report.results) - len(report.failures)
    return f"{_count(report.rows, 'row')}, {passed} of {len(report.results)} expectations met"


def _quarantine_text(report: ValidationReport) -> str:
    if report.refused:
        return "The whole batch goes to quarantine; the tables stay as they were."
    count = len(report.quarantined_rows())
    if not count:
        return "Every row is let through."
    return f"To quarantine: {_count(count, 'row')}; the others are let through."


def _within(report: ValidationReport) -> list[ExpectationResult]:
    """Expectations that were met as a whole while some rows failed."""
    return [result for result in report.results if result.success and result.unexpected_count]


def _cell(text: str) -> str:
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
    return " ".join(safe.split())


def _example_text(result: ExpectationResult) -> str:
    shown = [f"{e.value} ({e.id if e.id is not None else f'row {e.row}'})" for e in result.examples[:3]]
    return "; ".join(shown)


def _markdown_table(results: list[ExpectationResult]) -> list[str]:
    lines = ["| severity | column | expected | found | examples |", "|---|---|---|---|---|"]
    for result in results:
        cells = (result.column or "(table)", result.rule, finding(result), _example_text(result))
        severity = "critical" if result.exception else result.severity
        lines.append(f"| {severity} | " + " | ".join(_cell(cell) for cell in cells) + " |")
    return lines


def render_markdown(report: ValidationReport, told: Sequence[str] = ()) -> str:
    """A short report: the verdict, what failed with counts and examples, the rest as a count.

    Args:
        told: Why rows were refused one by one, a sentence a rule.
    """
    lines = [f"## {report.suite}: {report.verdict}", "", f"{_headline(report)}. {_quarantine_text(report)}", ""]
    lines += [f"- **{_cell(problem)}**" for problem in report.problems]
    if report.problems:
        lines.append("")
    if told:
        lines += ["### Rows refused one by one", "", *(f"- {_cell(sentence)}" for sentence in told), ""]
    blind = [result for result in report.failures if result.remark == NOTHING_SEEN]
    if telling := [result for result in report.failures if result not in blind]:
        lines += ["### Not met", "", *_markdown_table(telling), ""]
    if blind:
        columns = ", ".join(dict.fromkeys(_cell(result.column or "") for result in blind))
        lines += [f"{_count(len(blind), 'expectation')} failed since {NOTHING_SEEN}: {columns}.", ""]
    if within := _within(report):
        lines += ["### Met, with single rows failing", "", *_markdown_table(within), ""]
    clean = len(report.results) - len(report.failures) - len(within)
    lines.append(f"{_count(clean, 'other expectation')} met without exception. Suite digest `{report.digest}`.")
    return "\n".join(lines) + "\n"


def render_html(report: ValidationReport, told: Sequence[str] = ()) -> str:
    """The full report as one self-contained page: no script, no address of another server; light and dark.

    Args:
        told: As `render_markdown`.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    within = _within(report)
    shown = {id(result) for result in (*report.failures, *within)}
    groups = [
        ("Not met", list(report.failures), True),
        ("Met, with single rows failing", within, True),
        ("Met", [result for result in report.results if id(result) not in shown], False),
    ]
    return environment.from_string(_PAGE).render(
        report=report,
        told=told,
        headline=_headline(report),
        quarantine=_quarantine_text(report),
        groups=[group for group in groups if group[1]],
        finding=finding,
        tone={"passed": "good", "passed with warnings": "warn", "refused": "bad"}[report.verdict],
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.suite }}: {{ report.verdict }}</title>
<style>
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6475; --paper: #ffffff; --tint: #f4f6f9; --line: #d9dee7;
  --good: #17693a; --warn: #8a5300; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #a2abbb; --paper: #14181f; --tint: #1d232d;
  --line: #343c4a; --good: #6fd398; --warn: #f0b65a; --bad: #ff8f85; } }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
ul.problems { padding-left: 1.2rem; font-weight: 600; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .45rem .7rem .45rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); white-space: nowrap; } td.column { font-weight: 600; white-space: nowrap; }
td.number { font-variant-numeric: tabular-nums; }
code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .88em; background: var(--tint);
  padding: .05rem .3rem; border-radius: 3px; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: 2rem 0 .5rem; font-weight: 600; }
</style></head><body>
<h1>{{ report.suite }}: <span class="{{ tone }}">{{ report.verdict }}</span></h1>
<p>{{ headline }}. {{ quarantine }}</p>
{% if report.problems %}<ul class="problems bad">
{% for problem in report.problems %}<li>{{ problem }}</li>{% endfor %}
</ul>{% endif %}
{% if told %}<h2>Rows refused one by one</h2><ul>
{% for sentence in told %}<li>{{ sentence }}</li>{% endfor %}
</ul>{% endif %}
{% macro table(results) %}
<div class="wide"><table><thead><tr><th>Severity</th><th>Column</th><th>Expected</th><th>Found</th><th>Examples</th>
</tr></thead><tbody>
{% for result in results %}
<tr><td class="{{ '' if result.success else 'bad' if result.refuses else 'warn' }}">
{{- 'critical' if result.exception else result.severity }}</td>
<td class="column">{{ result.column or '(table)' }}</td>
<td>{{ result.rule }}{% if result.notes %}<p class="soft">{{ result.notes }}</p>{% endif %}</td>
<td class="number">{{ finding(result) }}</td>
<td>{% for example in result.examples %}<code>{{ example.value }}</code>
<span class="soft">{{ example.id if example.id is not none else 'row ' ~ example.row }}</span>
{{- ', ' if not loop.last }} {% endfor %}</td></tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% for title, results, open in groups %}
{% if open %}<h2>{{ title }} ({{ results | length }})</h2>{{ table(results) }}
{% else %}<details><summary>{{ title }} ({{ results | length }})</summary>{{ table(results) }}</details>{% endif %}
{% endfor %}
<p class="soft">Suite <code>{{ report.suite }}</code>, digest <code>{{ report.digest }}</code></p>
</body></html>
"""
