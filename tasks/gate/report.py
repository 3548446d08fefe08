"""What the gate found, for people and machines: checks, the report, its markdown and tags. No judging, no I/O."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pandas as pd

from tasks.measures.bootstrap import Interval

Verdict = Literal["promote", "keep", "wait", "insufficient evidence"]
Unit = Literal["", "relative", "rows", "ms", "MB"]
_TAG_LENGTH = 250
_RESULTS = {True: "passed", False: "**failed**", None: "unknown"}


@dataclass(frozen=True)
class Check:
    """One thing that the gate looked at.

    `passed` is None where it could not be known. A check that does not block is told but decides nothing. Values of
    unit "relative" are improvements as a share of the reference's loss: +0.02 is two per cent less loss. `bound` says
    on which side of `limit` the value must lie. `detail` is a sentence.
    """

    name: str
    passed: bool | None
    value: float | None = None
    limit: float | None = None
    bound: Literal["min", "max"] = "min"
    unit: Unit = ""
    interval: Interval | None = None
    rows: int | None = None
    detail: str = ""
    blocking: bool = True


@dataclass(frozen=True)
class GateReport:
    """The verdict on one challenger and everything it rests on.

    `alert` asks that people are told: the champion fails its own limits. `metrics` has the metric table of
    "challenger", "champion" (if there is one) and "baseline" on the same rows.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    task: str
    metric: str
    rows: int
    blocks: int
    alert: bool = False
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def comparison(self) -> Check | None:
        """The paired comparison with the champion; for a first model, with the baseline."""
        by_name = {check.name: check for check in self.checks}
        return by_name.get("better_than_champion") or by_name.get("better_than_baseline")

    def flat_metrics(self) -> dict[str, float]:
        """The challenger's metrics under their names, the others' as `champion.NAME` and `baseline.NAME`."""
        flat = dict(self.metrics.get("challenger", {}))
        for name in ("champion", "baseline"):
            flat |= {f"{name}.{metric}": value for metric, value in self.metrics.get(name, {}).items()}
        return flat

    def table(self) -> pd.DataFrame:
        """One row a check."""
        shown = ("passed", "value", "limit", "detail")
        return pd.DataFrame(
            [{"check": check.name} | {name: getattr(check, name) for name in shown} for check in self.checks]
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON's own types; NaN and infinity become None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def tags(self) -> dict[str, str]:
        """Short tags for the model version."""
        tags = {
            "gate.verdict": self.verdict,
            "gate.metric": self.metric,
            "gate.rows": str(self.rows),
            "gate.alert": str(self.alert).lower(),
            "gate.reason": _shortened(self.reasons[0]) if self.reasons else "",
        }
        if (compared := self.comparison) is not None and compared.value is not None:
            tags["gate.improvement"] = number(compared.value, compared.unit)
            tags["gate.interval"] = interval_text(compared)
        return tags


def number(value: float | None, unit: str = "") -> str:
    """A value as people read it: four significant digits, per cent with a sign for relative ones."""
    if value is None or not math.isfinite(value):
        return "–"
    if unit == "relative":
        return f"{100 * value:+.3g} %" if value else "0 %"
    text = f"{value:,.0f}" if unit == "rows" or float(value).is_integer() else f"{value:.4g}"
    return f"{text} {unit}".rstrip() if unit != "rows" else text


def interval_text(check: Check) -> str:
    """`-0.2 % to +1.4 %`, or a dash."""
    if check.interval is None or not check.interval.known:
        return "–"
    return f"{number(check.interval.low, check.unit)} to {number(check.interval.high, check.unit)}"


def render_markdown(report: GateReport) -> str:
    """The report as markdown: verdict, why, the models' metrics side by side, every check."""
    lines = [f"# Gate: {report.verdict}", ""]
    if report.alert:
        lines += ["> **Alert:** the champion fails its own limits.", ""]
    lines += [f"- {reason}" for reason in report.reasons]
    lines += ["", f"Judged by `{report.metric}` on {report.rows:,} rows in {report.blocks:,} blocks of time.", ""]
    lines += _metrics_table(report)
    lines += ["## Checks", "", "| check | result | value | limit | interval | rows |", "|---|---|--:|--:|--:|--:|"]
    lines += [_row(check) for check in report.checks]
    if remarks := [check for check in report.checks if check.detail and not (check.passed and check.blocking)]:
        lines += ["", "## Remarks", ""]
        lines += [f"- `{_escaped(check.name)}`: {check.detail}" for check in remarks]
    lines += [
        "",
        "An improvement is a share of the reference's loss: +2 % is two per cent less loss. "
        "A result in brackets is told but does not block.",
    ]
    return "\n".join(lines) + "\n"


def _metrics_table(report: GateReport) -> list[str]:
    if not report.metrics:
        return []
    models = list(report.metrics)
    lines = [f"| metric | {' | '.join(models)} |", f"|---|{'--:|' * len(models)}"]
    for name in report.metrics[models[0]]:
        values = " | ".join(number(report.metrics[model].get(name)) for model in models)
        lines.append(f"| {f'**{name}**' if name == report.metric else name} | {values} |")
    return [*lines, ""]


def _row(check: Check) -> str:
    sign = "≥" if check.bound == "min" else "≤"
    limit = "–" if check.limit is None else f"{sign} {number(check.limit, check.unit)}"
    result = _RESULTS[check.passed] if check.blocking else f"({_RESULTS[check.passed].strip('*')})"
    cells = (number(check.value, check.unit), limit, interval_text(check), number(check.rows, "rows"))
    return f"| `{_escaped(check.name)}` | {result} | {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ")


def _shortened(text: str) -> str:
    return text if len(text) <= _TAG_LENGTH else text[: _TAG_LENGTH - 1] + "…"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else None
